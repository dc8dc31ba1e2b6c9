"""A domain with a server and its write traps, which writes down all that these ask of the hypervisor."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from tests.support.protected import new_bitmap
from tests.support.records import RangeRecord as Ranges
from xengt_dm._core import ffi
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.hypervisor.port import MemType, WriteTrap
from xengt_dm.ioreq.ranges import RangeRecord
from xengt_dm.ioreq.slots import LastStores, Slots
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.traps.ranges import RangeTraps
from xengt_dm.traps.write_traps import WriteTraps
from xengt_dm.units import PAGE_SIZE, CData

FRAMES = 2048


class FakeSlots(Slots):
    """Slots that say what a test has them say: the vCPUs store to both ends of these frames."""

    def __init__(self) -> None:
        self.in_flight: set[int] = set()
        self.unfinished: set[int] = set()
        self.finished: set[int] = set()
        self.in_hand: set[int] = set()
        #: What the next looks find, one each; afterwards it is what the sets say.
        self.next_in_flight: list[set[int]] = []
        self.next_stores: list[LastStores] = []

    def frames_in_flight(self) -> set[int]:
        return self.next_in_flight.pop(0) if self.next_in_flight else set(self.in_flight)

    def last_stores(self) -> LastStores:
        return self.next_stores.pop(0) if self.next_stores else self._now()

    def may_straddle(self, gfns: CData, count: int) -> bool:
        return True

    def _now(self) -> LastStores:
        in_hand = ends(self.in_hand - self.unfinished)
        ready = ends(self.unfinished)
        return LastStores(ready | in_hand, ends(self.finished), frozenset(in_hand), frozenset(ready))


class Setting:
    """A domain, a server with its claim, and the traps, with all that they ask for written down.

    ``rep_stores``: on a domain that crashes when a frame becomes RAM while a store to it is under way.
    """

    def __init__(self, flavour: str, *, rep_stores: bool = False, record: RangeRecord | None = None) -> None:
        self.domain = EmbeddedDomain(FRAMES, 2, flavour, rep_stores=rep_stores)
        self.calls: list[tuple[Any, ...]] = []
        self.slots = FakeSlots()
        self.port = _Recorder(self.domain, self.calls)
        self.server = self.port.create_server()
        self.port.map_slots(self.server)
        self.port.set_server_state(self.server, True)
        if self.port.write_trap is WriteTrap.CLAIM:
            self.port.claim_writes(self.server)
        self.record = record or Ranges([])
        self.protected = new_bitmap(FRAMES)
        self.traps = self._make_traps()
        self.calls.clear()

    def _make_traps(self) -> WriteTraps:
        make = ClaimTraps if self.port.write_trap is WriteTrap.CLAIM else RangeTraps
        return make(self.port, self.server, self.slots, self.record, self.protected)

    def succeed(self) -> None:
        """The process has died, and its successor has adopted what is on record."""
        self.traps = self._make_traps()
        self.traps.adopt_guard_ranges([each.first // PAGE_SIZE for each in self.record.read() or ()])
        self.traps.adopt_protected(self.protected.frames())
        self.traps.check()

    def protect(self, *gfns: int) -> list[int]:
        errors = ffi.new("int[]", len(gfns))
        failed = self.traps.protect(ffi.new("uint64_t[]", gfns), len(gfns), errors)
        assert failed == sum(error != 0 for error in errors)
        self.traps.check()
        return [*errors]

    def unprotect(self, *gfns: int) -> None:
        self.traps.unprotect(ffi.new("uint64_t[]", gfns), len(gfns))
        self.traps.check()

    def unsync(self, *gfns: int) -> bool:
        """Whether all of them were unsynced."""
        errors = ffi.new("int[]", len(gfns))
        failed = self.traps.unsync(ffi.new("uint64_t[]", gfns), len(gfns), errors)
        assert failed == sum(error != 0 for error in errors)
        self.traps.check()
        return not failed

    def resync(self, *gfns: int, forced: bool = False) -> list[int]:
        errors = ffi.new("int[]", len(gfns))
        failed = self.traps.resync(ffi.new("uint64_t[]", gfns), len(gfns), errors, forced=forced)
        assert failed == sum(error != 0 for error in errors)
        self.traps.check()
        return [*errors]

    def still_trapping(self, *gfns: int) -> list[bool]:
        errors = ffi.new("int[]", len(gfns))
        self.traps.still_trapping(ffi.new("uint64_t[]", gfns), len(gfns), errors)
        return [error != 0 for error in errors]

    def verify(self, *gfns: int) -> None:
        self.traps.verify(ffi.new("uint64_t[]", gfns), len(gfns))
        self.traps.check()

    def remove(self, gfn: int, count: int = 1) -> None:
        """Without telling: the traps are told by the test."""
        self.domain.set_type(gfn, count, P2mType.MMIO_DM)

    def ranges(self) -> int:
        return self.domain.range_count(self.server)

    def has_range(self, gfn: int) -> bool:
        """Whether Xen has a range of the server over this frame."""
        where = (self.server, gfn * PAGE_SIZE, gfn * PAGE_SIZE + PAGE_SIZE - 1)
        try:
            self.port.map_mmio(*where)
        except HostError as error:
            return error.errno == errno.EEXIST
        self.port.unmap_mmio(*where)
        return False

    def taken(self) -> list[tuple[Any, ...]]:
        calls = [*self.calls]
        self.calls.clear()
        return calls


def ends(gfns: Iterable[int]) -> set[int]:
    """The first and the last address of frames, so that a store there may go over either end."""
    return {gpa for gfn in gfns for gpa in (gfn * PAGE_SIZE, gfn * PAGE_SIZE + PAGE_SIZE - 1)}


def stores(unfinished: Iterable[int] = (), finished: Iterable[int] = ()) -> LastStores:
    """Stores to both ends of these frames."""
    return LastStores(ends(unfinished), ends(finished), ready=frozenset(ends(unfinished)))


class _Recorder(EmbeddedPort):
    def __init__(self, domain: EmbeddedDomain, calls: list[tuple[Any, ...]]) -> None:
        super().__init__(domain)
        self._calls = calls

    def map_mmio(self, server: int, first: int, last: int) -> None:
        self._calls.append(("range", first // PAGE_SIZE))
        super().map_mmio(server, first, last)

    def unmap_mmio(self, server: int, first: int, last: int) -> None:
        self._calls.append(("no range", first // PAGE_SIZE))
        super().unmap_mmio(server, first, last)

    def set_server_state(self, server: int, enabled: bool) -> None:
        self._calls.append(("barrier",))
        super().set_server_state(server, enabled)

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        name = "plain" if mem_type is MemType.RAM_RW else "trap"
        self._calls.extend((name, gfns[i]) for i in range(count))
        return super().set_mem_types(mem_type, gfns, count, errors)

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        self._calls.append(("map", first_gfn))
        return super().map_frames(first_gfn, count, errors, address)
