"""Guard ranges: frames whose addresses our ioreq server has claimed as MMIO, one range of 4 KiB for each.

What they are for: :mod:`xengt_dm.traps.state`. For a store to RAM, Xen does not look at ranges. For a store that finds
no RAM, the range decides which server gets it.

Room
----
Facts: a server has at most 256 ranges (MAX_NR_IO_RANGES, xen/common/ioreq.c). Ranges must not overlap. Adjacent ones
become one (rangeset_add_range, xen/common/rangeset.c), but a range that joins the next one *above* it is made first and
merged then; and removing the middle of a merged range makes two of it. Both fail when there is no range left to make.
Each change is made under the set's lock.

What follows: ranges can be claimed and removed one frame at a time. Xen's merging and splitting never leaves another
frame without its range, not even for a moment. The number of ranges that Xen has can be computed here.

What we do: count as Xen does, leave a range for each of two BARs, one for a BAR that moves, and one for the merge, and
refuse what would exceed the limit.
Removing a frame from the middle of a merged range adds a range, so it is refused as well when there is no room.

Cost: 252 frames that are scattered have room, and many more that are neighbours.

What a predecessor left
-----------------------
Facts: nothing lists the ranges of a server. Claiming a range that overlaps one of the server's own is refused with
EEXIST before anything else is looked at. Xen asks the server with the highest id first, and ours has a higher one than
QEMU's. So a range that we claim over a QEMU device takes that device's accesses away until we remove it: reads get all
ones, writes are lost.

What we do: the ranges are on record (:class:`~xengt_dm.ioreq.ranges.RangeRecord`), so a successor need not search.
If there is no record, because the predecessor's version wrote none, :func:`search_ram` tries to claim ranges, but over
RAM only. A range over RAM takes no accesses away from another server.

Cost: the search does not find a range over a frame that was RAM and is a hole now. Until the server is destroyed, we
get the stores to that hole, which Xen would drop.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from xengt_dm._core import ffi
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.best_effort import retry_once
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.ioreq.ranges import Range, RangeKind, RangeRecord
from xengt_dm.ioreq.slots import Slots
from xengt_dm.units import PAGE_SIZE

#: MAX_NR_IO_RANGES, xen/common/ioreq.c; up to 4.14 in xen/include/asm-x86/hvm/domain.h.
MAX_NR_IO_RANGES: Final = 256
#: Ranges for frames: without those of BARs, and without what a merge and the move of a BAR need for a moment.
MOST: Final = MAX_NR_IO_RANGES - 4
#: Frames that are mapped in one go to find out which of them are RAM.
_CHUNK: Final = 512


class GuardRanges:
    """The frames that have a guard range of ``server``, and those for which room for one is reserved."""

    def __init__(self, port: DomainPort, server: int, record: RangeRecord) -> None:
        self._port = port
        self._server = server
        self._record = record
        self._frames: set[int] = set()
        self._reserved: set[int] = set()
        #: How many ranges Xen has for these frames. Adjacent frames share one.
        self.count = 0

    def __contains__(self, gfn: int) -> bool:
        return gfn in self._frames

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self) -> set[int]:
        """A copy of the set of frames that have a range."""
        return set(self._frames)

    def add(self, gfn: int) -> int:
        """Claims a frame's addresses. Returns 0, ENOSPC if there is no room, or Xen's errno. Raises DomainGoneError."""
        if gfn in self._frames:
            return 0
        growth = 1 - self._neighbours(gfn)
        if self.count + growth + len(self._reserved - {gfn}) > MOST:
            return errno.ENOSPC
        guard = guard_range(gfn)
        try:
            self._record.add(guard)
            self._port.map_mmio(self._server, guard.first, guard.last)
        except HostError as error:
            if error.errno != errno.EEXIST:  # EEXIST: the server has the range from a predecessor
                self._record.remove(guard)
                return error.errno
        self._frames.add(gfn)
        self._reserved.discard(gfn)
        self.count += growth
        return 0

    def add_retrying(self, gfn: int) -> int:
        """As :meth:`add`, with a second try if that fails."""
        return self.add(gfn) and self.add(gfn)

    def remove(self, gfn: int, reserve: bool = False) -> bool:
        """Removes a frame's range. With ``reserve``, keeps room so that :meth:`add` can claim it again.

        Returns False, and the range stays, if that needs more room than there is, or if Xen refuses. Removing a frame
        between two others splits their range, which needs room for one more. Raises DomainGoneError.
        """
        growth = self._neighbours(gfn) - 1
        newly_reserved = 1 if reserve else 0
        needed = growth + newly_reserved
        if needed > 0 and self.count + len(self._reserved) + needed > MOST:
            return False
        guard = guard_range(gfn)
        try:
            retry_once(self._port.unmap_mmio, self._server, guard.first, guard.last)
        except HostError as error:
            if error.errno != errno.ENOENT:  # ENOENT: the predecessor recorded the range, and died before it claimed it
                return False
        self._record.remove(guard)
        self._frames.discard(gfn)
        self.count += growth
        if reserve:
            self._reserved.add(gfn)
        return True

    def drop(self, gfns: Collection[int], *, ends_only: bool = False, reserve: Collection[int] = ()) -> None:
        """Removes the ranges of these frames as far as there is room to; keeps room for those in ``reserve``.

        ``ends_only``: leaves out frames whose removal would split a range. Raises DomainGoneError.
        """
        for gfn in self.ends(gfns):
            self.remove(gfn, gfn in reserve)
        if not ends_only:
            for gfn in self._frames.intersection(gfns):
                self.remove(gfn, gfn in reserve)

    def adopt(self, gfns: Iterable[int]) -> None:
        """Takes over the ranges that a predecessor left over these frames, or was about to claim."""
        self._frames.update(gfns)
        self.count = sum(gfn - 1 not in self._frames for gfn in self._frames)

    def ends(self, gfns: Iterable[int]) -> Iterator[int]:
        """Yields those of these frames that are at an end of a range, so that removing them splits no range.

        The caller must remove each frame before it takes the next one: that makes the frame beside it an end.
        """
        ascending = sorted(gfns)
        for gfn in ascending:
            if gfn - 1 not in self._frames:
                yield gfn
        for gfn in reversed(ascending):
            if gfn in self._frames and gfn + 1 not in self._frames:
                yield gfn

    def unreserve(self, gfn: int) -> None:
        """Stops keeping room for this frame."""
        self._reserved.discard(gfn)

    def reserved(self) -> set[int]:
        """A copy of the set of frames for which room is kept."""
        return set(self._reserved)

    def check(self) -> None:
        """Raises AssertionError if this contradicts itself; for tests."""
        assert self.count == sum(gfn - 1 not in self._frames for gfn in self._frames)
        assert self.count + len(self._reserved) <= MOST
        assert not self._frames & self._reserved

    def _neighbours(self, gfn: int) -> int:
        """Returns how many of the two frames beside this one have a range: 0, 1 or 2."""
        return (gfn - 1 in self._frames) + (gfn + 1 in self._frames)


def guard_range(gfn: int) -> Range:
    """The range of one frame."""
    return Range(RangeKind.GUARD, gfn * PAGE_SIZE, gfn * PAGE_SIZE + PAGE_SIZE - 1)


def barrier(port: DomainPort, server: int) -> bool:
    """Pauses the domain for a moment: every vCPU then has left the instruction emulator, or waits in its slot.

    Returns False if Xen refused, so that nothing is known about the vCPUs. Raises DomainGoneError.
    """
    try:
        retry_once(port.set_server_state, server, True)
    except HostError:
        return False
    return True


def droppable(gfns: set[int], port: DomainPort, server: int, slots: Slots) -> set[int]:
    """Returns those of these frames whose guard ranges no late store can need any more. Makes a barrier.

    The frames must not trap. Raises DomainGoneError.
    """
    before = slots.frames_in_flight()
    if not barrier(port, server):
        return set()
    return gfns - before - slots.frames_in_flight()


def ram_frames(port: DomainPort, first: int, count: int) -> list[int]:
    """Returns those of ``count`` frames that are RAM: they can be mapped. Raises CallError."""
    errors = ffi.new("int[]", count)
    port.unmap_frames(port.map_frames(first, count, errors), count)
    return [first + i for i in range(count) if not errors[i]]


def search_ram(port: DomainPort, server: int) -> set[int]:
    """Returns all RAM frames over which the server has a range. Raises CallError."""
    found: set[int] = set()
    for first in range(0, port.frame_limit, _CHUNK):
        frames = ram_frames(port, first, min(_CHUNK, port.frame_limit - first))
        for low, high in _runs(frames):
            found.update(_bisect(port, server, low, high))
    return found


def _runs(frames: list[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each run of consecutive frames."""
    start = 0
    for i, gfn in enumerate(frames):
        if i + 1 == len(frames) or frames[i + 1] != gfn + 1:
            yield frames[start], gfn
            start = i + 1


def _bisect(port: DomainPort, server: int, first: int, last: int) -> Iterator[int]:
    """The frames of ``first``..``last``, all RAM, over which the server has a range."""
    parts = [(first, last)]
    while parts:
        low, high = parts.pop()
        if not _overlaps(port, server, low, high):
            continue
        if low == high:
            yield low
        else:
            middle = (low + high) // 2
            parts += (low, middle), (middle + 1, high)


def _overlaps(port: DomainPort, server: int, first: int, last: int) -> bool:
    whole = (server, first * PAGE_SIZE, last * PAGE_SIZE + PAGE_SIZE - 1)
    try:
        retry_once(port.map_mmio, *whole)
    except HostError as error:
        if error.errno in (errno.EEXIST, errno.ENOMEM):  # ENOMEM: there are as many ranges as there can be
            return error.errno == errno.EEXIST
        raise
    retry_once(port.unmap_mmio, *whole)
    return False
