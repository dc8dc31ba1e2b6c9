"""Protection in Xen as the 2014 series has it (4.6): the type sends a store to whoever has a range there.

The order
---------
Facts: a page of type ``mmio_write_dm`` says only that a store is no RAM access; who gets it is decided by ranges alone,
and a store that meets no range goes to the default server, or nowhere. The type is looked at without any lock between
the fault and that decision.

What follows: a frame needs its range before it has the type, and until no vCPU can be on its way because of the type.

What we do: range first, type second. When a frame is let go, the range stays and is the cover, through all of the time
that an open frame is open; what nobody needs any more is given back behind a barrier, when room is needed. The ranges
are a quota (:mod:`xengt_dm.traps.guard_ranges`): a frame that finds no room fails alone, with ENOSPC, and the engine
maps nothing for it.

Mapping
-------
Facts: the type was no RAM type yet, so that ``get_page_from_gfn`` has no page for it: a frame that has the type cannot
be mapped. Frames are mapped by the chunk, in one piece, and again whenever somebody has to know which of them are RAM.

What we do: the protected frames of a chunk are plain memory for the moment in which it is mapped. A store of that
moment is performed by the guest's CPU itself; so no table can be trusted until it was read once more, and
``gaps`` says so. XenGT mapped all of a guest's memory before it protected any, which never learns of ballooning.

What it costs: two type changes for each protected frame of a chunk, and the next submission reads its tables.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack

from xengt_dm._core import ffi
from xengt_dm.hypervisor.port import DomainPort, MemType
from xengt_dm.traps.protection import Protection
from xengt_dm.units import CData


class RangeProtection(Protection):
    """Every frame that is protected or open has a range; ``_lost`` ones have room for one.

    A frame is lost when the guest has given it back and the engine does not know yet: it may become RAM again, and then
    :meth:`verify` protects the new page.
    """

    TRAP = MemType.MMIO_WRITE_DM

    def __init__(self, port: DomainPort, server: int, in_flight: Callable[[], set[int]]) -> None:
        super().__init__(port, server, in_flight)
        self._lost: set[int] = set()
        #: Frames that have their range, and are about to get the type.
        self._coming: set[int] = set()

    def adopt(self, first: int, last: int) -> None:
        """A frame with a range may have the type. Nobody knows what it was protected for, so it is let go."""
        super().adopt(first, last)
        frames = self._ranges.frames() - self._protected
        self._protected |= frames
        self._lingering |= frames
        self.settle()

    def verify(self, gfns: CData, count: int) -> None:
        lost = self._lost.intersection(ffi.unpack(gfns, count))
        for gfn in sorted(lost):
            error = self._ranges.add(gfn) and self._ranges.add(gfn)
            if error:
                raise self._unverified(error)
        frames = sorted(lost)
        for gfn, error in zip(frames, self._set_types(self.TRAP, frames), strict=True):
            if not error:
                self._lost.discard(gfn)
                self._protected.add(gfn)
            elif error == errno.EINVAL:
                self._give_back(gfn)
            else:
                raise self._unverified(error)

    def frames_changed(self) -> None:
        """Find out which of our frames the guest gave back, or replaced, and give up the ranges over them.

        The type tells: only a frame that the guest replaced takes it (again), and of the others only those that the
        guest still has can be let go. A replaced one is not ours to keep: its page is not the one that we have mapped.
        """
        ours = sorted(self._protected)
        replaced = [
            gfn for gfn, error in zip(ours, self._set_types(self.TRAP, ours), strict=True) if error != errno.EINVAL
        ]
        self._set_types(MemType.RAM_RW, replaced)
        self._lose(replaced)
        if self._protected:
            self._while_plain(sorted(self._protected), _nothing)
        opened = sorted(self._open)
        errors = self._set_types(MemType.RAM_RW, opened)
        self._lost.update(gfn for gfn, error in zip(opened, errors, strict=True) if error)
        self.uncover()

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        inside = sorted(gfn for gfn in self._protected if first_gfn <= gfn < first_gfn + count)
        if not inside:
            return self._port.map_frames(first_gfn, count, errors, address)

        with ExitStack() as stack:

            def map_all() -> int:
                mapped = self._port.map_frames(first_gfn, count, errors, address)
                if not address:
                    stack.callback(self._port.unmap_frames, mapped, count)
                return mapped

            mapped = self._while_plain(inside, map_all)
            stack.pop_all()
        return mapped

    def _while_plain(self, gfns: Sequence[int], action: Callable[[], int]) -> int:
        """Do something while protected frames are plain memory. Those that cannot be protected again are lost."""
        was = self._set_types(MemType.RAM_RW, gfns)
        plain = [gfn for gfn, error in zip(gfns, was, strict=True) if not error]
        gone = [gfn for gfn, error in zip(gfns, was, strict=True) if error == errno.EINVAL]
        try:
            return action()
        finally:
            again = self._set_types(self.TRAP, plain)
            self._lose([*gone, *(gfn for gfn, error in zip(plain, again, strict=True) if error)])
            self.gaps += 1

    def _lose(self, gfns: Sequence[int]) -> None:
        self._protected.difference_update(gfns)
        self._lost.update(set(gfns) - self._lingering)
        self._lingering.difference_update(gfns)

    def _trap(self, gfns: CData, count: int, errors: CData) -> int:
        frames = ffi.unpack(gfns, count)
        had = self._ranges.frames()
        self._coming.update(frames)
        refused = {gfn: error for gfn in frames if gfn not in self._lingering and (error := self._claim(gfn))}
        asked = [gfn for gfn in frames if gfn not in self._lingering and gfn not in refused]
        refused.update(zip(asked, self._set_types(self.TRAP, asked), strict=True))
        self._coming.clear()
        failures = 0
        for i, gfn in enumerate(frames):
            error = errors[i] = refused.get(gfn, 0)
            if not error:
                self._lingering.discard(gfn)
                self._lost.discard(gfn)
                self._protected.add(gfn)
                continue
            failures += 1
            if gfn in self._ranges and gfn not in had:
                self._give_back(gfn)
        return failures

    def _claim(self, gfn: int) -> int:
        """A range for a frame, at the expense of what only stragglers need if need be. 0 or an errno."""
        error = self._ranges.add(gfn)
        if error and self._idle():
            self.uncover(only_for_room=True)
            error = self._ranges.add(gfn)
        return error

    def _cover(self, gfns: Sequence[int]) -> Collection[int]:
        return gfns

    def _idle(self) -> set[int]:
        still_open = set() if self._stopped else self._open - self._lost
        return self._ranges.frames() - self._protected - self._coming - still_open

    def _give_back(self, gfn: int) -> None:
        self._ranges.remove(gfn, reserve=gfn in self._lost)

    def _forget(self, gfns: Sequence[int]) -> None:
        for gfn in self._lost.intersection(gfns):
            self._lost.discard(gfn)
            self._ranges.unreserve(gfn)


def _nothing() -> int:
    return 0
