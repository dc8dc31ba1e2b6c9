"""The file in the run directory that records which address ranges the ioreq server has.

Facts: nothing lists the ranges of a server, and guard ranges come and go with every frame that is unprotected. A store
to a shared file mapping survives the death of the process that made it, at any instant (not that of the host, but the
host's death ends the domain, too).

What follows: the file is mapped, and an entry costs two stores and no system call. Each is one aligned word, and the
second one makes the entry valid, or not valid any more.

The file ``ranges`` is a header of two words, MAGIC and the number of entries that there is room for, and then two words
an entry: ``kind << 60 | first``, and ``last + 1``, or 0 if the entry is free. A file that looks different, because
another version wrote it or it was cut short, is no record.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from xengt_dm.errors import HostError
from xengt_dm.ioreq.ranges import Range, RangeKind

FILE_NAME: Final = "ranges"
#: "XDRANGE1", read as a little-endian word.
MAGIC: Final = int.from_bytes(b"XDRANGE1", "little")
#: Far more than a server can have: Xen allows it 256 of a kind, of which neighbours are one.
ROOM: Final = 4094
_HEADER_WORDS: Final = 2
_WORDS: Final = _HEADER_WORDS + 2 * ROOM
_KIND_SHIFT: Final = 60
_ADDRESS_MASK: Final = (1 << _KIND_SHIFT) - 1


class RangesFile:
    """The file ``ranges`` in a run directory. Implements :class:`~xengt_dm.ioreq.ranges.RangeRecord`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._words: memoryview | None = None
        #: Where each range is in the file, and which entries are free.
        self._places: dict[Range, int] = {}
        self._free: list[int] = []

    def read(self) -> list[Range] | None:
        """The recorded ranges, in the order of the file; None if there is no readable record."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        if len(data) != 8 * _WORDS:
            return None
        words = struct.unpack(f"<{_WORDS}Q", data)
        if words[:_HEADER_WORDS] != (MAGIC, ROOM):
            return None
        entries = zip(words[_HEADER_WORDS::2], words[_HEADER_WORDS + 1 :: 2], strict=True)
        try:
            return [
                Range(RangeKind(first >> _KIND_SHIFT), first & _ADDRESS_MASK, end - 1) for first, end in entries if end
            ]
        except ValueError:  # no such kind
            return None

    def start(self, ranges: Iterable[Range]) -> None:
        """Write a new file with these ranges, put it in the place of the old one, and map it. Raises OSError."""
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, 8 * _WORDS)  # a store to a page that a full file system cannot give is SIGBUS
            self._words = memoryview(mmap.mmap(fd, 8 * _WORDS)).cast("Q")
        finally:
            os.close(fd)
        self._words[0], self._words[1] = MAGIC, ROOM
        self._places = {}
        self._free = list(range(_HEADER_WORDS, _WORDS, 2))[::-1]
        for each in ranges:
            self.add(each)
        new.replace(self._path)

    def add(self, added: Range) -> None:
        """Raises HostError with ENOSPC if the file is full."""
        assert self._words is not None, "the record was not started"
        if added in self._places:
            return
        if not self._free:
            raise HostError(f"record a range in {self._path}", None, errno.ENOSPC)
        place = self._places[added] = self._free.pop()
        self._words[place] = added.kind << _KIND_SHIFT | added.first
        self._words[place + 1] = added.last + 1

    def remove(self, removed: Range) -> None:
        assert self._words is not None, "the record was not started"
        place = self._places.pop(removed, None)
        if place is not None:
            self._words[place + 1] = 0
            self._free.append(place)

    def clear(self) -> None:
        """Remove the file. Does nothing if there is none."""
        self._path.unlink(missing_ok=True)
