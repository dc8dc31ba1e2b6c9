"""Requests on the bus: what each becomes, and that none of them can do harm."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bus_world import BAR, BAR_SIZE, FUNCTION, PORT, Call, Setup, request
from tests.support.serving import handled
from xengt_dm._core import lib
from xengt_dm.ioreq.bus import ALL_ONES
from xengt_dm.ioreq.devices import Kind
from xengt_dm.ioreq.request import Request, RequestType


@pytest.fixture
def setup() -> Setup:
    return Setup()


# One access


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_store_to_memory(setup: Setup, size: int) -> None:
    """``data`` has as many bytes as a register; those beyond ``size`` mean nothing."""
    assert setup.ask(0x1234, size, 0x8877665544332211) == 0
    value = 0x8877665544332211 & (1 << 8 * size) - 1
    assert setup.world.calls == [("store", 0x1234, size, value)]
    assert setup.recorder.calls == [("store", 0, 0x1234, size, value)]
    assert setup.counted() == {"store_traps": 1}


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_registers(setup: Setup, size: int) -> None:
    assert setup.ask(BAR + 0x10, size, 0xFFEEDDCCBBAA9988, vcpu=3) == 0
    assert setup.ask(BAR + 0x10, size, is_read=True) == 0x1122334455667788 & (1 << 8 * size) - 1
    value = 0xFFEEDDCCBBAA9988 & (1 << 8 * size) - 1
    assert setup.world.calls == [("write", 0x10, size, value), ("read", 0x10, size)]
    assert setup.recorder.calls == [("mmio", 3, 0x10, size, value)]
    assert setup.counted() == {"mmio_traps": 2}


@pytest.mark.parametrize(
    ("addr", "size", "inside"),
    [
        (BAR, 8, True),
        (BAR - 1, 1, False),
        (BAR - 4, 8, False),
        (BAR + BAR_SIZE - 8, 8, True),
        (BAR + BAR_SIZE - 7, 8, False),
        (BAR + BAR_SIZE - 1, 1, True),
        (BAR + BAR_SIZE, 1, False),
    ],
)
def test_the_edges_of_the_bar(setup: Setup, addr: int, size: int, inside: bool) -> None:
    setup.ask(addr, size)
    assert [call[0] for call in setup.world.calls][:1] == ["write" if inside else "store"]


def test_a_read_of_memory(setup: Setup) -> None:
    """Half of a read-modify-write, where Xen's emulator does not take a page that traps for RAM."""
    setup.world.memory |= {0x1FFE: 0x11, 0x1FFF: 0x22, 0x2000: 0x33}
    assert setup.ask(0x1FFE, 2, is_read=True) == 0x2211
    assert setup.ask(0x1FFE, 4, is_read=True) == 0x332211
    assert setup.recorder.calls == []


# Other kinds


def test_invalidate(setup: Setup) -> None:
    assert setup.ask(0, 0, type=RequestType.INVALIDATE, repeats=0) == 0
    assert setup.world.calls == [("frames_changed",)]
    assert setup.counted() == {"invalidate_requests": 1}


@pytest.mark.parametrize("kind", [RequestType.PIO, RequestType.PCI_CONFIG, RequestType.TIMEOFFSET, 3, 9, 255])
def test_kinds_that_nobody_serves(setup: Setup, kind: int) -> None:
    assert setup.ask(BAR, 4, 1, type=kind) == ALL_ONES
    assert setup.world.calls == []
    assert setup.counted() == {"unknown_requests": 1}


@pytest.mark.parametrize("size", [0, 3, 5, 6, 7, 9, 16, 4096, (1 << 32) - 1])
def test_sizes_that_no_access_has(setup: Setup, size: int) -> None:
    assert setup.ask(0x1000, size, 1) == ALL_ONES
    assert setup.world.calls == []
    assert setup.counted() == {"malformed_requests": 1}


@pytest.mark.parametrize(("size", "repeats"), [(8, 0), (8, 513), (1, 4097), (4, 1 << 30), (8, (1 << 32) - 1)])
def test_repeats_that_do_not_fit_a_page(setup: Setup, size: int, repeats: int) -> None:
    """Xen cuts a repeated access at the page's end, so a count beyond is a lie; and it would take for ever."""
    assert setup.ask(0x1000, size, 1, repeats=repeats) == ALL_ONES
    assert setup.world.calls == []
    assert setup.counted() == {"malformed_requests": 1}


# Routes


@pytest.mark.parametrize(
    ("asked", "route"),
    [
        ({"addr": BAR}, lib.XD_ROUTE_REGISTER_WRITE),
        ({"addr": BAR, "is_read": True}, lib.XD_ROUTE_REGISTER_READ),
        ({"addr": 0x1000}, lib.XD_ROUTE_LEAF_STORE),
        ({"addr": 0x1000, "is_read": True}, lib.XD_ROUTE_REFUSED),
        ({"addr": 0x1000, "repeats": 2}, lib.XD_ROUTE_LEAF_STORE),
        ({"addr": 0x1FFE}, lib.XD_ROUTE_LEAF_STORE),
        ({"addr": BAR, "data": 0x1000, "data_is_ptr": True, "is_read": True}, lib.XD_ROUTE_LEAF_STORE),
        ({"addr": BAR, "data": 0x1000, "data_is_ptr": True}, lib.XD_ROUTE_REGISTER_WRITE),
        ({"addr": 0, "type": RequestType.INVALIDATE}, lib.XD_ROUTE_INVALIDATE),
        ({"addr": BAR, "type": RequestType.TIMEOFFSET}, lib.XD_ROUTE_REFUSED),
        ({"addr": PORT, "size": 4, "type": Kind.PORT}, lib.XD_ROUTE_REGISTER_WRITE),
        ({"addr": FUNCTION, "size": 4, "type": Kind.PCI_CONFIG, "is_read": True}, lib.XD_ROUTE_REGISTER_READ),
        ({"addr": 0, "size": 4, "type": Kind.PCI_CONFIG, "is_read": True}, lib.XD_ROUTE_REFUSED),
        ({"addr": BAR, "size": 3}, lib.XD_ROUTE_REFUSED),
    ],
)
def test_the_route_of_an_answer(setup: Setup, asked: dict[str, Any], route: int) -> None:
    """A store's route is what the memory says; a request with several accesses has that of its last."""
    assert handled(setup.bus, request(**asked)).route == route


# Repeats


@pytest.mark.parametrize(("size", "repeats"), [(8, 512), (1, 4096), (4, 7), (2, 1)])
@pytest.mark.parametrize("down", [False, True])
def test_repeated_stores(setup: Setup, size: int, repeats: int, down: bool) -> None:
    """`rep stos`: one value, and addresses that go up or down."""
    addr = 0x2000 if not down else 0x3000 - size
    step = -size if down else size
    assert setup.ask(addr, size, 0x41, repeats=repeats, down=down) == 0
    assert setup.world.calls == [("store", addr + i * step, size, 0x41) for i in range(repeats)]
    assert setup.counted() == {"store_traps": repeats}


def test_a_repeated_read_of_a_register_reads_the_last(setup: Setup) -> None:
    assert setup.ask(BAR, 4, repeats=3, is_read=True) == 0x55667788
    assert setup.world.calls == [("read", offset, 4) for offset in (0, 4, 8)]


# With a pointer to the other side


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("down", [False, True])
def test_moves_from_memory_to_registers(setup: Setup, repeats: int, down: bool) -> None:
    """`rep movs` to the BAR: ``data`` is where the data is, and both addresses go the same way."""
    for i in range(32):
        setup.world.memory[0x5000 + i] = i
    step = -4 if down else 4
    assert setup.ask(BAR + 0x100, 4, 0x5010, repeats=repeats, data_is_ptr=True, down=down) == 0
    expected: list[Call] = []
    for i in range(repeats):
        at = 0x10 + i * step
        value = int.from_bytes(bytes(range(at, at + 4)), "little")
        expected += [("load", 0x5000 + at, 4), ("write", 0x100 + i * step, 4, value)]
    assert setup.world.calls == expected


@pytest.mark.parametrize("repeats", [1, 3])
def test_moves_from_registers_to_memory(setup: Setup, repeats: int) -> None:
    setup.ask(BAR, 8, 0x6000, repeats=repeats, data_is_ptr=True, is_read=True)
    expected: list[Call] = []
    for i in range(repeats):
        to = 0x6000 + 8 * i
        expected += [("read", 8 * i, 8), ("load", to, 8), ("store", to, 8, 0x1122334455667788)]
    assert setup.world.calls == expected


def test_moves_from_memory_to_memory(setup: Setup) -> None:
    """`rep movs` into a page table."""
    setup.world.memory[0x5000] = 0x77
    assert setup.ask(0x2000, 1, 0x5000, data_is_ptr=True) == 0
    assert setup.world.calls == [("load", 0x5000, 1), ("load", 0x2000, 1), ("store", 0x2000, 1, 0x77)]
    assert setup.counted() == {"store_traps": 1}


def test_moves_whose_other_side_lies_in_two_pages(setup: Setup) -> None:
    """The side that traps is within a page; the other one is the guest's to choose."""
    for i in range(8):
        setup.world.memory[0x5FFD + i] = 0x10 + i
    setup.ask(BAR, 8, 0x5FFD, data_is_ptr=True)
    assert setup.world.calls[-1] == ("write", 0, 8, 0x1716151413121110)
    setup.ask(BAR, 4, 0x6FFE, data_is_ptr=True, is_read=True)
    assert [setup.world.memory[0x6FFE + i] for i in range(4)] == [0x88, 0x77, 0x66, 0x55]


def test_a_store_that_lies_in_two_pages(setup: Setup) -> None:
    """Xen sends none such; if one comes, every byte goes where it belongs."""
    setup.ask(0x1FFE, 4, 0x44332211)
    assert setup.world.memory == {0x1FFE: 0x11, 0x1FFF: 0x22, 0x2000: 0x33, 0x2001: 0x44}


def test_addresses_wrap(setup: Setup) -> None:
    setup.ask((1 << 64) - 4, 8, 0x8877665544332211)
    assert setup.world.memory[(1 << 64) - 1] == 0x44
    assert setup.world.memory[0] == 0x55
    setup.ask(0, 8, 0x41, repeats=2, down=True)
    assert setup.world.calls[-1] == ("store", (1 << 64) - 8, 8, 0x41)
    assert setup.recorder.calls[-1] == ("store", 0, (1 << 64) - 8, 8, 0x41)
    setup.ask(BAR, 4, (1 << 64) - 4, repeats=2, data_is_ptr=True)
    assert [call for call in setup.world.calls if call[0] == "load"] == [("load", (1 << 64) - 4, 4), ("load", 0, 4)]


# Anything

near = st.sampled_from(
    [0, PORT, FUNCTION, BAR, BAR + BAR_SIZE, 0x1000, 1 << 32, 1 << 46, 1 << 52, 1 << 63, (1 << 64) - 1]
)
addresses = st.builds(lambda base, step: (base + step) & (1 << 64) - 1, near, st.integers(-5000, 5000))
u64 = st.integers(0, (1 << 64) - 1)
u32 = st.integers(0, (1 << 32) - 1)
sane_sizes = st.sampled_from([1, 2, 4, 8])
requests = st.builds(
    Request,
    vcpu=st.integers(0, 127),
    type=st.sampled_from([*Kind]) | st.integers(0, 255),
    addr=addresses | u64,
    data=addresses | u64,
    size=sane_sizes | u32,
    repeats=st.integers(0, 8) | st.sampled_from([511, 512, 513, 4096]) | u32,
    is_read=st.booleans(),
    data_is_ptr=st.booleans(),
    down=st.booleans(),
)


@given(st.lists(requests, max_size=5))
def test_nothing_raises_whatever_a_guest_asks(asked: list[Request]) -> None:
    """World and Recorder check what reaches them. What changes anything is counted; the answer fits its slot."""
    setup = Setup()
    for one in asked:
        before = sum(setup.counted().values())
        answer = handled(setup.bus, one)
        assert 0 <= answer.data <= ALL_ONES
        assert sum(setup.counted().values()) > before or one.is_read
        assert answer.route in range(lib.XD_ROUTES)


@given(requests)
def test_an_observer_changes_nothing(one: Request) -> None:
    observed, plain = Setup(), Setup()
    plain.bus.observe(None)
    assert handled(observed.bus, one) == handled(plain.bus, one)
    assert observed.world.calls == plain.world.calls
    assert observed.counted() == plain.counted()
