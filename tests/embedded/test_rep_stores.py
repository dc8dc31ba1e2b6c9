"""A guest all of whose stores are of rep instructions: a table that is protected or unsynced must not end it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from xengt_dm._core import lib
from xengt_dm.control.report import audit_spaces
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS, why_unusable
from xengt_dm.hypervisor.embedded.shadow_paging import Paging
from xengt_dm.instance import open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import DEFAULT_BAR0, Settings
from xengt_dm.steps import complete
from xengt_dm.units import PAGE_SIZE
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.registers.tlb import TLB_BIT, TLB_INVALIDATE

FRAMES = 64
ROOT, POINTERS, DIRECTORY, LEAF, OTHER, SOURCE = 2, 3, 4, 5, 6, 30
TABLE = 3
VALUE = 20 * PAGE_SIZE | TABLE
LEAF_AT, SOURCE_AT, END = LEAF * PAGE_SIZE, SOURCE * PAGE_SIZE, (LEAF + 1) * PAGE_SIZE - 32
REGISTERS = DEFAULT_BAR0 + 0x2000
USABLE = [
    *((name, Paging.HAP) for name, flavour in FLAVOURS.items() if not why_unusable(flavour)),
    ("v7", Paging.SHADOW),
]

CASES: dict[str, Callable[[Vcpu], None]] = {
    "one store": lambda cpu: cpu.store(LEAF_AT + 8, 8, VALUE),
    "stos of 1": lambda cpu: cpu.rep_stos(LEAF_AT, 8, 1, VALUE),
    "stos of 24": lambda cpu: cpu.rep_stos(LEAF_AT, 8, 24, VALUE),
    "stos of all": lambda cpu: cpu.rep_stos(LEAF_AT, 8, 512, VALUE),
    "stos down": lambda cpu: cpu.rep_stos(LEAF_AT + 512, 8, 24, VALUE, down=True),
    "stos over a page's end": lambda cpu: cpu.rep_stos(END, 8, 8, VALUE),
    "fill": lambda cpu: cpu.fill(LEAF_AT, 24, VALUE),
    "movs from RAM": lambda cpu: cpu.rep_movs(LEAF_AT, SOURCE_AT, 8, 8),
    "movs of bytes": lambda cpu: cpu.rep_movs(LEAF_AT, SOURCE_AT, 1, 64),
    "movs over a page's end": lambda cpu: cpu.rep_movs(END, SOURCE_AT, 8, 8),
    "movs from registers": lambda cpu: cpu.rep_movs(LEAF_AT, REGISTERS, 8, 8),
    "movs from registers, down": lambda cpu: cpu.rep_movs(LEAF_AT + 64, REGISTERS + 64, 8, 8, down=True),
    "movs from registers over a page's end": lambda cpu: cpu.rep_movs(END, REGISTERS, 8, 8),
    "vector": lambda cpu: cpu.store_bytes(LEAF_AT, VALUE.to_bytes(8, "little") * 8),
}


@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("flavour", "paging"), USABLE, ids=[f"{name} {paging}" for name, paging in USABLE])
def test_the_guest_lives(flavour: str, paging: Paging, case: str, sync: Sync) -> None:
    later = [(LEAF_AT + 800, 21 * PAGE_SIZE | TABLE), (OTHER * PAGE_SIZE + 800, 22 * PAGE_SIZE | TABLE)]

    def submit(cpu: Vcpu) -> None:
        cpu.mmio_write(DEFAULT_BAR0 + TLB_INVALIDATE[0], 4, TLB_BIT)

    def program(cpu: Vcpu) -> None:
        for table in (ROOT, POINTERS, DIRECTORY):
            cpu.store(table * PAGE_SIZE, 8, (table + 1) * PAGE_SIZE | TABLE)
        cpu.store(DIRECTORY * PAGE_SIZE + 8, 8, OTHER * PAGE_SIZE | TABLE)
        cpu.mmio_write(DEFAULT_BAR0 + reg.PDP0, 8, ROOT * PAGE_SIZE)
        cpu.mmio_write(DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, reg.Notification.PPGTT_L4_CREATE)
        for _ in range(lib.XD_CALM + 1):
            submit(cpu)
        for _ in range(3):  # protected, protected or unsynced, unsynced
            CASES[case](cpu)
            submit(cpu)
        for address, value in later:
            cpu.store(address, 8, value)

    with (
        EmbeddedDomain(FRAMES, 1, flavour, rep_stores=True, paging=paging) as domain,
        open_instance(domain.port(), Settings(sync=sync)) as instance,
    ):

        async def serve() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(instance.loop.serve)
                domain.start(0, program)
                assert await trio.to_thread.run_sync(domain.join, 60.0)
                nursery.cancel_scope.cancel()

        trio.run(serve)
        assert domain.crash_reason == ""
        assert domain.dropped_stores == 0
        assert all(domain.read_u64(address) == value for address, value in later)
        for space in instance.engine.spaces:
            complete(instance.engine.sync(space))
        assert audit_spaces(instance.engine) == 0
        assert bool(instance.stats.counters.opened_pages) == (sync is Sync.RELAXED)
