"""Write-protection where one server claims the trapping type (Xen >= 4.9): the type alone says who gets a store.

A frame has a guard range only from when it is unprotected to the next barrier or its next protection.
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
from xengt_dm.traps.guard_ranges import GuardRanges, barrier, behind_barrier, ram_frames
from xengt_dm.traps.retry import UNSYNC_TRIES, UnsyncRetries, batches, make_ram, set_types
from xengt_dm.traps.state import Event, Frames, FrameState
from xengt_dm.traps.write_traps import not_verified, refuse, still_trapping
from xengt_dm.units import CData

#: Frames that have a guard range between two barriers, at most.
MOST_GUARDED: Final = 64


class ClaimTraps:
    """Implements :class:`~xengt_dm.traps.write_traps.WriteTraps`, where every public method is described."""

    TRAP: Final = MemType.IOREQ_SERVER
    #: A frame that traps can be mapped, so nothing ever opens a gap.
    gaps: Final = 0

    def __init__(self, port: DomainPort, server: int, slots: Slots, record: RangeRecord) -> None:
        self._port = port
        self._server = server
        self._slots = slots
        self._retype_in_flight_is_fatal = port.retype_in_flight_is_fatal
        self._frames = Frames()
        self._guards = GuardRanges(port, server, record)
        self._retries = UnsyncRetries()
        self._refusing = False
        self.vanished = 0

    # For the shadows

    def protect(self, gfns: CData, count: int, errors: CData) -> int:
        if self._refusing:
            return refuse(count, errors)
        failures = self._port.set_mem_types(self.TRAP, gfns, count, errors)
        frames = ffi.unpack(gfns, count)
        if failures:
            for i, gfn in enumerate(frames):
                if errors[i] == errno.EINVAL and self._frames[gfn] is FrameState.DEFERRED:  # it has the type
                    errors[i] = 0
                    failures -= 1
            frames = [gfn for i, gfn in enumerate(frames) if not errors[i]]
        if len(self._guards):
            for gfn in self._guards.frames().intersection(frames):
                self._guards.remove(gfn)
        self._frames.apply(Event.PROTECT, frames)  # last: if the domain is gone, the engine hears of no success either
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
        if tries is None:  # a store asks
            if self._retype_in_flight_is_fatal:  # and is under way
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
        self._port.set_mem_types(self.TRAP, gfns, count, errors)
        for i in range(count):
            error = errors[i]
            if error not in (0, errno.EINVAL):
                (error,) = set_types(self._port, self.TRAP, [gfns[i]])
            if not error:
                self._frames.apply(Event.PROTECT, [gfns[i]])
            elif error != errno.EINVAL:  # which is a frame that still has the type, or is no RAM
                raise not_verified(self._port.domid, error)

    def frames_changed(self) -> None:
        """A range over a hole would bring us every store to it, which Xen is to drop."""
        self.drop_guard_ranges()

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        return self._port.map_frames(first_gfn, count, errors, address)

    def unmap_frames(self, address: int, count: int) -> None:
        self._port.unmap_frames(address, count)

    # For the serve loop

    def take_retries(self) -> list[int]:
        return self._retries.start_round()

    def unprotect_deferred(self) -> bool:
        self._free(self._frames.those(FrameState.DEFERRED))
        return not self._frames.those(FrameState.DEFERRED)

    # For a successor

    def adopt_guard_ranges(self, gfns: Collection[int]) -> None:
        self._guards.adopt(gfns)

    def guard_pending(self) -> None:
        """Claims no frame that is not RAM: it may be a register of ours, and the frame behind ours may be QEMU's."""
        for gfn in sorted(self._slots.pending_frames()):
            if gfn < self._port.frame_limit and ram_frames(self._port, gfn, 1):
                error = self._guards.add_retrying(gfn)
                if error:
                    raise HostError("xendevicemodel_map_io_range_to_ioreq_server", self._port.domid, error)

    def protect_pending(self) -> None:
        if self._retype_in_flight_is_fatal:
            frames = sorted(self._slots.last_stores().unfinished)
            errors = set_types(self._port, self.TRAP, frames)
            trapping = [gfn for gfn, error in zip(frames, errors, strict=True) if not error]
            self._frames.apply(Event.LEFT_PROTECTED, trapping)

    # The end

    def refuse_new(self) -> None:
        self._refusing = True

    def unprotect_all(self) -> bool:
        self._free(self._frames.trapping())
        return not self._frames.trapping()

    def unprotect_by_force(self) -> None:
        try:
            for _ in range(2):  # a frame that finds no room for its guard range finds it when others have gone
                self._free(self._frames.trapping(), by_force=True)
        except DomainGoneError:
            self._frames.apply(Event.FREE, self._frames.trapping())  # they went with the domain
            raise
        if left := self._frames.trapping():
            raise still_trapping(self._port.domid, len(left))

    def drop_guard_ranges(self) -> bool:
        if len(self._guards):
            self._guards.drop(behind_barrier(self._guards.frames(), self._port, self._server, self._slots))
        return not len(self._guards)

    # For tests

    @property
    def protected(self) -> frozenset[int]:
        return frozenset(self._frames.trapping())

    def check(self) -> None:
        self._frames.check()
        self._guards.check()
        assert not self._frames.those(FrameState.LOST_UNSYNCED)
        assert not self._guards.reserved()

    # Making frames RAM

    def _free(self, gfns: Sequence[int], *, by_force: bool = False) -> None:
        for batch in batches(gfns):
            self._make_ram(batch, Event.FREE, by_force=by_force)

    def _make_ram(self, gfns: Sequence[int], event: Event, *, by_force: bool = False) -> set[int]:
        """Make frames that trap plain RAM, each with a guard range. Returns those that are; the others still trap.

        ``event`` is what that means to a frame. ``by_force``: even if a store is under way.
        """
        careful = self._retype_in_flight_is_fatal and not by_force
        busy = self._stored_to(gfns) if careful else set()
        plain, lost = make_ram(self._port, self._guard([gfn for gfn in gfns if gfn not in busy]))
        if careful:
            plain -= self._trap_again(plain)
        self._frames.apply(event, plain)
        self._frames.apply(Event.LOSE, lost)
        self.vanished += len(lost)
        for gfn in lost:
            self._guards.remove(gfn)
        return plain

    def _stored_to(self, gfns: Sequence[int]) -> set[int]:
        """Those of the frames that an instruction under way may be storing to."""
        stores = self._slots.last_stores()
        busy = stores.unfinished
        if not busy.issuperset(stores.finished.intersection(gfns)):
            # Only a barrier tells whether an instruction is over whose answer was taken.
            paused = barrier(self._port, self._server)
            busy |= self._slots.last_stores().unfinished if paused else stores.finished
        return busy.intersection(gfns)

    def _guard(self, gfns: Sequence[int]) -> list[int]:
        """Give frames a guard range. Returns those that have one."""
        if len(self._guards) + sum(gfn not in self._guards for gfn in gfns) > MOST_GUARDED:
            self.drop_guard_ranges()
        return [gfn for gfn in gfns if not self._guards.add_retrying(gfn)]

    def _trap_again(self, gfns: set[int]) -> set[int]:
        """Give the type back to frames for which a request came before they became RAM. Returns those that have it."""
        late = sorted(gfns & self._slots.last_stores().unfinished)
        return {gfn for gfn, error in zip(late, set_types(self._port, self.TRAP, late), strict=True) if not error}
