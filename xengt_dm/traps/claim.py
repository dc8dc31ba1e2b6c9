"""Write-protection where one server claims the trapping type (Xen >= 4.9): the type alone says who gets a store.

A frame has a guard range only from when it is unprotected to the next barrier or its next protection. Whether a frame
may become plain RAM is decided in :mod:`xengt_dm.traps.unprotect`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Sequence
from typing import Final

from xengt_dm._core import ffi
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.port import DomainPort, MemType
from xengt_dm.ioreq.ranges import RangeRecord
from xengt_dm.ioreq.slots import Slots
from xengt_dm.steps import Steps
from xengt_dm.traps.guard_ranges import GuardRanges, droppable, ram_frames
from xengt_dm.traps.holds import Holds
from xengt_dm.traps.protected import ProtectedRecord
from xengt_dm.traps.retype import set_types_in_place
from xengt_dm.traps.state import TRAPPING, Event, Frames, FrameState
from xengt_dm.traps.unprotect import (
    BATCH,
    Barriers,
    batches,
    before,
    make_ram,
    may_become_ram,
    may_unsync,
    set_ram,
    straddled,
    unprotect_adopted,
    unprotect_all,
)
from xengt_dm.traps.write_traps import not_verified, refuse, report_busy, still_trapping
from xengt_dm.units import CData

#: The largest number of frames that have a guard range between two barriers.
MOST_GUARDED: Final = 64
#: The states of frames that trap although they are no tables.
_WITHOUT_TABLE: Final = (FrameState.DEFERRED, FrameState.ADOPTED)


class ClaimTraps:
    """Implements :class:`~xengt_dm.traps.write_traps.WriteTraps`, where every public method is described."""

    TRAP: Final = MemType.IOREQ_SERVER
    #: A frame that traps can be mapped without a change of its type, so there are no trap gaps.
    gaps: Final = 0

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
        self._holds = Holds(self._frames.in_hand)
        self._refusing = False
        self.vanished = 0

    # For the shadows

    def protect(self, gfns: CData, count: int, errors: CData) -> int:
        if self._refusing:
            return refuse(count, errors)
        return self._protect_unless_straddled(gfns, count, errors, self._barriers.make, new=True)

    def still_trapping(self, gfns: CData, count: int, errors: CData) -> int:
        if self._refusing:
            return refuse(count, errors)
        ffi.memmove(errors, bytes(count * ffi.sizeof("int")), count * ffi.sizeof("int"))
        if not self._frames.some_in(*_WITHOUT_TABLE):
            return 0
        frames = ffi.unpack(gfns, count)
        return report_busy(frames, set(self._frames.still_trapping(frames)), errors)

    def unprotect(self, gfns: CData, count: int) -> None:
        frames = ffi.unpack(gfns, count)
        self._frames.apply(Event.FORGET, frames)
        self._free([gfn for gfn in frames if self._frames[gfn] is FrameState.DEFERRED])

    def unsync(self, gfns: CData, count: int, errors: CData) -> int:
        frames = ffi.unpack(gfns, count)
        plain: set[int] = set()
        if not self._refusing:
            may = may_unsync(frames, self._frames, self._port, self._slots, self._barriers)
            plain = self._make_ram(may, Event.UNSYNC)
        return report_busy(frames, set(frames) - plain, errors)

    def resync(self, gfns: CData, count: int, errors: CData, *, forced: bool = False) -> int:
        if self._refusing:
            return refuse(count, errors)
        make_barrier = self._barriers.make if forced else None
        return self._protect_unless_straddled(gfns, count, errors, make_barrier, new=False)

    @property
    def holding(self) -> bool:
        return bool(self._holds)

    def held(self, gfn: int) -> int | None:
        return None if self._refusing else self._holds.before(gfn)

    def release(self, gfn: int) -> bool:
        if self._frames[gfn] in TRAPPING:
            last = self._slots.last_stores()
            if gfn in last.unfinished_frames:
                return False
            if gfn in last.finished_frames and not (
                self._barriers.make() and gfn not in self._slots.last_stores().unfinished_frames
            ):
                return False
            event = Event.UNSYNC if self._frames[gfn] is FrameState.PROTECTED else Event.FREE
            if not self._make_ram([gfn], event):
                return False
        self._holds.release(gfn)
        return True

    @property
    def late_stores_trap(self) -> bool:
        return self._port.retype_in_flight_is_fatal and not self._refusing

    def trap_late(self, gfn: int) -> None:
        if not self.late_stores_trap or self._frames[gfn] is not FrameState.PLAIN:
            return
        if not self._set_trap(ffi.new("uint64_t[]", [gfn]), 1, ffi.new("int[1]")):
            self._frames.apply(Event.TRAP_LATE, [gfn])

    def verify(self, gfns: CData, count: int) -> None:
        errors = ffi.new("int[]", count)
        self._set_trap(gfns, count, errors)
        frames = ffi.unpack(gfns, count)
        self._frames.apply(Event.PROTECT, [gfn for gfn, error in zip(frames, errors, strict=True) if not error])
        for error in errors:
            if error not in (0, errno.EINVAL):  # EINVAL: the frame still has the type, or it is no RAM
                raise not_verified(self._port.domid, error)

    def frames_changed(self) -> None:
        """Drops the guard ranges: over a hole, a range would bring us stores that Xen must drop."""
        self.drop_guard_ranges()

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        return self._port.map_frames(first_gfn, count, errors, address)

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
        self._guards.adopt(gfns)

    def adopt_protected(self, gfns: Sequence[int]) -> None:
        """Holds stores as the predecessor did, and those that it would have held after it had protected some frames."""
        self._frames.adopt(gfns)
        if self._port.retype_in_flight_is_fatal:
            left = self._frames.in_hand.left().intersection(gfns)
            self._holds.adopt(before(self._slots.last_stores().unfinished).intersection(left))

    def unprotect_adopted(self) -> Steps[None]:
        return unprotect_adopted(self._frames, self._free)

    def guard_in_flight(self) -> None:
        """Gives guard ranges to RAM only: a frame of registers has its range already, or belongs to QEMU."""
        for gfn in sorted(self._slots.frames_in_flight()):
            if gfn < self._port.frame_limit and ram_frames(self._port, gfn, 1):
                error = self._guards.add_retrying(gfn)
                if error:
                    raise HostError("xendevicemodel_map_io_range_to_ioreq_server", self._port.domid, error)

    def protect_in_flight(self) -> None:
        if self._port.retype_in_flight_is_fatal:
            limit = self._port.frame_limit
            frames = sorted(gfn for gfn in self._slots.last_stores().unfinished_frames if gfn < limit)
            if frames:
                errors = ffi.new("int[]", len(frames))
                self._set_trap(ffi.new("uint64_t[]", frames), len(frames), errors)
                self._frames.adopt([gfn for gfn, error in zip(frames, errors, strict=True) if not error])

    # The end

    def refuse_new(self) -> None:
        self._refusing = True

    def unprotect_all(self) -> Steps[bool]:
        return unprotect_all(self._frames, self._free)

    def unprotect_by_force(self) -> None:
        try:
            for _ in range(2):  # the second time there is room for guard ranges that found none at first
                for batch in batches(self._frames.trapping()):
                    self._make_ram(batch, Event.FREE, by_force=True)
        except DomainGoneError:
            self._frames.all_plain()  # they are gone with the domain
            raise
        if left := self._frames.trapping():
            raise still_trapping(self._port.domid, len(left))

    def claim_released(self) -> None:
        self._frames.all_plain()

    def drop_guard_ranges(self) -> bool:
        if len(self._guards):
            self._guards.drop(droppable(self._guards.frames(), self._port, self._server, self._slots))
        return not len(self._guards)

    # For tests

    @property
    def protected(self) -> frozenset[int]:
        return frozenset(self._frames.trapping())

    def check(self) -> None:
        self._frames.check()
        self._guards.check()
        assert not self._guards.reserved()

    # Changing types

    def _protect_unless_straddled(
        self, gfns: CData, count: int, errors: CData, make_barrier: Callable[[], bool] | None, *, new: bool
    ) -> int:
        """Protects frames, except plain ones that a store lies in which goes on in the next frame: EINPROGRESS.

        ``make_barrier``: as for :func:`~xengt_dm.traps.unprotect.straddled`. ``new``: the frames are no tables yet.
        """
        frames = ffi.unpack(gfns, count)
        # One that is ADOPTED may be RAM: its predecessor died before it had changed the type, or the guest replaced it.
        some_trap = self._frames.some_in(FrameState.DEFERRED)
        plain = [gfn for gfn in frames if self._frames[gfn] is not FrameState.DEFERRED] if some_trap else frames
        wait = self._holds_of(frames)
        if self._may_be_straddled(gfns, count):
            wait |= straddled(plain, self._port, self._slots, make_barrier)
        self._frames.in_hand.begin(plain)
        if wait:
            ready = [i for i, gfn in enumerate(frames) if gfn not in wait]
            some = ffi.new("int[]", len(ready))
            failures, trapped = self._protect(ffi.new("uint64_t[]", [frames[i] for i in ready]), len(ready), some)
            for i, error in zip(ready, some, strict=True):
                errors[i] = error
        else:
            failures, trapped = self._protect(gfns, count, errors)
        if self._may_be_straddled(gfns, count):
            done = {gfn for i, gfn in enumerate(frames) if gfn not in wait and not errors[i]}
            wait |= self._take_back(done.intersection(plain) - trapped, new=new)
        self._frames.in_hand.end()
        if not wait:
            return failures
        for i, gfn in enumerate(frames):
            if gfn in wait:
                errors[i] = errno.EINPROGRESS
        return sum(error != 0 for error in ffi.unpack(errors, count))

    def _holds_of(self, gfns: Sequence[int]) -> set[int]:
        """Those of these frames for which a store is held."""
        if self._holds:
            self._holds.keep(before(self._slots.last_stores().unfinished))
        return self._holds.waiting(gfns)

    def _may_be_straddled(self, gfns: CData, count: int) -> bool:
        return self._port.retype_in_flight_is_fatal and self._slots.may_straddle(gfns, count)

    def _protect(self, gfns: CData, count: int, errors: CData) -> tuple[int, set[int]]:
        """Protects frames, as :meth:`protect`. Returns how many failed, and those that had the type before."""
        failures = self._set_trap(gfns, count, errors)
        frames = ffi.unpack(gfns, count)
        trapped: set[int] = set()
        if failures:
            for i, gfn in enumerate(frames):
                # A frame that is DEFERRED or ADOPTED has the type already, and Xen answers EINVAL for that.
                if errors[i] == errno.EINVAL and self._frames[gfn] in _WITHOUT_TABLE:
                    errors[i] = 0
                    failures -= 1
                    trapped.add(gfn)
            frames = [gfn for i, gfn in enumerate(frames) if not errors[i]]
        if len(self._guards):
            for gfn in self._guards.frames().intersection(frames):
                self._guards.remove(gfn)
        # Last, because the calls above can raise DomainGoneError: no frame may count as protected then.
        self._frames.apply(Event.PROTECT, frames)
        return failures, trapped

    def _take_back(self, gfns: Collection[int], *, new: bool) -> set[int]:
        """Makes RAM again of frames that were protected just now while a store lay in them and the next frame.

        Returns the frames that must be protected another time. One that has a store of its own by now traps until that
        is over, and the other store is held: it came after the look before, so nobody has begun to handle it. Such a
        frame is protected if it is a table already, and its unprotecting is deferred if it is ``new``.
        """
        stores = self._slots.last_stores()
        caught = before(stores.ready).intersection(gfns)
        back = self._make_ram(sorted(caught - stores.unfinished_frames), Event.UNSYNC)
        self._holds.hold(caught - back)
        if new:
            self._frames.apply(Event.FORGET, sorted(caught - back))
            return caught
        return back

    def _set_trap(self, gfns: CData, count: int, errors: CData) -> int:
        """Gives frames the trapping type. Parameters and result are those of DomainPort.set_mem_types."""
        self._frames.begin_protect(gfns, count)
        failures = set_types_in_place(self._port, self.TRAP, gfns, count, errors)
        if failures:
            self._frames.end_protect([gfns[i] for i in range(count) if errors[i]])
        return failures

    def _free(self, gfns: Sequence[int], *, make_barrier: Callable[[], bool] | None = None) -> None:
        for batch in batches(gfns):
            may = may_become_ram(batch, self._port, self._slots, make_barrier or self._barriers.make)
            self._make_ram(may, Event.FREE)

    def _make_ram(self, gfns: Sequence[int], event: Event, *, by_force: bool = False) -> set[int]:
        """Turns trapping frames into plain RAM, each with a guard range. Returns those that are RAM; the others trap.

        ``event`` happens to each frame that becomes RAM. ``by_force``: even if a store to the frame is in flight.
        """
        guarded = self._guard(gfns)
        made = set_ram(guarded, self._port) if by_force else make_ram(guarded, self._port, self._slots, self.TRAP)
        self._frames.apply(event, made.plain)
        self._frames.apply(Event.LOSE, made.lost)
        self.vanished += len(made.lost)
        for gfn in made.lost:
            self._guards.remove(gfn)
        if made.again:
            self._holds.hold(before(self._slots.last_stores().ready) & made.again)
        return made.plain

    def _guard(self, gfns: Sequence[int]) -> list[int]:
        """Gives frames a guard range. Returns those that have one."""
        if len(self._guards) + sum(gfn not in self._guards for gfn in gfns) > MOST_GUARDED:
            self.drop_guard_ranges()
        return [gfn for gfn in gfns if not self._guards.add_retrying(gfn)]
