"""Writes a trace. Whenever the writer ends, even by SIGKILL, the file is a valid trace.

Facts: a recorder that was killed must leave a trace that can be replayed. A gzip stream that lacks its end cannot be
read.
What we do: only whole lines are written, in chunks. With gzip each chunk is a member of its own. Members may follow
each other (RFC 1952, 2.2), so the file is complete after each of them.
Cost: 18 bytes and an empty compression window for each chunk.
"""

from __future__ import annotations

import contextlib
import gzip
import os
from types import TracebackType
from typing import Final, Self

from xengt_dm.trace.ending import End, EndedError
from xengt_dm.trace.events import Event, Header

#: Lines are collected up to this many bytes and written together. One gzip member holds one such chunk.
CHUNK_BYTES: Final = 256 << 10
#: gzip's fastest level: a recording must keep up with its guest. The files are a fifth larger than at level 6.
GZIP_LEVEL: Final = 1


class TraceWriter:
    """A trace file that is being written. Use it as a context manager, or call :meth:`close`.

    ``file`` is a path, whose file is replaced if it exists, or a descriptor open for writing, which the writer then
    owns. ``compress`` says whether the file is gzip; if it is None, the file is gzip if the path ends in ``.gz``. Lines
    are collected until there are CHUNK_BYTES of them, or until :meth:`flush`. The file never has more than ``limit``
    bytes. Only one thread may use a writer. The constructor and the methods that write raise OSError, and EndedError at
    the limit; after an error the file still ends with a whole line.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | int,
        header: Header,
        compress: bool | None = None,
        limit: int | None = None,
    ) -> None:
        named_gz = not isinstance(file, int) and os.fspath(file).endswith(".gz")
        self._compress = named_gz if compress is None else compress
        self._lines: list[str] = []
        self._pending = 0
        self._good_bytes = 0
        self._limit = limit
        self._lines_in_file = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = file if isinstance(file, int) else os.open(file, flags, 0o666)
        try:
            self._append(header.line())
            self.flush()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, event: Event) -> None:
        """Appends an event. It may be kept in memory until :meth:`flush`."""
        self._append(event.line())
        if self._pending >= CHUNK_BYTES:
            self.flush()

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self._good_bytes

    @property
    def events(self) -> int:
        """Events in the file so far."""
        return self._lines_in_file - 1  # without the header

    def flush(self) -> None:
        """Writes all lines so far to the file."""
        if not self._lines:
            return
        data = "".join(self._lines).encode()
        self._lines.clear()
        self._pending = 0
        self.write_lines(data)

    def write_lines(self, lines: bytes, *, reserve: int = 0) -> None:
        """Writes whole lines, leaving ``reserve`` bytes of the limit free. Nothing may wait to be flushed.

        At the limit an uncompressed file receives the lines that fit, a compressed file none of them.
        """
        data = gzip.compress(lines, compresslevel=GZIP_LEVEL, mtime=0) if self._compress else lines
        room = len(data) if self._limit is None else max(self._limit - reserve - self._good_bytes, 0)
        full = len(data) > room
        if full:
            lines = b"" if self._compress else lines[: lines.rfind(b"\n", 0, room) + 1]
            data = lines
        self._write(data)
        self._lines_in_file += lines.count(b"\n")
        if full:
            raise EndedError(End.SIZE)

    def _write(self, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._good_bytes)
                os.lseek(self._fd, self._good_bytes, os.SEEK_SET)
            raise
        self._good_bytes += len(data)

    def close(self) -> None:
        """Flushes and closes the file. Closing a second time does nothing. Raises OSError."""
        if self._fd < 0:
            return
        try:
            self.flush()
        finally:
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: str) -> None:
        self._lines.append(line + "\n")
        self._pending += len(line) + 1
