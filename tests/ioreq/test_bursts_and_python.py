"""What C serves in bursts comes to the same as what Python serves: memory, registers, shadows, counters, journal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storm.world import CLEARED, MASKED, ROWS
from tests.support.tables import FRAME, pte
from tests.support.two_worlds import (
    COPY,
    DATA,
    FRAMES,
    HOLE,
    L1,
    L2,
    L3,
    L4,
    OTHER_L1,
    SELF,
    VCPUS,
    request,
    two_worlds,
)
from xengt_dm._core import lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.state import UNASSIGNED

PIO, PCI_CONFIG, INVALIDATE = (
    lib.XD_IOREQ_PIO,
    lib.XD_IOREQ_PCI_CONFIG,
    lib.XD_IOREQ_INVALIDATE,
)


@pytest.fixture(autouse=True, scope="module")
def _rows() -> Iterator[None]:
    """Registers of every kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reg, "REGISTERS", (*reg.REGISTERS, *ROWS))
        yield


offsets = st.one_of(
    st.sampled_from(
        [0x40000, 0x40008, 0x4080, 0x4260, 0x4270, 0x2000, *MASKED[0], *CLEARED[0], reg.G2V_NOTIFY, reg.PDP0]
    ),
    st.sampled_from([UNASSIGNED.start, UNASSIGNED.stop, (16 << 20) - 8, UNASSIGNED.start + 64]),
).flatmap(lambda base: st.integers(-8, 8).map(lambda more: base + more))
registers = offsets.map(lambda offset: DEFAULT_BAR0 + offset)
tables = st.builds(
    lambda gfn, offset: gfn * FRAME + offset,
    st.sampled_from([L1, L1, L1, OTHER_L1, SELF, L2, L3, L4, DATA, HOLE, FRAMES - 1, FRAMES, FRAMES + 1]),
    st.one_of(st.integers(0, 63).map(lambda n: 8 * n), st.integers(0, 80), st.integers(FRAME - 9, FRAME - 1)),
)
addresses = st.one_of(tables, registers, st.integers(0, (1 << 64) - 1))
values = st.one_of(
    st.sampled_from([L1, OTHER_L1, SELF, DATA, HOLE, FRAMES + 9]).map(pte),
    st.sampled_from([0, 1, 2, 3, 4, 5, (1 << 64) - 1, 0x00FF00FF, L4 * FRAME]),
    st.integers(0, (1 << 64) - 1),
)
plain_requests = st.fixed_dictionaries(
    {
        "addr": addresses,
        "data": values,
        "size": st.sampled_from([1, 2, 4, 8, 8, 8]),
        "count": st.just(1),
        "bits": st.sampled_from([0, 0, 0, lib.XD_BIT_READ]),
        "type": st.just(COPY),
    }
)
odd_requests = st.fixed_dictionaries(
    {
        "addr": addresses,
        "data": st.one_of(values, tables),
        "size": st.sampled_from([1, 2, 4, 8, 0, 3, 16, 1 << 31]),
        "count": st.sampled_from([0, 1, 2, 9, 1 << 31]),
        "bits": st.integers(0, 7).map(lambda bits: bits << 4),
        "type": st.sampled_from([COPY, COPY, COPY, PIO, PCI_CONFIG, INVALIDATE, 9]),
    }
)
requests = st.lists(
    st.tuples(st.integers(0, VCPUS - 1), st.one_of(plain_requests, plain_requests, odd_requests)),
    min_size=1,
    max_size=25,
)


@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@settings(max_examples=60)
@given(requests)
def test_both_come_to_the_same(sync: Sync, asked: list[tuple[int, dict[str, int]]]) -> None:
    with two_worlds(sync) as (bursts, python):
        for vcpu, fields in asked:
            assert bursts.ask(vcpu, fields) == python.ask(vcpu, fields)
        expected = python.state()
        for part, found in bursts.state().items():
            assert found == expected[part], part
        assert not python.instance.stats.pointer.burst_requests


@pytest.mark.parametrize(
    ("fields", "in_c"),
    [
        (request(L1 * FRAME, pte(DATA)), True),
        (request(L1 * FRAME + 4, 5, 4), True),
        (request(L2 * FRAME, pte(L1)), False),
        (request(DATA * FRAME, 1), False),
        (request(L1 * FRAME + FRAME - 4, 1), False),
        (request(DEFAULT_BAR0 + 0x40000, 1, 4), True),
        (request(DEFAULT_BAR0 + 0x40000, 0, 4, lib.XD_BIT_READ), True),
        (request(DEFAULT_BAR0 + UNASSIGNED.stop, 1), True),
        (request(DEFAULT_BAR0 + UNASSIGNED.start, 1), True),
        (request(DEFAULT_BAR0 + UNASSIGNED.start - 4, 1), False),
        (request(DEFAULT_BAR0 + MASKED[0][0], 1, 4), False),
        (request(DEFAULT_BAR0 + MASKED[0][0], 0, 4, lib.XD_BIT_READ), True),
        (request(DEFAULT_BAR0 + CLEARED[0][0] + 3, 0, 1), False),
        (request(DEFAULT_BAR0 + reg.G2V_NOTIFY, 0, 4), False),
        (request(DEFAULT_BAR0 + 0x4260, 1, 4), True),
        (request(DEFAULT_BAR0 + 0x426E, 1, 1), False),
        (request(DEFAULT_BAR0 + 0x4260, 1, 8), False),
        (request(DEFAULT_BAR0 + 0x425E, 1, 4), False),
        (request(DEFAULT_BAR0 + 0x4260, 0, 4, lib.XD_BIT_READ), True),
        (request(DEFAULT_BAR0 + (16 << 20) - 4, 0, 8, lib.XD_BIT_READ), False),
    ],
)
def test_what_c_serves(fields: dict[str, int], in_c: bool) -> None:
    with two_worlds(Sync.STRICT) as (bursts, _):
        bursts.ask(0, fields)
        stats = bursts.instance.stats.pointer
        assert (stats.burst_requests, stats.handed_requests) == (int(in_c), int(not in_c))


def test_an_observer_sees_each_store_first() -> None:
    """While anybody observes, for a recording, nothing is served in C."""
    seen: list[tuple[int, ...]] = []

    class Observer:
        def store(self, vcpu: int, gpa: int, size: int, value: int) -> None:
            assert world.domain.read_u64(gpa) == 0
            seen.append((vcpu, gpa, size, value))

        def mmio(self, vcpu: int, offset: int, size: int, value: int) -> None:
            seen.append((vcpu, offset, size, value))

    with two_worlds(Sync.STRICT) as (world, _):
        world.instance.bus.observe(Observer())
        world.ask(0, request(L1 * FRAME + 8, pte(DATA)))
        world.ask(1, request(DEFAULT_BAR0 + 0x40000, 7, 4))
        assert seen == [(0, L1 * FRAME + 8, 8, pte(DATA)), (1, 0x40000, 4, 7)]
        assert not world.instance.stats.pointer.burst_requests
        world.instance.bus.observe(None)
        world.ask(0, request(L1 * FRAME + 8, 0))
        assert world.instance.stats.pointer.burst_requests == 1
