"""The file in the run directory that records which address ranges the ioreq server has.

Facts: no hypercall lists the ranges of a server. A guard range is added for every frame that is unprotected, and
dropped soon. A store to a shared file mapping is kept if the process dies at any moment. (It is lost if the host dies,
but then the domain has ended, too.)

What follows: the file is mapped, and recording a range takes two stores and no system call. Each stores one aligned
word, and the second one makes the entry valid, or free.

The file ``ranges`` begins with a header of two words: MAGIC, and the number of entries that there is room for. Each
entry has two words: ``kind << 60 | first``, and ``last + 1``, or 0 if the entry is free. A file with another header or
size, because another version wrote it or it was truncated, counts as no record.
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
#: How many ranges fit. Xen allows a server 256 of each kind, but it counts adjacent guard ranges as one.
ROOM: Final = 4094
_HEADER_WORDS: Final = 2
_WORDS: Final = _HEADER_WORDS + 2 * ROOM
_KIND_SHIFT: Final = 60
_ADDRESS_MASK: Final = (1 << _KIND_SHIFT) - 1
#: By kind: the highest address. A function's number has a segment of 16 bits and 16 bits more.
_HIGHEST: Final = {RangeKind.PORT: 0xFFFF, RangeKind.PCI: 0xFFFF_FFFF}


class RangesFile:
    """The file ``ranges`` in a run directory. Implements :class:`~xengt_dm.ioreq.ranges.RangeRecord`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._words: memoryview | None = None
        #: The index of each range's first word in the file, and those of the free entries.
        self._places: dict[Range, int] = {}
        self._free: list[int] = []

    def read(self) -> list[Range] | None:
        """Returns the recorded ranges, in the order of the file; None if there is no readable record."""
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
            found = [
                Range(RangeKind(first >> _KIND_SHIFT), first & _ADDRESS_MASK, end - 1) for first, end in entries if end
            ]
        except ValueError:  # no such kind
            return None
        return found if all(map(_is_possible, found)) else None

    def start(self, ranges: Iterable[Range]) -> None:
        """Writes a new file with these ranges, maps it, and replaces the old file by it. Raises OSError."""
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # Without this, a store to the mapping would be SIGBUS on a full file system.
            os.posix_fallocate(fd, 0, 8 * _WORDS)
            self._words = memoryview(mmap.mmap(fd, 8 * _WORDS)).cast("Q")
        finally:
            os.close(fd)
        self._words[0], self._words[1] = MAGIC, ROOM
        self._places = {}
        self._free = list(range(_HEADER_WORDS, _WORDS, 2))[::-1]
        for each in ranges:
            self.add(each)
        new.replace(self._path)

    def add(self, added: Range) -> bool:
        """Records a range. Returns whether it was not there. Raises HostError with ENOSPC if the file is full."""
        assert self._words is not None, "the record was not started"
        if added in self._places:
            return False
        if not self._free:
            raise HostError(f"record a range in {self._path}", None, errno.ENOSPC)
        place = self._places[added] = self._free.pop()
        self._words[place] = added.kind << _KIND_SHIFT | added.first
        self._words[place + 1] = added.last + 1
        return True

    def remove(self, removed: Range) -> None:
        assert self._words is not None, "the record was not started"
        place = self._places.pop(removed, None)
        if place is not None:
            self._words[place + 1] = 0
            self._free.append(place)

    def clear(self) -> None:
        """Removes the file. Does nothing if there is none."""
        self._path.unlink(missing_ok=True)


def _is_possible(found: Range) -> bool:
    """Whether this process could have written the range; otherwise the file is none of ours, or damaged."""
    most = _HIGHEST.get(found.kind, _ADDRESS_MASK)
    return found.first <= found.last <= most and (found.kind is not RangeKind.PCI or found.first == found.last)
