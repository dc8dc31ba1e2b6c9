"""The GPU stores to page tables, frames come and go, and each access is to what the tables say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.engine_bench import audit, unsynced_frames
from tests.support.gpu_bench import VA, Batches, GpuBench
from tests.support.tables import FRAME
from xengt_dm._core import lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode, Space, SpaceKey
from xengt_dm.sim import context as image
from xengt_dm.sim import mi
from xengt_dm.sim.driver import RCS0, VCS0
from xengt_dm.steps import Steps
from xengt_dm.vgpu.engines import CoreEngines

DATA = Batches.DATA


def check(bench: GpuBench) -> None:
    """The shadows are what the guest's tables say, and the engine's own records are right."""
    for space in bench.tables.spaces:
        assert audit(bench.tables, space) == (0, 0)
    assert bench.tables.check() == []


@pytest.mark.parametrize("sync", Sync)
def test_a_store_to_a_leaf_table_of_its_own_space(sync: Sync) -> None:
    one = Batches(bench=GpuBench(sync=sync))
    bench = one.bench
    other = bench.take()
    table = one.space.entry_of(VA)
    one.space.map(VA + 16 * FRAME, table // FRAME)
    entry = VA + 16 * FRAME + (DATA >> 12 & 511) * 8
    one.user(mi.store_qwords(entry, other * FRAME | 3), mi.pipe_control(mi.TLB_INVALIDATE), mi.store(DATA, 0x11))
    assert bench.dword(other * FRAME) == 0x11
    assert one.value() == 0
    check(bench)


@pytest.mark.parametrize("sync", Sync)
def test_a_store_of_half_an_entry(sync: Sync) -> None:
    one = Batches(bench=GpuBench(sync=sync))
    bench = one.bench
    other = bench.take()
    table = one.space.entry_of(VA)
    one.space.map(VA + 16 * FRAME, table // FRAME)
    entry = VA + 16 * FRAME + (DATA >> 12 & 511) * 8
    one.user(mi.store(entry, other * FRAME | 3), mi.pipe_control(mi.TLB_INVALIDATE), mi.store(DATA, 0x11))
    assert bench.dword(other * FRAME) == 0x11
    check(bench)


@pytest.mark.parametrize("sync", Sync)
def test_stores_that_link_tables_one_after_the_other(sync: Sync) -> None:
    one = Batches(bench=GpuBench(sync=sync))
    bench = one.bench
    directory = one.space._tables[3, VA >> 30]
    one.space.map(VA + 16 * FRAME, directory)
    tables = [bench.take() for _ in range(4)]
    pages = [bench.take() for _ in range(4)]
    for table, page in zip(tables, pages, strict=True):
        bench.write_dwords(table * FRAME, *mi.split(page * FRAME | 3))
    first = (VA >> 21 & 511) + 1
    links = mi.store_qwords(VA + 16 * FRAME + 8 * first, *(table * FRAME | 3 for table in tables))
    stores = [mi.store(VA + (i + 1 << 21), 0x40 + i) for i in range(4)]
    one.user(links, mi.pipe_control(mi.TLB_INVALIDATE), *stores)
    assert [bench.dword(page * FRAME) for page in pages] == [0x40, 0x41, 0x42, 0x43]
    leaves = unsynced_frames(bench.tables) if sync is Sync.RELAXED else bench.guest.protected
    assert set(tables) <= leaves
    check(bench)


@pytest.mark.parametrize("sync", Sync)
def test_a_store_to_a_table_of_another_space(sync: Sync) -> None:
    bench = GpuBench(sync=sync)
    one, two = Batches(bench=bench), Batches(VCS0, bench)
    other = bench.take()
    one.space.map(VA + 16 * FRAME, two.space.entry_of(VA) // FRAME)
    one.user(mi.store_qwords(VA + 16 * FRAME + (DATA >> 12 & 511) * 8, other * FRAME | 3))
    two.user(mi.store(DATA, 0x22))
    assert bench.dword(other * FRAME) == 0x22
    assert two.value() == 0
    check(bench)


@pytest.mark.parametrize("sync", Sync)
def test_a_page_that_the_cpu_maps_between_two_batches(sync: Sync) -> None:
    one = Batches(bench=GpuBench(sync=sync))
    one.user(mi.store(DATA, 1))
    gpa = one.bench.page(one.space, DATA)
    one.user(mi.store(DATA, 2))
    assert (one.value(), one.bench.dword(gpa)) == (1, 2)


@pytest.mark.parametrize("sync", Sync)
def test_a_table_is_read_anew_at_each_submission(sync: Sync) -> None:
    one = Batches(bench=GpuBench(sync=sync))
    for i in range(4):
        gpa = one.bench.page(one.space, DATA)
        one.user(mi.store(DATA, i + 1))
        assert one.bench.dword(gpa) == i + 1


@pytest.mark.parametrize("sync", Sync)
def test_a_space_that_nobody_announced(sync: Sync) -> None:
    one = Batches(bench=GpuBench(sync=sync))
    bench = one.bench
    space = bench.space(announced=False)
    batch, data = bench.page(space, VA), bench.page(space, DATA)
    context = bench.driver.context(RCS0, space.root)
    bench.write_dwords(batch, mi.store(DATA, 0x31), mi.BATCH_END)
    tables = bench.tables.counters.tables
    bench.execute(context, mi.batch_start(VA))
    assert bench.dword(data) == 0x31
    assert bench.tables.counters.tables == tables
    check(bench)


def test_a_root_that_is_no_ram() -> None:
    bench = GpuBench()
    context = bench.driver.context(RCS0, 0x7FFFF)
    page = bench.take()
    address = bench.driver.bind([page])
    bench.execute(context, mi.store(0x1000, 1), mi.store(address, 2, ggtt=True))
    assert bench.dword(page * FRAME) == 2
    assert bench.register(0x4094) & 1


def test_frames_that_the_guest_gave_back_get_no_store() -> None:
    one = Batches()
    bench = one.bench
    one.user(mi.store(DATA, 1))
    gfn = one.data // FRAME
    bench.guest.remove(gfn)
    bench.tables.frames_changed()
    one.user(mi.store(DATA, 2), mi.store(Batches.MORE, 3))
    assert one.value() == 0
    assert bench.dword(one.more) == 3
    bench.guest.add(gfn)
    one.user(mi.store(DATA, 4))
    assert one.value() == 4


def test_frames_that_go_while_a_batch_runs() -> None:
    one = Batches()
    bench = one.bench
    bench.write_dwords(one.more, 0xFFFFFFFF)
    spin = VA + 0x100
    loop = [mi.end_if_not_above(Batches.MORE, 5), mi.store(DATA, 7), mi.batch_start(spin)]
    bench.write_dwords(one.batch + 0x100, *loop)
    one.context.emit(mi.batch_start(spin))
    bench.driver.submit(one.context)
    for _ in range(3):
        bench.engines.run()
    assert one.value() == 7
    bench.guest.remove(one.data // FRAME)
    bench.tables.frames_changed()
    for _ in range(5):
        bench.engines.run()
    assert one.value() == 0
    bench.store(one.more, 4, 0)
    bench.settle()
    bench.driver.interrupt()
    assert bench.driver.lists[RCS0].idle


def test_a_quota_that_is_too_small_for_both_spaces() -> None:
    bench = GpuBench(max_tables=6)
    one, two = Batches(bench=bench), Batches(VCS0, bench)
    for i in range(3):
        one.user(mi.store(DATA, i + 1))
        two.user(mi.store(DATA, i + 5))
        assert (one.value(), two.value()) == (i + 1, i + 5)


@pytest.mark.parametrize("sync", Sync)
def test_a_space_that_loses_its_shadow_while_its_context_waits(sync: Sync) -> None:
    bench = GpuBench(max_tables=6, sync=sync)
    one, two = Batches(bench=bench), Batches(VCS0, bench)
    one.user(mi.semaphore_wait(Batches.MORE, 1, 4), mi.store(DATA, 1), settle=False)
    two.user(mi.store(DATA, 2), settle=False)
    assert not bench.tables.space((one.space.root * FRAME,)).shadowed
    bench.store(one.more, 4, 1)
    bench.settle()
    assert (one.value(), two.value()) == (1, 2)


@pytest.mark.parametrize("invalidates", [True, False])
def test_a_flush_that_invalidates_has_tables_read_again(invalidates: bool) -> None:
    one = Batches(bench=GpuBench(sync=Sync.RELAXED))
    bench = one.bench
    flush = mi.pipe_control(mi.TLB_INVALIDATE) if invalidates else mi.NOOP
    one.user(mi.store(DATA, 1), mi.semaphore_wait(Batches.MORE, 1, 4), flush, mi.store(DATA, 2), settle=False)
    one.space.map(VA + 8 * FRAME, bench.take())
    new = bench.page(one.space, DATA)
    assert one.space.entry_of(VA) // FRAME in unsynced_frames(bench.tables)
    bench.store(one.more, 4, 1)
    bench.settle()
    assert (one.value(), bench.dword(new)) == ((1, 2) if invalidates else (2, 0))


@pytest.mark.parametrize("level", [1, 2])
def test_a_store_of_the_gpu_is_no_store_that_is_held(level: int) -> None:
    """Stores of vCPUs to some frame are held, until another frame has become plain memory. The GPU waits for nobody."""
    one = Batches()
    bench = one.bench
    table = one.space.entry_of(VA) // FRAME if level == 1 else one.space._tables[3, VA >> 30]
    one.space.map(VA + 16 * FRAME, table)
    other = bench.take()
    bench.tables.shadow.held = 1
    one.user(mi.store_qwords(VA + 16 * FRAME + 8 * 100, other * FRAME | 3))
    assert bench.tables.shadow.held == 1
    bench.tables.shadow.held = 0
    assert bench.qword(table * FRAME + 8 * 100) == other * FRAME | 3
    check(bench)


class Stubborn:
    """Page tables of which one is about to be updated whenever a sync of its space is over."""

    def __init__(self, bench: GpuBench, gfn: int) -> None:
        self._real = bench.tables.steps
        self._gfn = gfn

    def use(self, mode: Mode, roots: SpaceKey) -> Steps[Space]:
        space = yield from self._real.use(mode, roots)
        lib.xd_set_frame_unread(self._real.shadow, self._gfn)
        return space

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_a_miss_counts_after_syncs_in_vain() -> None:
    one = Batches()
    bench = one.bench
    stubborn = Stubborn(bench, one.space.entry_of(VA) // FRAME)
    bench.engines = CoreEngines(bench.gpu, stubborn, bench.line, lambda: bench.now)
    bench.device = bench.make_device()
    one.user(mi.store(VA + 9 * FRAME, 1), mi.copy(VA + 10 * FRAME, VA + 11 * FRAME), mi.store(DATA, 2))
    assert one.value() == 2
    assert bench.driver.lists[RCS0].idle


@pytest.mark.parametrize("sync", Sync)
def test_a_store_to_a_directory_inside_of_a_submission(sync: Sync) -> None:
    """It needs neither a sync nor a query, so C makes it, and Python has the tables follow."""
    one = Batches(bench=GpuBench(sync=sync))
    bench = one.bench
    directory = one.space._tables[3, VA >> 30]
    table, page = bench.take(), bench.take()
    bench.write_dwords(table * FRAME, *mi.split(page * FRAME | 3))
    slot = (VA >> 21 & 511) + 1
    address = bench.driver.bind([directory])
    one.user(mi.NOOP)
    one.ring(mi.store_qwords(address + 8 * slot, table * FRAME | 3, ggtt=True))
    assert table in (unsynced_frames(bench.tables) if sync is Sync.RELAXED else bench.guest.protected)
    check(bench)
    one.user(mi.store(VA + (1 << 21), 0x44))
    assert bench.dword(page * FRAME) == 0x44


def test_an_image_and_a_status_page_in_page_tables() -> None:
    """A driver that means harm has them there. All that is stored to them is in the shadow after the next sync."""
    bench = GpuBench()
    space = bench.space()
    root, directory = space.root, space.entry_of(0) and space._tables[3, 0]
    context = bench.driver.context(RCS0, root)
    for gfn in (root, directory):
        bench.driver.bind_at(context.address + FRAME, gfn << 12 | 1)
        bench.driver.write_list(RCS0, [(context.address | 0x119, 32)])
        bench.settle()
        check(bench)
    bench.driver.bind_at(context.address + FRAME, context.frames[1] << 12 | 1)
    for gfn in (root, directory):
        bench.driver.write(0x2080, bench.driver.bind([gfn]))
        context.emit(mi.NOOP, mi.NOOP)
        context.write_image(image.TAIL, context.tail)
        bench.driver.write_list(RCS0, [(context.address | 0x119, 32)])
        bench.settle()
        check(bench)
