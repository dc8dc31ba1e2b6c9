"""Writing a trace so that whatever ends the writer, what is on disk is a trace: whole lines, whole gzip members."""

from __future__ import annotations

import contextlib
import gzip
import os
from types import TracebackType
from typing import Final, Self

from xengt_dm.trace.events import Event, Header

#: Bytes of lines kept back before they are written; one gzip member holds as many.
CHUNK_BYTES: Final = 256 << 10


class TraceWriter:
    """A trace file being written; use it as a context manager, or call :meth:`close`.

    ``file`` is a path, which is replaced if it exists, or a descriptor open for writing, which is the writer's from
    then on. The file is gzip if ``compress``, or, without it, if the path ends in ``.gz``. Lines are kept back until
    there are CHUNK_BYTES of them, or until :meth:`flush`. Not for several threads at once. Opening, :meth:`write` and
    :meth:`flush` raise OSError; after one, the file still ends with a whole line.
    """

    # A killed recorder must leave a trace that can be replayed. Lines are therefore written only in whole ones, and for
    # gzip each chunk is a member of its own: members may follow each other (RFC 1952, 2.2), so a file is complete after
    # each of them, where one long stream would lack its end. It costs 18 bytes and a fresh window a chunk.

    def __init__(self, file: str | os.PathLike[str] | int, header: Header, compress: bool | None = None) -> None:
        named_gz = not isinstance(file, int) and os.fspath(file).endswith(".gz")
        self._compress = named_gz if compress is None else compress
        self._lines: list[str] = []
        self._pending = 0
        self._good_bytes = 0
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
        self._append(event.line())
        if self._pending >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand every line so far to the operating system."""
        if not self._lines:
            return
        data = "".join(self._lines).encode()
        self._lines.clear()
        self._pending = 0
        if self._compress:
            data = gzip.compress(data, compresslevel=6, mtime=0)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # a pipe has no length to cut back
                os.ftruncate(self._fd, self._good_bytes)
                os.lseek(self._fd, self._good_bytes, os.SEEK_SET)
            raise
        self._good_bytes += len(data)

    def close(self) -> None:
        """Flush and close; closing twice does nothing."""
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
