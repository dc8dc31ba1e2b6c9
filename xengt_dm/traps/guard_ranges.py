"""The frames whose addresses an ioreq server has claimed as MMIO, one range of 4 KiB for each.

A range means nothing to a page that is RAM; it decides where a store goes that finds no memory.

Room
----
Facts: a server has at most 256 ranges (MAX_NR_IO_RANGES, xen/common/ioreq.c). Ranges must not overlap; adjacent ones
are one (rangeset_add_range, xen/common/rangeset.c), but a range that joins the next one *above* it is made first and
merged then, and giving back the middle of a merged range makes two of it; both fail when there is no range left to
make. Each change is made under the set's lock.

What follows: claimed and given back by the frame, no other frame is ever without its range, however Xen merges and
splits. How many ranges there are can be counted here.

What we do: count as Xen does, leave one range for BAR0 and one for the merge, and refuse what would not fit, including
to give back a frame in the middle of a full set.

What it costs: frames that are scattered are worth 254; neighbours are many more.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Final

from xengt_dm.errors import HostError
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.traps.retry import twice

FRAME: Final = 4096
#: MAX_NR_IO_RANGES, xen/common/ioreq.c; up to 4.14 in xen/include/asm-x86/hvm/domain.h.
MAX_NR_IO_RANGES: Final = 256
#: Ranges for frames: without BAR0's, and without the one that a merge needs for a moment.
MOST: Final = MAX_NR_IO_RANGES - 2


class FrameRanges:
    """The frames that have a range of ``server``, and those for which room for one is kept."""

    def __init__(self, port: DomainPort, server: int) -> None:
        self._port = port
        self._server = server
        self._frames: set[int] = set()
        self._reserved: set[int] = set()
        #: Ranges as Xen has them, those of frames alone.
        self.count = 0

    def __contains__(self, gfn: int) -> bool:
        return gfn in self._frames

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self) -> set[int]:
        return set(self._frames)

    def add(self, gfn: int) -> int:
        """Claim a frame's address. 0, or the errno of why not: ENOSPC if there is no room, else Xen's.

        Raises DomainGoneError.
        """
        if gfn in self._frames:
            return 0
        growth = 1 - self._neighbours(gfn)
        if self.count + growth + len(self._reserved - {gfn}) > MOST:
            return errno.ENOSPC
        try:
            self._port.map_mmio(self._server, gfn * FRAME, gfn * FRAME + FRAME - 1)
        except HostError as error:
            if error.errno != errno.EEXIST:  # a predecessor's, which does as well
                return error.errno
        self._frames.add(gfn)
        self._reserved.discard(gfn)
        self.count += growth
        return 0

    def remove(self, gfn: int, reserve: bool = False) -> bool:
        """Give a frame's range back; with ``reserve``, :meth:`add` will find room for it again.

        False if there is no room to cut it out, or Xen refuses. Raises DomainGoneError.
        """
        growth = self._neighbours(gfn) - 1
        if growth + reserve > 0 and self.count + growth + len(self._reserved) + reserve > MOST:
            return False
        try:
            twice(self._port.unmap_mmio, self._server, gfn * FRAME, gfn * FRAME + FRAME - 1)
        except HostError:
            return False
        self._frames.discard(gfn)
        self.count += growth
        if reserve:
            self._reserved.add(gfn)
        return True

    def adopt(self, first: int, last: int) -> None:
        """Take over the ranges that a predecessor left over frames ``first``..``last``.

        Nothing lists them. But what overlaps one is refused with EEXIST, before anything else is looked at; so they are
        found by halves. What is no RAM comes to us for the moment of a question, and is dropped like before. Raises
        HostError.
        """
        parts = [(first, last)] if first <= last else []
        while parts:
            low, high = parts.pop()
            if not self._overlaps(low, high):
                continue
            if low == high:
                self._frames.add(low)
            else:
                middle = (low + high) // 2
                parts += (low, middle), (middle + 1, high)
        self.count = sum(gfn - 1 not in self._frames for gfn in self._frames)

    def _overlaps(self, first: int, last: int) -> bool:
        whole = (self._server, first * FRAME, last * FRAME + FRAME - 1)
        try:
            twice(self._port.map_mmio, *whole)
        except HostError as error:
            if error.errno in (errno.EEXIST, errno.ENOMEM):  # ENOMEM: there are as many ranges as there can be
                return error.errno == errno.EEXIST
            raise
        twice(self._port.unmap_mmio, *whole)
        return False

    def ends(self, gfns: Iterable[int]) -> Iterator[int]:
        """Those of these frames at an end of a range, to be removed one after the other: that takes no room."""
        ascending = sorted(gfns)
        for gfn in ascending:
            if gfn - 1 not in self._frames:
                yield gfn
        for gfn in reversed(ascending):
            if gfn in self._frames and gfn + 1 not in self._frames:
                yield gfn

    def unreserve(self, gfn: int) -> None:
        self._reserved.discard(gfn)

    def _neighbours(self, gfn: int) -> int:
        return (gfn - 1 in self._frames) + (gfn + 1 in self._frames)
