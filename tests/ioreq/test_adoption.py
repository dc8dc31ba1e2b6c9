"""A successor takes over what a device model that died left in its server: claim, ranges, types, a store in it."""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.support.device_model import PATIENCE, DeviceModel
from tests.support.faults import counting, fail_nth, wait_until_blocked
from tests.support.records import IdRecord, RangeRecord
from tests.support.serving import serve_all
from tests.support.tables import FRAME
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ioreq.ranges import NoRangeRecord, Range, RangeKind
from xengt_dm.settings import DEFAULT_BAR0, Settings
from xengt_dm.traps.guard_ranges import GuardRanges, guard_range, search_ram
from xengt_dm.vgpu.registers import BAR0_SIZE

#: Frames of a guest that has RAM on both sides of BAR0, which is there as it is in a big guest.
FRAMES = 0x4000
BAR0 = 0x1000 * FRAME
BAR0_FRAMES = BAR0_SIZE // FRAME
TRAPPED = (5, 6, 7, 100, 0x3000)
#: And whether the guest's stores are of ``rep stos``, and whether the predecessor recorded its ranges. By ranges alone,
#: frames that trap cannot be found without a record.
FLAVOURS = pytest.mark.parametrize(
    ("flavour", "rep_stores", "recorded"),
    [("4.17", False, True), ("4.17", False, False), ("4.17", True, True), ("4.17", True, False), ("v7", False, True)],
)


class Predecessor:
    """One that protected frames, and had a guard range over some that it unprotected."""

    def __init__(self, domain: EmbeddedDomain, bar0: int, recorded: bool, trapped: tuple[int, ...] = TRAPPED) -> None:
        claim = domain.flavour.claim
        self.model = DeviceModel(domain, [(bar0, bar0 + BAR0_SIZE - 1)], claim=claim)
        guarded = [guard_range(gfn) for gfn in (9, 10, *(() if claim else trapped))]
        for each in guarded:
            self.model.port.map_mmio(self.model.server, each.first, each.last)
        self.model.protect(*trapped)
        self.record = IdRecord(self.model.server)
        bar0_range = Range(RangeKind.MEMORY, bar0, bar0 + BAR0_SIZE - 1)
        self.ranges = RangeRecord([bar0_range, *guarded] if recorded else None)

    def die(self) -> None:
        self.model.close()

    def succeeded(self, port: EmbeddedPort, settings: Settings | None = None) -> AbstractContextManager[Instance]:
        return open_instance(
            port, settings or Settings(), record=self.record, ranges=self.ranges, left_ranges=self.ranges.read
        )


def serve_until(instance: Instance, done: Callable[[], bool]) -> None:
    instance.loop.answer_begun()
    poll = select.poll()
    poll.register(instance.server.port.events.fd, select.POLLIN)
    while not done():
        assert poll.poll(PATIENCE * 1000), "nothing happens any more"
        serve_all(instance.loop)


@FLAVOURS
def test_nothing_of_the_predecessor_stays(flavour: str, rep_stores: bool, recorded: bool) -> None:
    with EmbeddedDomain(FRAMES, 2, flavour, holes=[(BAR0 // FRAME, BAR0_FRAMES)], rep_stores=rep_stores) as domain:
        dead = Predecessor(domain, BAR0, recorded)
        server = dead.model.server
        domain.set_type(7, 1, P2mType.MMIO_DM)  # given back meanwhile
        dead.die()
        with dead.succeeded(domain.port(), Settings(bar0=BAR0)) as instance:
            assert instance.server.id == server
            assert domain.protected() == []
            instance.traps.drop_guard_ranges()
            assert domain.range_count(server) == 1  # BAR0's
            assert dead.ranges.read() == [instance.bar0.range_at(BAR0)]
            assert domain.owner == (server if domain.flavour.claim else None)
        assert (dead.record.server, dead.ranges.read()) == (None, None)


@FLAVOURS
def test_the_store_that_the_predecessor_left_is_made_to_its_end(flavour: str, rep_stores: bool, recorded: bool) -> None:
    """It is of eight requests, and the first of them waits."""
    data = bytes(range(64))
    with EmbeddedDomain(FRAMES, 2, flavour, rep_stores=rep_stores) as domain:
        dead = Predecessor(domain, DEFAULT_BAR0, recorded)
        domain.start(0, lambda vcpu: vcpu.store_bytes(5 * FRAME + 64, data))
        wait_until_blocked(domain, 0)
        dead.die()
        with dead.succeeded(domain.port()) as instance:
            assert domain.protected() == ([5] if rep_stores else [])
            serve_until(instance, lambda: domain.read(5 * FRAME + 120, 8) == data[56:])
        assert domain.join(PATIENCE)
        assert domain.read(5 * FRAME + 64, 64) == data
        assert domain.dropped_stores == 0


@FLAVOURS
def test_a_successor_that_fails_leaves_it_to_the_next(flavour: str, rep_stores: bool, recorded: bool) -> None:
    """Whichever of its hypercalls fails, the store is made to its end, by it or by the next."""
    data = bytes(range(64))
    failures = 0
    with EmbeddedDomain(256, 2, flavour, rep_stores=rep_stores) as domain:
        dead = Predecessor(domain, DEFAULT_BAR0, recorded, trapped=(5, 6, 100))
        dead.die()
        with counting(domain) as counted, dead.succeeded(domain.port()):
            pass
        (calls,) = counted
    for n in range(1, calls + 1):
        with EmbeddedDomain(256, 2, flavour, rep_stores=rep_stores) as domain:
            dead = Predecessor(domain, DEFAULT_BAR0, recorded, trapped=(5, 6, 100))
            domain.start(0, lambda vcpu: vcpu.store_bytes(5 * FRAME + 64, data))
            wait_until_blocked(domain, 0)
            dead.die()
            opened = False
            fail_nth(domain, n, errno.EIO)
            port = domain.port()
            try:
                with dead.succeeded(port):
                    opened = True
            except HostError:
                failures += 1
            port.close()
            if not opened and dead.record.server is not None:
                with dead.succeeded(domain.port()) as instance:
                    serve_until(instance, lambda: domain.read(5 * FRAME + 120, 8) == data[56:])
            assert domain.join(PATIENCE), f"call {n}"
            assert domain.read(5 * FRAME + 64, 64) == data, f"call {n}"
            assert (domain.protected(), domain.owner, domain.dropped_stores, dead.record.server) == ([], None, 0, None)
    assert failures > 5


def test_ranges_are_found_by_halves() -> None:
    with EmbeddedDomain(FRAMES, 1, "v7") as domain:
        port = domain.port()
        server = port.create_server()
        left = {0, 3, 4, 5, 700, 0x2001, FRAMES - 1}
        for gfn in left:
            port.map_mmio(server, gfn * FRAME, gfn * FRAME + FRAME - 1)
        before = domain.range_count(server)
        ranges = GuardRanges(port, server, NoRangeRecord())
        ranges.adopt(search_ram(port, server))
        assert (ranges.frames(), ranges.count) == (left, before)
        assert domain.range_count(server) == before
        ranges.adopt([])
        assert ranges.frames() == left
