"""What C serves in bursts comes to the same as what Python serves: memory, registers, shadows, counters, journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storm.world import CLEARED, MASKED, ROWS
from tests.support.serving import serve_all
from tests.support.tables import FRAME, pte
from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import DEFAULT_BAR0, Settings
from xengt_dm.stats.counters import read_counters
from xengt_dm.steps import complete
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.state import BAR0, UNASSIGNED

FRAMES = 64
VCPUS = 2
HOLE = 40
L4, L3, L2, L1, OTHER_L1, SELF, DATA = range(2, 9)
COPY, PIO, PCI_CONFIG, INVALIDATE = (
    lib.XD_IOREQ_COPY,
    lib.XD_IOREQ_PIO,
    lib.XD_IOREQ_PCI_CONFIG,
    lib.XD_IOREQ_INVALIDATE,
)


class World:
    """An instance whose slots a test fills. ``bursts``: whether C serves what it can."""

    def __init__(self, stack: ExitStack, sync: Sync, *, bursts: bool) -> None:
        self.domain = stack.enter_context(EmbeddedDomain(FRAMES, VCPUS, holes=[(HOLE, 4)]))
        self.instance: Instance = stack.enter_context(
            open_instance(self.domain.port(), Settings(sync=sync, generation=9))
        )
        quick = self.instance.loop.quick
        assert quick is not None
        quick.on = bursts
        for table, entries in {L4: [L3], L3: [L2], L2: [L1, OTHER_L1, SELF], SELF: [DATA, SELF]}.items():
            for n, child in enumerate(entries):
                self.domain.write(table * FRAME + 8 * n, pte(child).to_bytes(8, "little"))
        complete(self.instance.engine.create_space(Mode.L4, (L4 * FRAME,)))

    def ask(self, vcpu: int, fields: dict[str, int]) -> int:
        """Have a request served; returns what a read reads."""
        page = self.instance.server.slots.page
        assert embedded.xd_slot_post(page, vcpu, ffi.new("xd_ioreq *", fields)) == 0
        assert serve_all(self.instance.loop) == 1
        assert lib.xd_slot_state(page, vcpu) == lib.XD_STATE_RESP_READY
        embedded.xd_slot_set_state(page, vcpu, lib.XD_STATE_NONE)
        return int(embedded.xd_slot_data(page, vcpu)) if fields["bits"] & lib.XD_BIT_READ else 0

    def state(self) -> dict[str, Any]:
        """All that a guest, an operator and a successor can see."""
        engine, found = self.instance.engine, self.instance.found.state
        bar0 = BAR0.of(found.device)
        answers = engine.counters.timing.answers
        return {
            "memory": [self.domain.read(gfn * FRAME, FRAME) for gfn in range(FRAMES) if not HOLE <= gfn < HOLE + 4],
            "registers": bytes(bar0[: UNASSIGNED.start]),
            "ggtt": bytes(bar0[UNASSIGNED.stop : UNASSIGNED.stop + FRAME]) + bytes(bar0[-FRAME:]),
            "journal": bytes(found.journal),
            "counters": read_counters(engine.counters),
            "answers": [sum(answers[route].counts) for route in range(lib.XD_ROUTES)],
            "spaces": [(space.mode, space.roots, space.refs) for space in engine.spaces],
            "mappings": [[*map(tuple, complete(engine.mappings(space)))] for space in engine.spaces],
            "tables": [*engine.tables()],
            "protected": self.domain.protected(),
        }


@contextmanager
def two_worlds(sync: Sync) -> Iterator[tuple[World, World]]:
    with ExitStack() as stack:
        yield World(stack, sync, bursts=True), World(stack, sync, bursts=False)


@pytest.fixture(autouse=True, scope="module")
def _rows() -> Iterator[None]:
    """Registers of every kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reg, "REGISTERS", (*reg.REGISTERS, *ROWS))
        yield


offsets = st.one_of(
    st.sampled_from([0x40000, 0x40008, 0x4080, 0x2000, *MASKED[0], *CLEARED[0], reg.G2V_NOTIFY, reg.PDP0]),
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


def request(addr: int, data: int = 0, size: int = 8, bits: int = 0) -> dict[str, int]:
    return {"addr": addr, "data": data, "size": size, "count": 1, "bits": bits, "type": COPY}


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
