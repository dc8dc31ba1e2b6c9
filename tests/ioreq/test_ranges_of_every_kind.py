"""Memory, ports and PCI functions: a server has them, they are on record, and a successor keeps or removes them."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from tests.support.bus_world import World
from tests.support.faults import Call, fail_nth, wait_until_blocked
from tests.support.records import IdRecord
from tests.support.serving import serve_all
from xengt_dm._core import ffi
from xengt_dm.adoption import adopt_without_state
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort, Vcpu
from xengt_dm.instance import start
from xengt_dm.ioreq.bar import Bar
from xengt_dm.ioreq.bus import Bus
from xengt_dm.ioreq.devices import Kind
from xengt_dm.ioreq.journal import Journal
from xengt_dm.ioreq.loop import ServeLoop
from xengt_dm.ioreq.ranges import Range, RangeKind, RangesRegion
from xengt_dm.ioreq.server import IoreqServer, attach, left_server
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.units import sbdf

ALL_ONES = 0xFFFFFFFF
PATIENCE = 20.0
BAR, BAR_SIZE, PORT, PORTS, FUNCTION = 0xF000_0000, 0x10000, 0xC000, 64, sbdf(0, 2, 0)
MEMORY_RANGE = Range(RangeKind.MEMORY, BAR, BAR + BAR_SIZE - 1)
PORT_RANGE = Range(RangeKind.PORT, PORT, PORT + PORTS - 1)
PCI_RANGE = Range(RangeKind.PCI, FUNCTION, FUNCTION)
ALL = [MEMORY_RANGE, PORT_RANGE, PCI_RANGE]
each_kind = pytest.mark.parametrize("added", ALL, ids=lambda added: added.kind.name)


class DeviceModel:
    """A device with a BAR, ports and configuration space, in a process of its own that can die."""

    def __init__(self, domain: EmbeddedDomain, record: IdRecord, memory: memoryview) -> None:
        self.world = World()
        stats = ffi.new("xd_stats *")
        journal = Journal.private()
        self.bus = Bus(self.world, stats.counters, journal)
        self.port = EmbeddedPort(domain)
        timing = ffi.addressof(stats.counters, "timing")
        self.server: IoreqServer = attach(
            self.port, left_server(self.port, record), record, RangesRegion(memory), timing, journal
        )
        self.traps = ClaimTraps(self.port, self.server.id, self.server.slots, self.server.ranges)
        self.loop = ServeLoop(self.server, self.bus, journal, self.traps, stats)  # type: ignore[arg-type]
        self.bars = {Bar(self.bus, self.world, BAR_SIZE, self.server): BAR}

    def insert(self) -> None:
        """Put the ports and the function on the bus."""
        self.bus.insert(Kind.PORT, PORT, PORTS, self.world)
        self.bus.insert(Kind.PCI_CONFIG, FUNCTION << 32, 256, self.world)


def adopt(model: DeviceModel, bars: dict[Bar, int], fixed: Collection[Range] = ()) -> None:
    adopt_without_state(model.server, model.traps, bars, model.server.ranges.read(), fixed)


def read_all(vcpu: Vcpu) -> None:
    """Read a register in each space."""
    assert vcpu.load(BAR + 8, 4) == 0x55667788
    assert vcpu.inp(PORT + 4, 4) == 0x55667788
    assert vcpu.pci_read(FUNCTION, 4, 4) == 0x55667788


def counts(domain: EmbeddedDomain, server: int) -> list[int]:
    return [domain.range_count(server, kind) for kind in (RangeKind.MEMORY, RangeKind.PORT, RangeKind.PCI)]


def serve(domain: EmbeddedDomain, model: DeviceModel) -> None:
    while not domain.join(0.01):
        serve_all(model.loop)


@pytest.fixture
def memory() -> memoryview:
    """What outlives the processes."""
    return memoryview(bytearray(16 * 64)).cast("Q")


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(64, 2) as made:
        yield made


def read_nothing(vcpu: Vcpu) -> None:
    assert vcpu.inp(PORT + 4, 4) == ALL_ONES
    assert vcpu.pci_read(FUNCTION, 4, 4) == ALL_ONES


class Dead(NamedTuple):
    """``waiting``: what the two reads get that waited for an answer when the device model died."""

    record: IdRecord
    server: int
    waiting: dict[str, int]


@contextmanager
def dead(domain: EmbeddedDomain, memory: memoryview) -> Iterator[Dead]:
    """A device model that started with ranges of every kind and died; two vCPUs wait for an answer."""
    record = IdRecord()
    waiting: dict[str, int] = {}

    def read_ports(vcpu: Vcpu) -> None:
        waiting["ports"] = vcpu.inp(PORT + 4, 4)

    def read_function(vcpu: Vcpu) -> None:
        waiting["function"] = vcpu.pci_read(FUNCTION, 4, 4)

    first = DeviceModel(domain, record, memory)
    first.insert()
    start(first.server, first.bars, [PORT_RANGE, PCI_RANGE])
    assert counts(domain, first.server.id) == [1, 1, 1]
    domain.start(0, read_all)
    serve(domain, first)
    assert [call[0] for call in first.world.calls] == ["read"] * 3
    domain.start(0, read_ports)
    domain.start(1, read_function)
    wait_until_blocked(domain, 0)
    wait_until_blocked(domain, 1)
    first.port.close()
    assert RangesRegion(memory).read() == ALL
    yield Dead(record, first.server.id, waiting)


def test_a_successor_adopts_them(domain: EmbeddedDomain, memory: memoryview) -> None:
    with dead(domain, memory) as (record, server, waiting):
        model = DeviceModel(domain, record, memory)
        model.insert()
        adopt(model, model.bars, [PORT_RANGE, PCI_RANGE])
        assert model.server.id == server
        assert counts(domain, server) == [1, 1, 1]
        assert sorted(RangesRegion(memory).read() or []) == sorted(ALL)
        model.loop.answer_begun()
        serve(domain, model)
        assert waiting == {"ports": 0x55667788, "function": 0x55667788}
        domain.start(0, read_all)
        serve(domain, model)
        assert model.world.calls.count(("read", 4, 4)) == 4
        model.server.destroy()
        assert RangesRegion(memory).read() == []


def test_a_successor_removes_those_that_it_no_longer_wants(domain: EmbeddedDomain, memory: memoryview) -> None:
    """The accesses that wait in the slots are answered: they reach no device."""
    with dead(domain, memory) as (record, server, waiting):
        model = DeviceModel(domain, record, memory)
        adopt(model, model.bars)
        assert counts(domain, server) == [1, 0, 0]
        assert RangesRegion(memory).read() == [MEMORY_RANGE]
        model.loop.answer_begun()
        serve(domain, model)
        assert waiting == {"ports": ALL_ONES, "function": ALL_ONES}
        assert model.world.calls == []
        domain.start(0, read_nothing)
        assert domain.join(PATIENCE)  # though nobody serves


def test_one_kind_goes_and_another_comes(domain: EmbeddedDomain, memory: memoryview) -> None:
    with dead(domain, memory) as (record, server, waiting):
        model = DeviceModel(domain, record, memory)
        model.insert()
        other = Range(RangeKind.PORT, 0xD000, 0xD007)
        adopt(model, {}, [PCI_RANGE, other])
        assert not waiting
        assert counts(domain, server) == [0, 1, 1]
        assert sorted(RangesRegion(memory).read() or []) == [other, PCI_RANGE]


@pytest.mark.parametrize("call", ["map_pci", "map_ports", "unmap_pci", "unmap_ports", "unmap_mmio"])
def test_a_successor_that_fails_leaves_them_to_the_next(
    domain: EmbeddedDomain, memory: memoryview, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whichever change of a range fails, it is still on record."""

    def fail(*_: object) -> None:
        raise HostError(call, 1, errno.ENOMEM)

    other = Range(RangeKind.PORT, 0xD000, 0xD007)
    fixed = [PCI_RANGE, other] if call.startswith("map") else []
    with dead(domain, memory) as (record, server, waiting):
        failing = DeviceModel(domain, record, memory)
        failing.insert()
        monkeypatch.setattr(failing.port, call, fail)
        with pytest.raises(HostError):
            adopt(failing, {}, fixed)
        on_record = [each.kind for each in RangesRegion(memory).read() or []]
        assert sum(counts(domain, server)) <= len(on_record)
        failing.port.close()
        model = DeviceModel(domain, record, memory)
        model.insert()
        adopt(model, model.bars, [PORT_RANGE, PCI_RANGE])
        assert counts(domain, server) == [1, 1, 1]
        model.loop.answer_begun()
        serve(domain, model)
        assert waiting == {"ports": 0x55667788, "function": 0x55667788}


# One range at a time


@pytest.fixture
def model(domain: EmbeddedDomain, memory: memoryview) -> DeviceModel:
    return DeviceModel(domain, IdRecord(), memory)


@each_kind
def test_a_range_comes_and_goes(domain: EmbeddedDomain, memory: memoryview, model: DeviceModel, added: Range) -> None:
    model.server.add_range(added)
    assert RangesRegion(memory).read() == [added]
    assert counts(domain, model.server.id)[ALL.index(added)] == sum(counts(domain, model.server.id)) == 1
    with pytest.raises(HostError) as caught:
        model.server.add_range(added)
    assert caught.value.errno == errno.EEXIST
    assert RangesRegion(memory).read() == [added], "Xen still has it"
    model.server.remove_range(added)
    model.server.remove_range(added)
    assert RangesRegion(memory).read() == []
    assert counts(domain, model.server.id) == [0, 0, 0]


@each_kind
def test_a_range_that_is_refused_is_not_on_record(
    domain: EmbeddedDomain, memory: memoryview, model: DeviceModel, added: Range
) -> None:
    fail_nth(domain, 1, errno.ENOMEM, Call.MAP_RANGE)
    with pytest.raises(HostError):
        model.server.add_range(added)
    assert RangesRegion(memory).read() == []
    assert counts(domain, model.server.id) == [0, 0, 0]


@each_kind
def test_a_range_that_the_predecessor_did_not_get_any_more(
    domain: EmbeddedDomain, memory: memoryview, model: DeviceModel, added: Range
) -> None:
    """It was on record when its process died, and Xen had not been asked for it."""
    record = IdRecord(model.server.id)
    model.server.ranges.add(added)
    model.port.close()
    after = DeviceModel(domain, record, memory)
    adopt(after, {})
    assert RangesRegion(memory).read() == []
    assert counts(domain, after.server.id) == [0, 0, 0]
