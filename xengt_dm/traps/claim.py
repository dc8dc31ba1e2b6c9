"""Write-protection where one server claims the trapping type (Xen >= 4.9): the type alone says who gets a store.

A frame has a guard range only from when it is unprotected to the next barrier or its next protection. Whether a frame
may become plain RAM is decided in :mod:`xengt_dm.traps.unprotect`.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from typing import Final

from xengt_dm._core import ffi
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.port import DomainPort, MemType
from xengt_dm.ioreq.ranges import RangeRecord
from xengt_dm.ioreq.slots import Slots
from xengt_dm.steps import Steps
from xengt_dm.traps.guard_ranges import GuardRanges, droppable, ram_frames
from xengt_dm.traps.protected import ProtectedRecord
from xengt_dm.traps.retry import UNSYNC_TRIES, UnsyncRetries, set_types_in_place
from xengt_dm.traps.state import Event, Frames, FrameState
from xengt_dm.traps.unprotect import batches, make_ram, may_become_ram, set_ram
from xengt_dm.traps.write_traps import not_verified, refuse, still_trapping
from xengt_dm.units import CData

#: The largest number of frames that have a guard range between two barriers.
MOST_GUARDED: Final = 64


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
        self._retries = UnsyncRetries()
        self._refusing = False
        self.vanished = 0

    # For the shadows

    def protect(self, gfns: CData, count: int, errors: CData) -> int:
        if self._refusing:
            return refuse(count, errors)
        failures = self._set_trap(gfns, count, errors)
        frames = ffi.unpack(gfns, count)
        if failures:
            for i, gfn in enumerate(frames):
                # A frame that is DEFERRED or ADOPTED has the type already, and Xen answers EINVAL for that.
                if errors[i] == errno.EINVAL and self._frames[gfn] in (FrameState.DEFERRED, FrameState.ADOPTED):
                    errors[i] = 0
                    failures -= 1
            frames = [gfn for i, gfn in enumerate(frames) if not errors[i]]
        if len(self._guards):
            for gfn in self._guards.frames().intersection(frames):
                self._guards.remove(gfn)
        # Last, because the calls above can raise DomainGoneError: no frame may count as protected then.
        self._frames.apply(Event.PROTECT, frames)
        return failures

    def unprotect(self, gfns: CData, count: int) -> int:
        frames = ffi.unpack(gfns, count)
        protected = [gfn for gfn in frames if self._frames[gfn] not in (FrameState.UNSYNCED, FrameState.LOST_UNSYNCED)]
        self._frames.apply(Event.FORGET, frames)
        self._free([gfn for gfn in protected if self._frames[gfn] is FrameState.DEFERRED])
        return len(protected)

    def unsync(self, gfn: int) -> bool:
        tries = self._retries.take(gfn)
        if self._refusing or self._frames[gfn] is not FrameState.PROTECTED or gfn in self._retries:
            return False
        if tries is None:
            # This is no retry: a store to the frame has just trapped, and it is in flight until it is answered.
            if self._port.retype_in_flight_is_fatal:
                self._retries.wait(gfn)
                return False
            tries = UNSYNC_TRIES + 1
        if self._make_ram([gfn], Event.UNSYNC):
            return True
        self._retries.wait(gfn, tries - 1)
        return False

    def resync(self, gfns: CData, count: int, errors: CData) -> int:
        return self.protect(gfns, count, errors)

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

    # For the serve loop

    def take_retries(self) -> list[int]:
        return self._retries.start_round()

    def unprotect_deferred(self) -> bool:
        self._free(self._frames.in_state(FrameState.DEFERRED))
        return not self._frames.in_state(FrameState.DEFERRED)

    # For a successor

    def adopt_guard_ranges(self, gfns: Collection[int]) -> None:
        self._guards.adopt(gfns)

    def adopt_protected(self, gfns: Sequence[int]) -> None:
        self._frames.adopt(gfns)

    def unprotect_adopted(self) -> Steps[None]:
        for batch in batches(self._frames.in_state(FrameState.ADOPTED)):
            self._free(self._frames.defer(batch))
            yield

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
            frames = sorted(gfn for gfn in self._slots.last_stores().unfinished if gfn < limit)
            if frames:
                errors = ffi.new("int[]", len(frames))
                self._set_trap(ffi.new("uint64_t[]", frames), len(frames), errors)
                self._frames.adopt([gfn for gfn, error in zip(frames, errors, strict=True) if not error])

    # The end

    def refuse_new(self) -> None:
        self._refusing = True

    def unprotect_all(self) -> Steps[bool]:
        for batch in batches(self._frames.trapping()):
            self._free(self._frames.still_trapping(batch))  # a store may have freed some since the list was made
            yield
        return not self._frames.trapping()

    def unprotect_by_force(self) -> None:
        try:
            for _ in range(2):  # the second time there is room for guard ranges that found none at first
                self._free(self._frames.trapping(), by_force=True)
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
        assert not self._frames.in_state(FrameState.LOST_UNSYNCED)
        assert not self._guards.reserved()

    # Changing types

    def _set_trap(self, gfns: CData, count: int, errors: CData) -> int:
        """Gives frames the trapping type. Parameters and result are those of DomainPort.set_mem_types."""
        self._frames.begin_protect(gfns, count)
        failures = set_types_in_place(self._port, self.TRAP, gfns, count, errors)
        if failures:
            self._frames.end_protect([gfns[i] for i in range(count) if errors[i]])
        return failures

    def _free(self, gfns: Sequence[int], *, by_force: bool = False) -> None:
        for batch in batches(gfns):
            self._make_ram(batch, Event.FREE, by_force=by_force)

    def _make_ram(self, gfns: Sequence[int], event: Event, *, by_force: bool = False) -> set[int]:
        """Turns trapping frames into plain RAM, each with a guard range. Returns those that are RAM; the others trap.

        ``event`` happens to each frame that becomes RAM. ``by_force``: even if a store to the frame is in flight.
        """
        if by_force:
            plain, lost = set_ram(self._guard(gfns), self._port)
        else:
            may = may_become_ram(gfns, self._port, self._server, self._slots)
            plain, lost = make_ram(self._guard(may), self._port, self._slots, self.TRAP)
        self._frames.apply(event, plain)
        self._frames.apply(Event.LOSE, lost)
        self.vanished += len(lost)
        for gfn in lost:
            self._guards.remove(gfn)
        return plain

    def _guard(self, gfns: Sequence[int]) -> list[int]:
        """Gives frames a guard range. Returns those that have one."""
        if len(self._guards) + sum(gfn not in self._guards for gfn in gfns) > MOST_GUARDED:
            self.drop_guard_ranges()
        return [gfn for gfn in gfns if not self._guards.add_retrying(gfn)]
