"""The address ranges whose accesses Xen sends to our ioreq server, and the record of them for a successor.

Facts: no hypercall lists the ranges of a server. A guard range is added for every frame that is unprotected, and
dropped soon. A store to a shared file mapping is kept if the process dies at any moment.

What follows: the record is in a region of the instance's state (:class:`RangesRegion`), and recording a range takes two
stores and no system call. Each stores one aligned word, and the second one makes the entry valid, or free.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from xengt_dm.errors import HostError


class RangeKind(enum.IntEnum):
    """What a range consists of. All but GUARD are as XEN_DMOP_IO_RANGE_*, xen/include/public/hvm/dm_op.h."""

    PORT = 0
    MEMORY = 1
    PCI = 2
    #: To Xen this is MEMORY: one frame of guest RAM, see :mod:`xengt_dm.traps.guard_ranges`.
    GUARD = 3


class Range(NamedTuple):
    """Addresses ``first`` to ``last``, both included: ports or guest physical addresses, by ``kind``.

    A PCI range is the configuration space of one function: both numbers are that of :func:`xengt_dm.units.sbdf`.
    """

    kind: RangeKind
    first: int
    last: int


class RangeRecord(Protocol):
    """The record of the server's ranges for a successor.

    A range is recorded before Xen gets it and removed from the record after Xen has removed it. So if the process dies
    at any moment, the record has all ranges, and at most one more that Xen does not have. Methods that write raise
    OSError.
    """

    def read(self) -> list[Range] | None:
        """Returns what a predecessor recorded; None if there is no record, or none that can be trusted."""

    def start(self, ranges: Iterable[Range]) -> None:
        """Has the record be of these ranges. What was recorded and is one of them is on record all the time.

        Must precede :meth:`add` and :meth:`remove`.
        """

    def add(self, added: Range) -> bool:
        """Records a range. Returns whether it was not there. Raises HostError with ENOSPC if the record is full."""

    def remove(self, removed: Range) -> None:
        """Removes a range from the record. Does nothing if it is not there."""

    def clear(self) -> None:
        """Removes the record, after the server was destroyed."""


class NoRangeRecord:
    """A :class:`RangeRecord` that records nothing, for a server that no successor will adopt."""

    def read(self) -> list[Range] | None:
        return None

    def start(self, ranges: Iterable[Range]) -> None: ...

    def add(self, added: Range) -> bool:
        return True

    def remove(self, removed: Range) -> None: ...

    def clear(self) -> None: ...


_KIND_SHIFT: Final = 60
_ADDRESS_MASK: Final = (1 << _KIND_SHIFT) - 1
_ENTRY_WORDS: Final = 2
#: By kind: the highest address. A function's number has a segment of 16 bits and 16 bits more.
_HIGHEST: Final = {RangeKind.PORT: 0xFFFF, RangeKind.PCI: 0xFFFF_FFFF}


class RangesRegion:
    """A :class:`RangeRecord` in ``words``, memory that outlives the process.

    An entry has two words: ``kind << 60 | first``, and ``last + 1``, or 0 if the entry is free. Zeros are no ranges.
    """

    def __init__(self, words: memoryview) -> None:
        """``words``: writable, of 8 bytes each, an even number of them."""
        self._words = words
        #: The index of each range's first word, and those of the free entries, the next one to be used last.
        self._places: dict[Range, int] = {}
        self._free: list[int] = []

    def read(self) -> list[Range] | None:
        """Returns the recorded ranges, in the order of their entries; None if the memory holds what is no range."""
        words = self._words.tolist()
        try:
            return [_range(first, end) for first, end in zip(words[::2], words[1::2], strict=True) if end]
        except ValueError:
            return None

    def start(self, ranges: Iterable[Range]) -> None:
        wanted = set(ranges)
        words = self._words.tolist()
        self._places = {}
        for place in range(0, len(words), _ENTRY_WORDS):
            if not words[place + 1]:
                continue
            found = _range_or_none(words[place], words[place + 1])
            if found in wanted and found not in self._places:
                self._places[found] = place
            else:
                self._words[place + 1] = 0
        used = {*self._places.values()}
        self._free = [place for place in range(len(words) - _ENTRY_WORDS, -1, -_ENTRY_WORDS) if place not in used]
        for each in sorted(wanted - self._places.keys()):
            self.add(each)

    def add(self, added: Range) -> bool:
        if added in self._places:
            return False
        if not self._free:
            raise HostError("record a range", None, errno.ENOSPC, f"{len(self._places)} are all that may be recorded")
        place = self._places[added] = self._free.pop()
        self._words[place] = added.kind << _KIND_SHIFT | added.first
        self._words[place + 1] = added.last + 1
        return True

    def remove(self, removed: Range) -> None:
        place = self._places.pop(removed, None)
        if place is not None:
            self._words[place + 1] = 0
            self._free.append(place)

    def clear(self) -> None:
        self.start([])


def _range(first: int, end: int) -> Range:
    """The range that an entry in use is. Raises ValueError if there is no such range."""
    kind, address = RangeKind(first >> _KIND_SHIFT), first & _ADDRESS_MASK
    found = Range(kind, address, end - 1)
    most = _HIGHEST.get(kind, _ADDRESS_MASK)
    if not address < end <= most + 1 or (kind is RangeKind.PCI and found.first != found.last):
        raise ValueError(f"no server has {found}")
    return found


def _range_or_none(first: int, end: int) -> Range | None:
    try:
        return _range(first, end)
    except ValueError:
        return None
