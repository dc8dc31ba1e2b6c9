"""A successor takes over what a device model that died left in its server: claim, ranges, types, a store in it."""

from __future__ import annotations

import errno
import select
from collections.abc import Callable

import pytest

from tests.support.device_model import FRAME, PATIENCE, DeviceModel
from tests.support.faults import counting, fail_nth, wait_until_blocked
from xengt_dm.daemon.main import DEFAULT_BAR0, Instance, Settings, open_instance
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.traps.guard_ranges import FrameRanges
from xengt_dm.vgpu.registers import BAR0_SIZE

#: Frames of a guest that has RAM on both sides of BAR0, which is there as it is in a big guest.
FRAMES = 0x4000
BAR0 = 0x1000 * FRAME
BAR0_FRAMES = BAR0_SIZE // FRAME
TRAPPED = (5, 6, 7, 100, 0x3000)
#: And whether the guest's stores are of ``rep stos``.
FLAVOURS = pytest.mark.parametrize(("flavour", "rep_stores"), [("4.17", False), ("4.17", True), ("v7", False)])


class Record:
    """The predecessor's server."""

    def __init__(self, server: int) -> None:
        self.server: int | None = server

    def read(self) -> int | None:
        return self.server

    def write(self, server: int) -> None:
        assert server == self.server

    def clear(self) -> None:
        self.server = None


def predecessor(domain: EmbeddedDomain, bar0: int, trapped: tuple[int, ...] = TRAPPED) -> DeviceModel:
    """One that protected frames, and had a range over some that it let go."""
    claim = domain.flavour.claim
    model = DeviceModel(domain, [(bar0, bar0 + BAR0_SIZE - 1)], claim=claim)
    for gfn in (9, 10, *(() if claim else trapped)):
        model.port.map_mmio(model.server, gfn * FRAME, gfn * FRAME + FRAME - 1)
    model.protect(*trapped)
    return model


def serve_until(instance: Instance, done: Callable[[], bool]) -> None:
    instance.server.answer_waiting(adopt=True)
    poll = select.poll()
    poll.register(instance.server.port.events.fd, select.POLLIN)
    while not done():
        assert poll.poll(PATIENCE * 1000), "nothing happens any more"
        instance.server.service()


@FLAVOURS
def test_nothing_of_the_predecessor_stays(flavour: str, rep_stores: bool) -> None:
    with EmbeddedDomain(FRAMES, 2, flavour, holes=[(BAR0 // FRAME, BAR0_FRAMES)], rep_stores=rep_stores) as domain:
        model = predecessor(domain, BAR0)
        domain.set_type(7, 1, P2mType.MMIO_DM)  # given back meanwhile
        model.close()
        record = Record(model.server)
        with open_instance(domain.port(), Settings(bar0=BAR0), record=record) as instance:
            assert instance.server.id == model.server
            assert domain.protected() == []
            instance.protection.uncover()
            assert domain.range_count(model.server) == 1  # BAR0's
            assert domain.owner == (model.server if domain.flavour.claim else None)
        assert record.server is None


@FLAVOURS
def test_the_store_that_the_predecessor_left_is_made_to_its_end(flavour: str, rep_stores: bool) -> None:
    """It is of eight requests, and the first of them waits."""
    data = bytes(range(64))
    with EmbeddedDomain(FRAMES, 2, flavour, rep_stores=rep_stores) as domain:
        model = predecessor(domain, DEFAULT_BAR0)
        domain.start(0, lambda vcpu: vcpu.store_bytes(5 * FRAME + 64, data))
        wait_until_blocked(domain, 0)
        model.close()
        with open_instance(domain.port(), Settings(), record=Record(model.server)) as instance:
            assert domain.protected() == ([5] if rep_stores else [])
            serve_until(instance, lambda: domain.read(5 * FRAME + 120, 8) == data[56:])
        assert domain.join(PATIENCE)
        assert domain.read(5 * FRAME + 64, 64) == data
        assert domain.dropped_stores == 0


@FLAVOURS
def test_a_successor_that_fails_leaves_it_to_the_next(flavour: str, rep_stores: bool) -> None:
    """Whichever of its hypercalls fails, the store is made to its end, by it or by the next."""
    data = bytes(range(64))
    failures = 0
    with EmbeddedDomain(256, 2, flavour, rep_stores=rep_stores) as domain:
        model = predecessor(domain, DEFAULT_BAR0, trapped=(5, 6, 100))
        model.close()
        with counting(domain) as counted, open_instance(domain.port(), Settings(), record=Record(model.server)):
            pass
        (calls,) = counted
    for n in range(1, calls + 1):
        with EmbeddedDomain(256, 2, flavour, rep_stores=rep_stores) as domain:
            model = predecessor(domain, DEFAULT_BAR0, trapped=(5, 6, 100))
            domain.start(0, lambda vcpu: vcpu.store_bytes(5 * FRAME + 64, data))
            wait_until_blocked(domain, 0)
            model.close()
            record = Record(model.server)
            opened = False
            fail_nth(domain, n, errno.EIO)
            port = domain.port()
            try:
                with open_instance(port, Settings(), record=record):
                    opened = True
            except HostError:
                failures += 1
            port.close()
            if not opened and record.server is not None:
                with open_instance(domain.port(), Settings(), record=record) as instance:
                    serve_until(instance, lambda: domain.read(5 * FRAME + 120, 8) == data[56:])
            assert domain.join(PATIENCE), f"call {n}"
            assert domain.read(5 * FRAME + 64, 64) == data, f"call {n}"
            assert (domain.protected(), domain.owner, domain.dropped_stores, record.server) == ([], None, 0, None)
    assert failures > 5


def test_ranges_are_found_by_halves() -> None:
    with EmbeddedDomain(FRAMES, 1, "v7") as domain:
        port = domain.port()
        server = port.create_server()
        left = {0, 3, 4, 5, 700, 0x2001, FRAMES - 1}
        for gfn in left:
            port.map_mmio(server, gfn * FRAME, gfn * FRAME + FRAME - 1)
        before = domain.range_count(server)
        ranges = FrameRanges(port, server)
        ranges.adopt(0, FRAMES - 1)
        assert (ranges.frames(), ranges.count) == (left, before)
        assert domain.range_count(server) == before
        ranges.adopt(5, 4)  # of nothing
        assert ranges.frames() == left
