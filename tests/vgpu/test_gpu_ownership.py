"""Frames come and go under a running engine: no store is missed by the guest, and none goes to what it does not own."""

from __future__ import annotations

import random

import pytest

from tests.support.gpu_bench import VA, Batches, GpuBench
from tests.support.tables import FRAME
from tests.vgpu.test_gpu_live import Guest, running
from xengt_dm.hypervisor.embedded import Vcpu
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.sim import mi
from xengt_dm.sim.driver import RCS0
from xengt_dm.units import PAGE_SIZE

ROUNDS = 40
PAGES = 6
LIVE_VA = 0x7FFF_0000_0000


@pytest.mark.parametrize("sync", Sync)
def test_a_guest_gives_frames_back_while_its_gpu_stores_to_them(sync: Sync) -> None:
    """One vCPU has frames removed and added again while a batch stores to them. Afterwards each store arrives."""
    found: list[list[int]] = []
    shared: dict[str, list[int]] = {}

    def driver(vcpu: Vcpu) -> None:
        guest = Guest(vcpu)
        space, batch, gate = guest.space()
        frames = [guest.take() for _ in range(PAGES)]
        pages = [LIVE_VA + (8 + i) * PAGE_SIZE for i in range(PAGES)]
        for va, gfn in zip(pages, frames, strict=True):
            space.map(va, gfn)
        vcpu.store(gate, 4, 0xFFFFFFFF)
        loop = [command for va in pages for command in mi.store(va, 0xABCD)]
        guest.write(batch, loop, mi.end_if_not_above(LIVE_VA + PAGE_SIZE, 5), mi.batch_start(LIVE_VA))
        context = guest.driver.context(RCS0, space.root)
        context.emit(mi.batch_start(LIVE_VA))
        guest.driver.submit(context)
        shared["frames"] = frames
        while "done" not in shared:
            guest.driver.interrupt()
        vcpu.store(gate, 4, 0)
        guest.wait(RCS0)
        for value in (0x1111, 0x2222):
            commands = [command for va in pages for command in mi.store(va, value)]
            guest.write(batch, commands, mi.BATCH_END)
            context.emit(mi.batch_start(LIVE_VA))
            guest.driver.submit(context)
            guest.wait(RCS0)
            found.append([vcpu.load(gfn * PAGE_SIZE, 4) for gfn in frames])

    def balloon(vcpu: Vcpu) -> None:
        while "frames" not in shared:
            vcpu.load(PAGE_SIZE, 4)
        rng = random.Random(7)
        try:
            for _ in range(ROUNDS):
                gfn = rng.choice(shared["frames"])
                vcpu.remove(gfn, 1)
                vcpu.add(gfn, 1)
                assert vcpu.load(gfn * PAGE_SIZE, 4) in (0, 0xABCD)
        finally:
            shared["done"] = []

    with running(sync) as run:
        run(driver, balloon)
        assert found == [[0x1111] * PAGES, [0x2222] * PAGES]


def test_entries_of_all_kinds_reach_only_frames_of_the_guest() -> None:
    """Random entries in GGTT and PPGTT: every byte outside of the frames that are RAM stays as it is."""
    rng = random.Random(11)
    bench = GpuBench(512)
    one = Batches(bench=bench)
    holes = rng.sample(range(256, 512), 64)
    for gfn in holes:
        bench.guest.remove(gfn)
    pattern = bytes([0xEE]) * FRAME
    for gfn in holes:
        bench.guest.memory[gfn * FRAME : (gfn + 1) * FRAME] = pattern
    bench.tables.frames_changed()
    for _ in range(30):
        target = VA + (8 + rng.randrange(64)) * FRAME
        gfn = rng.choice([*holes, rng.randrange(256, 512), rng.randrange(1 << 27), 1 << 33])
        one.space.map(target, gfn & (1 << 34) - 1, rng.choice([0, 1, 3, 0x81, 0x83]))
        entry = rng.choice([*holes, rng.randrange(1 << 36)]) << 12 | 1
        bench.driver.bind_at(0x2000_0000, entry)
        one.user(mi.store(target + 8, 1), mi.store_qwords(target + 16, *range(20)), mi.atomic(4, target, 5))
        one.ring(mi.store(0x2000_0000 + 4 * rng.randrange(1024), 7, ggtt=True))
    assert all(bench.guest.memory[gfn * FRAME : (gfn + 1) * FRAME] == pattern for gfn in holes)
