"""Which accesses go to which device: the three spaces, and ranges that come and go."""

from __future__ import annotations

import pytest

from tests.support.bus_world import BAR, BAR_SIZE, FUNCTION, PORT, Call, Setup, World
from xengt_dm.ioreq.bus import ALL_ONES
from xengt_dm.ioreq.devices import Kind, RangeError


@pytest.fixture
def setup() -> Setup:
    return Setup()


# Ports and configuration space


@pytest.mark.parametrize(("kind", "first"), [(Kind.PORT, PORT), (Kind.PCI_CONFIG, FUNCTION)])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_device_in_another_space(setup: Setup, kind: Kind, first: int, size: int) -> None:
    """What is written there is in no trace."""
    value = 0x1122334455667788 & (1 << 8 * size) - 1
    assert setup.ask(first + 4, size, 0xFFEEDDCCBBAA9988, type=kind) == 0
    assert setup.ask(first + 4, size, type=kind, is_read=True) == value
    assert setup.world.calls == [("write", 4, size, 0xFFEEDDCCBBAA9988 & (1 << 8 * size) - 1), ("read", 4, size)]
    assert setup.recorder.calls == []
    assert setup.counted() == {"mmio_traps": 2}


@pytest.mark.parametrize(("kind", "first"), [(Kind.PORT, PORT), (Kind.PCI_CONFIG, FUNCTION)])
def test_no_access_there_has_8_bytes(setup: Setup, kind: Kind, first: int) -> None:
    assert setup.ask(first, 8, type=kind) == ALL_ONES
    assert setup.world.calls == []
    assert setup.counted() == {"malformed_requests": 1}


@pytest.mark.parametrize(
    ("kind", "addr"),
    [
        (Kind.PORT, PORT - 1),
        (Kind.PORT, PORT + 7),
        (Kind.PORT, PORT + 8),
        (Kind.PORT, BAR),
        (Kind.PCI_CONFIG, FUNCTION - 1),
        (Kind.PCI_CONFIG, FUNCTION + 255),
        (Kind.PCI_CONFIG, FUNCTION + 256),
        (Kind.PCI_CONFIG, FUNCTION | 1 << 32),
    ],
)
def test_what_no_device_has_reads_as_all_ones(setup: Setup, kind: Kind, addr: int) -> None:
    """Also what begins or ends in a device's range only; it is no access to guest memory."""
    assert setup.ask(addr, 2, type=kind, is_read=True) == ALL_ONES
    setup.ask(addr, 2, 1, type=kind)
    assert setup.world.calls == []
    assert setup.recorder.calls == []
    assert setup.counted() == {"unknown_requests": 2}


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(("kind", "first"), [(Kind.PORT, PORT), (Kind.PCI_CONFIG, FUNCTION)])
def test_a_repeated_access_stays_at_its_port(setup: Setup, kind: Kind, first: int, down: bool) -> None:
    """`rep outs` and `rep ins`: only the address in memory goes on."""
    step = -2 if down else 2
    setup.world.memory |= {0x5000 + i: i for i in range(16)}
    setup.ask(first + 2, 2, 0x5008, type=kind, repeats=3, data_is_ptr=True, down=down)
    expected: list[Call] = []
    for i in range(3):
        at = 8 + i * step
        expected += [("load", 0x5000 + at, 2), ("write", 2, 2, at | at + 1 << 8)]
    assert setup.world.calls == expected
    setup.world.calls.clear()
    setup.ask(first, 2, 0x6008, type=kind, repeats=3, data_is_ptr=True, is_read=True, down=down)
    expected = []
    for i in range(3):
        to = 0x6008 + i * step
        expected += [("read", 0, 2), ("load", to, 2), ("store", to, 2, 0x7788)]
    assert setup.world.calls == expected
    setup.world.calls.clear()
    setup.ask(first, 1, 0x41, type=kind, repeats=2)
    assert setup.world.calls == [("write", 0, 1, 0x41)] * 2


def test_a_repeated_read_of_nothing_stores_all_ones(setup: Setup) -> None:
    """Counted once, as one request."""
    setup.ask(PORT + 100, 4, 0x6000, type=Kind.PORT, repeats=2, data_is_ptr=True, is_read=True)
    stores = [call for call in setup.world.calls if call[0] != "load"]
    assert stores == [("store", 0x6000, 4, 0xFFFFFFFF), ("store", 0x6004, 4, 0xFFFFFFFF)]
    assert setup.recorder.calls == [("store", 0, 0x6000, 4, 0xFFFFFFFF), ("store", 0, 0x6004, 4, 0xFFFFFFFF)]
    assert setup.counted() == {"unknown_requests": 1}


# Ranges


@pytest.mark.parametrize(
    ("first", "size", "free"),
    [
        (BAR - 0x1000, 0x1000, True),
        (BAR - 0x1000, 0x1001, False),
        (BAR, BAR_SIZE, False),
        (BAR + 8, 8, False),
        (BAR - 8, BAR_SIZE + 16, False),
        (BAR + BAR_SIZE - 1, 1, False),
        (BAR + BAR_SIZE, 0x1000, True),
    ],
)
def test_ranges_do_not_overlap(setup: Setup, first: int, size: int, free: bool) -> None:
    other = World()
    if free:
        setup.bus.insert(Kind.MEMORY, first, size, other)
        setup.ask(first, 1, 5)
        assert other.calls == [("write", 0, 1, 5)]
    else:
        with pytest.raises(RangeError, match="overlaps"):
            setup.bus.insert(Kind.MEMORY, first, size, other)
        setup.ask(first + size - 1, 1, 5)
        assert other.calls == []


def test_each_space_has_its_own_ranges(setup: Setup) -> None:
    other = World()
    setup.bus.insert(Kind.PORT, BAR, 8, other)
    setup.ask(BAR, 1, 5)
    assert other.calls == []


def test_a_range_that_is_removed_is_memory_again(setup: Setup) -> None:
    setup.bus.remove(Kind.MEMORY, BAR)
    setup.ask(BAR, 4, 1)
    assert setup.world.calls == [("store", BAR, 4, 1)]
    with pytest.raises(RangeError):
        setup.bus.remove(Kind.MEMORY, BAR)
    with pytest.raises(RangeError):
        setup.bus.remove(Kind.PORT, PORT + 1)


def test_a_late_access_goes_to_the_device_that_left(setup: Setup) -> None:
    """One request of each vCPU named, all of it, and no other vCPU's."""
    setup.bus.remove(Kind.MEMORY, BAR, late=[1, 2])
    setup.ask(BAR, 4, 7, vcpu=0)
    setup.ask(BAR, 4, 7, vcpu=1, repeats=2)
    setup.ask(BAR, 4, 7, vcpu=1)
    setup.ask(0x1000, 4, 7, vcpu=2)
    setup.ask(BAR, 4, 7, vcpu=2)
    kinds = [call[0] for call in setup.world.calls]
    assert kinds == ["store", "write", "write", "store", "store", "store"]
