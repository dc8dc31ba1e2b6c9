"""Write-protection in Xen as the 2014 series has it (4.6): the type sends a store to the server that has a range there.

The order
---------
Facts: a frame of type ``mmio_write_dm`` is no RAM to a store, and that is all the type says. Ranges alone decide who
gets the store; one that meets no range goes to the default server, or is dropped. Between the fault and that decision
Xen looks at the type without any lock.

What follows: a frame needs its range before it has the type, and for as long as a vCPU can be under way because of the
type.

What we do: range first, type second. When a frame is unprotected its range stays and is its guard range, also for all
of the time that a frame is unsynced. A range that nobody needs any more is removed behind a barrier, when room is
needed. Ranges are a quota (:mod:`xengt_dm.traps.guard_ranges`): a frame that finds no room fails alone, with ENOSPC,
and the engine maps nothing for it. A frame may become RAM at any time, since on this Xen a retype in flight is not
fatal (:mod:`xengt_dm.traps.unprotect` decides that for both kinds of traps).

Mapping
-------
Facts: the type was not yet a RAM type, so ``get_page_from_gfn`` finds no page: a frame that has the type cannot be
mapped. The shadows map frames by the chunk of 512, and again whenever they have to know which of them are RAM.

What we do: the trapping frames of a chunk become RAM while the chunk is mapped, and get the type back afterwards.
Stores that the guest makes during that time do not trap. Such a time is a *trap gap*: it is counted in ``gaps``, and
the engine reads every table again. XenGT mapped all of a guest's memory before it protected any frame, so it did
not notice ballooning.

Cost: two changes of type for each frame of the chunk that traps, and the next submission reads every table.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Final

from xengt_dm._core import ffi
from xengt_dm.errors import DomainGoneError
from xengt_dm.hypervisor.port import DomainPort, MemType
from xengt_dm.ioreq.ranges import RangeRecord
from xengt_dm.ioreq.slots import Slots
from xengt_dm.steps import Steps
from xengt_dm.traps.guard_ranges import GuardRanges, droppable
from xengt_dm.traps.protected import ProtectedRecord
from xengt_dm.traps.retype import set_types
from xengt_dm.traps.state import TRAPPING, Event, Frames, FrameState
from xengt_dm.traps.unprotect import (
    BATCH,
    Barriers,
    batches,
    make_ram,
    may_become_ram,
    may_unsync,
    set_ram,
    unprotect_adopted,
    unprotect_all,
)
from xengt_dm.traps.write_traps import not_verified, refuse, report_busy, still_trapping
from xengt_dm.units import CData


class RangeTraps:
    """Implements :class:`~xengt_dm.traps.write_traps.WriteTraps`, where every public method is described.

    Every frame that is PROTECTED, UNSYNCED or DEFERRED has a range, and room for one is reserved for every LOST one: it
    may become RAM again, and then :meth:`verify` protects the new page.
    """

    TRAP: Final = MemType.MMIO_WRITE_DM

    def __init__(
        self,
        port: DomainPort,
        server: int,
        slots: Slots,
        record: RangeRecord,
        protected: ProtectedRecord | None = None,
    ) -> None:
        self._port = port
        self._server = server
        self._slots = slots
        self._frames = Frames(protected)
        self._guards = GuardRanges(port, server, record)
        self._barriers = Barriers(port, server)
        self._refusing = False
        self.gaps = 0
        self.vanished = 0

    # For the shadows

    def protect(self, gfns: CData, count: int, errors: CData) -> int:
        if self._refusing:
            return refuse(count, errors)
        frames = ffi.unpack(gfns, count)
        had_range = self._guards.frames()
        # A deferred frame still has its range and the type.
        to_protect = [gfn for gfn in frames if self._frames[gfn] is not FrameState.DEFERRED]
        error_of = {gfn: self._add_range(gfn, frames) for gfn in to_protect}
        with_range = [gfn for gfn in to_protect if not error_of[gfn]]
        error_of.update(zip(with_range, self._set_trap(with_range), strict=True))
        failures = 0
        for i, gfn in enumerate(frames):
            errors[i] = error_of.get(gfn, 0)
            # A frame that is ADOPTED may have the type already, and Xen answers EINVAL for that.
            if not errors[i] or (errors[i] == errno.EINVAL and self._frames[gfn] is FrameState.ADOPTED):
                errors[i] = 0
                self._frames.apply(Event.PROTECT, [gfn])
                continue
            failures += 1
            if gfn in self._guards and gfn not in had_range:
                self._remove_range(gfn)
        return failures

    def still_trapping(self, gfns: CData, count: int, errors: CData) -> int:
        if self._refusing:
            return refuse(count, errors)
        frames = ffi.unpack(gfns, count)
        return report_busy(frames, set(self._frames.still_trapping(frames)), errors)

    def unprotect(self, gfns: CData, count: int) -> None:
        frames = ffi.unpack(gfns, count)
        self._frames.apply(Event.FORGET, frames)
        self._free([gfn for gfn in frames if self._frames[gfn] is FrameState.DEFERRED])
        for gfn in self._guards.reserved().intersection(frames):
            self._guards.unreserve(gfn)

    def unsync(self, gfns: CData, count: int, errors: CData) -> int:
        frames = ffi.unpack(gfns, count)
        plain: set[int] = set()
        if not self._refusing:
            may = may_unsync(frames, self._frames, self._port, self._slots, self._barriers)
            plain = self._make_ram(may, Event.UNSYNC)
        return report_busy(frames, set(frames) - plain, errors)

    def resync(self, gfns: CData, count: int, errors: CData, *, forced: bool = False) -> int:
        """A frame for which there is no range stays unsynced."""
        return self.protect(gfns, count, errors)

    @property
    def holding(self) -> bool:
        """On this Xen no instruction is emulated a second time, so no answer need wait."""
        return False

    def held(self, gfn: int) -> int | None:
        return None

    def release(self, gfn: int) -> bool:
        return True

    @property
    def late_stores_trap(self) -> bool:
        return False

    def trap_late(self, gfn: int) -> None:
        """Does nothing: on this Xen no instruction is emulated a second time."""

    def verify(self, gfns: CData, count: int) -> None:
        frames = [gfn for gfn in sorted(ffi.unpack(gfns, count)) if self._frames[gfn] is FrameState.LOST]
        for gfn in frames:
            error = self._guards.add_retrying(gfn)
            if error:
                raise not_verified(self._port.domid, error)
        for gfn, error in zip(frames, self._set_trap(frames), strict=True):
            if not error:
                self._frames.apply(Event.PROTECT, [gfn])
            elif error == errno.EINVAL:  # it is still no RAM
                self._remove_range(gfn)
            else:
                raise not_verified(self._port.domid, error)

    def frames_changed(self) -> None:
        """Finds out which frames the guest gave back or replaced, and removes the ranges over them.

        Two type changes tell. To the trapping type: it succeeds for a replaced frame only, because the others have the
        type already or are no RAM. To RAM: of those others, it succeeds for the ones that the guest still has. A
        replaced frame is lost, too: its page is not the one that we have mapped.
        """
        trapping = self._frames.trapping()
        errors = set_types(self._port, self.TRAP, trapping)
        replaced = [gfn for gfn, error in zip(trapping, errors, strict=True) if error != errno.EINVAL]
        errors = set_types(self._port, MemType.RAM_RW, replaced)
        lost = [gfn for gfn, error in zip(replaced, errors, strict=True) if error in (0, errno.EINVAL)]
        self._frames.apply(Event.LOSE, lost)
        if trapping := self._frames.trapping():
            self._while_plain(trapping, _nothing)
        self.drop_guard_ranges()

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        trapping = [gfn for gfn in self._frames.trapping() if first_gfn <= gfn < first_gfn + count]
        if not trapping:
            return self._port.map_frames(first_gfn, count, errors, address)

        with ExitStack() as after_error:

            def map_all() -> int:
                mapped = self._port.map_frames(first_gfn, count, errors, address)
                if not address:
                    after_error.callback(self._port.unmap_frames, mapped, count)
                return mapped

            mapped = self._while_plain(trapping, map_all)
            after_error.pop_all()
        return mapped

    def unmap_frames(self, address: int, count: int) -> None:
        self._port.unmap_frames(address, count)

    # For the end of a submission, and when there is time

    @property
    def deferred(self) -> int:
        return self._frames.count(FrameState.DEFERRED)

    def unprotect_deferred(self) -> bool:
        self._barriers.submission()
        self._free(self._frames.next_deferred(BATCH), make_barrier=self._barriers.make_if_due)
        return not self.deferred

    # For a successor

    def adopt_guard_ranges(self, gfns: Collection[int]) -> None:
        """A frame with a range may have the type. It is adopted, because its former use is not recorded."""
        self._guards.adopt(gfns)
        self._frames.adopt([gfn for gfn in gfns if self._frames[gfn] is FrameState.PLAIN])

    def adopt_protected(self, gfns: Sequence[int]) -> None:
        """A frame that has no range gets one if there is room. It had one, unless the record is damaged."""
        for gfn in gfns:
            self._guards.add_retrying(gfn)
        self._frames.adopt(gfns)

    def unprotect_adopted(self) -> Steps[None]:
        return unprotect_adopted(self._frames, self._free)

    def guard_in_flight(self) -> None:
        """Does nothing: a frame that traps has its range."""

    def protect_in_flight(self) -> None:
        """Does nothing: on this Xen a retype in flight is not fatal."""

    # The end

    def refuse_new(self) -> None:
        self._refusing = True

    def unprotect_all(self) -> Steps[bool]:
        return unprotect_all(self._frames, self._free)

    def unprotect_by_force(self) -> None:
        try:
            for _ in range(2):  # a second try, as for every call that releases something
                self._free(self._frames.trapping())
        except DomainGoneError:
            self._frames.all_plain()  # they are gone with the domain
            raise
        if left := self._frames.trapping():
            raise still_trapping(self._port.domid, len(left))

    def claim_released(self) -> None:
        """Does nothing: where a range is needed for each frame there is no claim."""

    def drop_guard_ranges(self) -> bool:
        self._drop_unneeded()
        return not self._unneeded()

    # For tests

    @property
    def protected(self) -> frozenset[int]:
        return frozenset(self._frames.trapping())

    def check(self) -> None:
        self._frames.check()
        self._guards.check()
        assert all(gfn in self._guards for gfn in self._frames.trapping())
        assert self._guards.reserved() <= set(self._frames.in_state(FrameState.LOST))

    # Ranges

    def _add_range(self, gfn: int, batch: Sequence[int]) -> int:
        """Gives a frame its range. If there is no room, drops ranges that are not needed. Returns 0 or an errno.

        ``batch``: frames that are about to get the type, and so need their ranges.
        """
        error = self._guards.add(gfn)
        if error and self._unneeded(batch):
            self._drop_unneeded(batch, ends_only=True)
            error = self._guards.add(gfn)
        return error

    def _unneeded(self, batch: Collection[int] = ()) -> set[int]:
        """The frames that have a range although none but a late store can need it. None of ``batch`` is among them."""
        return {gfn for gfn in self._guards.frames().difference(batch) if self._frames[gfn] not in TRAPPING}

    def _drop_unneeded(self, batch: Collection[int] = (), *, ends_only: bool = False) -> None:
        if unneeded := self._unneeded(batch):
            unneeded = droppable(unneeded, self._port, self._server, self._slots)
            self._guards.drop(unneeded, ends_only=ends_only, reserve=self._frames.in_state(FrameState.LOST))

    def _remove_range(self, gfn: int) -> None:
        self._guards.remove(gfn, reserve=self._frames[gfn] is FrameState.LOST)

    # Changing types

    def _set_trap(self, gfns: Sequence[int]) -> list[int]:
        """Gives frames the trapping type. Returns an errno or 0 for each."""
        self._frames.begin_protect(ffi.new("uint64_t[]", gfns), len(gfns))
        errors = set_types(self._port, self.TRAP, gfns)
        self._frames.end_protect([gfn for gfn, error in zip(gfns, errors, strict=True) if error])
        return errors

    def _free(self, gfns: Sequence[int], *, make_barrier: Callable[[], bool] | None = None) -> None:
        for batch in batches(gfns):
            may = may_become_ram(batch, self._port, self._slots, make_barrier or self._barriers.make)
            self._make_ram(may, Event.FREE)

    def _make_ram(self, gfns: Sequence[int], event: Event) -> set[int]:
        """Turns trapping frames into plain RAM; they keep their ranges. Returns those that are RAM; the others trap.

        ``event`` happens to each frame that becomes RAM.
        """
        made = make_ram(gfns, self._port, self._slots, self.TRAP)
        self._frames.apply(event, made.plain)
        self._frames.apply(Event.LOSE, made.lost)
        self.vanished += len(made.lost)
        for gfn in made.lost:
            self._remove_range(gfn)
        return made.plain

    def _while_plain(self, gfns: Sequence[int], action: Callable[[], int]) -> int:
        """Calls ``action`` while trapping frames are RAM. Those that cannot get the type back afterwards are lost."""
        plain, lost, _ = set_ram(gfns, self._port)
        ascending = sorted(plain)
        try:
            return action()
        finally:
            again = set_types(self._port, self.TRAP, ascending)
            lost.update(gfn for gfn, error in zip(ascending, again, strict=True) if error)
            self._frames.apply(Event.LOSE, lost)
            self.gaps += 1


def _nothing() -> int:
    return 0
