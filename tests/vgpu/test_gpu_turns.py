"""Engines that wait, loop without end, or fail: what becomes of them and of the others."""

from __future__ import annotations

import pytest

from tests.support.gpu_bench import VA, Batches, GpuBench
from tests.support.tables import FRAME
from xengt_dm._core import lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.sim import context as image
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BASES, BCS0, EIR, ELSP, EMR, MI_MODE, RCS0, STOP_RING, VCS0, VECS0
from xengt_dm.steps import finish
from xengt_dm.vgpu.engines import NEVER, RETRY_NS

DATA, MORE = Batches.DATA, Batches.MORE
EXECLIST_STATUS_HI = 0x238


def spinner(one: Batches) -> None:
    """Start a batch that loops until the first dword of the second page is at most 5."""
    one.bench.write_dwords(one.more, 0xFFFFFFFF)
    one.bench.write_dwords(one.batch, mi.ARB_CHECK, mi.end_if_not_above(MORE, 5), mi.batch_start(VA))
    one.context.emit(mi.batch_start(VA))
    one.bench.driver.submit(one.context)


def test_a_spinner_costs_a_look_each_millisecond() -> None:
    one = Batches()
    bench = one.bench
    spinner(one)
    bench.run()
    for _ in range(5):
        assert bench.engines.due() == bench.now + RETRY_NS
        before = bench.pointer.counts.commands
        assert bench.run() == 0
        bench.pass_time(RETRY_NS)
        assert bench.run() == 1
        assert bench.pointer.counts.commands - before <= 3


def test_spinners_leave_the_other_engines_alone() -> None:
    bench = GpuBench()
    all_of_them = [Batches(engine, bench) for engine in (RCS0, BCS0, VCS0, VECS0)]
    for one in all_of_them[:3]:
        spinner(one)
    bench.run()
    all_of_them[3].user(mi.store(DATA, 1), settle=False)
    assert all_of_them[3].value() == 1
    assert bench.driver.lists[VECS0].idle
    for one in all_of_them[:3]:
        assert not bench.driver.lists[one.engine].idle
        bench.store(one.more, 4, 0)
    bench.settle()
    bench.driver.interrupt()
    assert all(bench.driver.lists[one.engine].idle for one in all_of_them)


def test_a_loop_that_computes_is_no_spinner() -> None:
    one = Batches()
    gpr = one.base + 0x600
    minus_one = [(0x080, 0x20, 0), (0x080, 0x21, 1), (0x101, 0, 0), (0x180, 0, 0x31)]
    loop = VA + 0x100
    commands = [mi.math(*minus_one), mi.store_register(gpr, DATA), mi.end_if_not_above(DATA, 0), mi.batch_start(loop)]
    one.bench.write_dwords(one.batch + 0x100, *commands)
    one.user(mi.load_immediate((gpr, 3000), (gpr + 4, 0), (gpr + 8, 1), (gpr + 12, 0)), mi.batch_start(loop))
    assert one.value() == 0
    assert one.bench.now < 1_000_000_000 + RETRY_NS


def test_a_batch_that_never_ends_leaves_turns_to_others() -> None:
    bench = GpuBench()
    one, two = Batches(bench=bench), Batches(VCS0, bench)
    bench.write_dwords(one.batch, mi.store(DATA, 1), mi.batch_start(VA))
    one.context.emit(mi.batch_start(VA))
    bench.driver.submit(one.context)
    assert bench.engines.due() == 0
    two.user(mi.store(DATA, 2), settle=False)
    assert two.value() == 2
    before = bench.pointer.counts.commands
    bench.engines.run()
    assert bench.pointer.counts.commands - before < 10_000


@pytest.mark.parametrize(("how", "values"), list(enumerate([[5, 6], [4, 5], [5, 4], [6, 5], [4, 5], [5, 6]])))
def test_an_engine_waits_for_a_semaphore(how: int, values: list[int]) -> None:
    unmet, met = values
    bench = GpuBench()
    one = Batches(bench=bench)
    bench.write_dwords(one.more, unmet)
    bench.write_dwords(one.batch, mi.semaphore_wait(MORE, 5, how), mi.store(DATA, 1), mi.BATCH_END)
    one.context.emit(mi.batch_start(VA))
    bench.driver.submit(one.context)
    bench.run()
    assert one.value() == 0
    assert bench.register(0x44308) >> 11 & 1
    bench.store(one.more, 4, met)
    bench.settle()
    bench.driver.interrupt()
    assert one.value() == 1


def test_an_engine_that_waits_tells_once() -> None:
    one = Batches()
    bench = one.bench
    one.user(mi.semaphore_wait(MORE, 5, 4), settle=False)
    bench.driver.write(0x44308, 0xFFFFFFFF)
    for _ in range(5):
        bench.pass_time()
        bench.run()
    assert not bench.register(0x44308) >> 11 & 1


def test_engines_wait_for_each_other_without_a_timer() -> None:
    bench = GpuBench()
    one, two = Batches(bench=bench), Batches(BCS0, bench)
    two.space.map(MORE, one.more // FRAME)
    bench.write_dwords(one.batch, *ping(1, 10), mi.BATCH_END)
    bench.write_dwords(two.batch, *ping(2, 10), mi.BATCH_END)
    for each in (one, two):
        each.context.emit(mi.batch_start(VA))
        bench.driver.submit(each.context)
    before = bench.now
    bench.run()
    assert bench.dword(one.more) == 20
    assert bench.now == before
    bench.driver.interrupt()
    assert bench.driver.lists[RCS0].idle
    assert bench.driver.lists[BCS0].idle


def test_an_engine_goes_on_when_another_one_stores_inside_of_its_submission() -> None:
    bench = GpuBench()
    one = Batches(bench=bench)
    one.user(mi.semaphore_wait(MORE, 1, 4), mi.store(DATA, 1), settle=False)
    bench.run()
    assert bench.engines.due() > bench.now
    other = bench.driver.context(VCS0)
    other.emit(mi.store(bench.driver.bind([one.more // FRAME]), 1, ggtt=True))
    bench.driver.submit(other)
    assert bench.engines.is_idle(VCS0)
    bench.run()
    assert one.value() == 1


def test_two_submissions_wait_for_their_own_engines() -> None:
    """As those of two vCPUs that C serves in one look."""
    bench = GpuBench()
    both = [Batches(engine, bench) for engine in (RCS0, VCS0)]
    rest = []
    for one in both:
        bench.write_dwords(one.batch, mi.store(DATA, 0x10 + one.engine), mi.BATCH_END)
        one.context.emit(mi.batch_start(VA))
        one.context.write_image(image.TAIL, one.context.tail)
        for value in (0, 0, 32):
            bench.driver.write(one.base + ELSP, value)
        rest.append(bench.device.write(one.base + ELSP, 4, one.context.address | 0x119))
    for steps in rest:
        finish(steps)
    assert [one.value() for one in both] == [0x10 + RCS0, 0x10 + VCS0]


def test_a_submission_that_waits_for_the_sync_of_another_engine() -> None:
    """One sync is made at a time. Whoever waits for it in a register write lets it go on."""
    bench = GpuBench()
    both = [Batches(engine, bench) for engine in (RCS0, VCS0)]
    rest = []
    for one in both:
        space = bench.space(announced=False)
        for i, gpa in enumerate((one.batch, one.data)):
            space.map(VA + i * FRAME, gpa // FRAME)
        context = bench.driver.context(one.engine, space.root)
        bench.write_dwords(one.batch, mi.store(DATA, 0x20 + one.engine), mi.BATCH_END)
        context.emit(mi.batch_start(VA))
        context.write_image(image.TAIL, context.tail)
        for value in (0, 0, 32):
            bench.driver.write(one.base + ELSP, value)
        rest.append(bench.device.write(one.base + ELSP, 4, context.address | 0x119))
    first, second = rest
    assert first is not None
    next(first)  # it syncs, and a slice of that is made
    assert bench.tables.steps._syncer._syncing
    for _, _ in zip(range(1000), second or (), strict=False):
        pass
    assert both[1].value() == 0x20 + VCS0
    finish(first)
    assert both[0].value() == 0x20 + RCS0


def ping(which: int, rounds: int) -> list[list[int]]:
    """Wait for one number, store the next one; ``which`` of two is first or second."""
    commands = []
    for i in range(rounds):
        commands += [mi.semaphore_wait(MORE, 2 * i + which - 1, 4), mi.store(MORE, 2 * i + which)]
    return commands


@pytest.mark.parametrize("sync", Sync)
def test_a_batch_that_asks_for_help_without_end_leaves_turns_to_others(sync: Sync) -> None:
    """Each of its rounds has the space synced, and stores to a directory."""
    bench = GpuBench(sync=sync)
    one, two = Batches(bench=bench), Batches(VCS0, bench)
    one.space.map(VA + 16 * FRAME, one.space._tables[3, VA >> 30])
    store = mi.store_qwords(VA + 16 * FRAME + 8 * 100, 0)
    invalidate = mi.pipe_control(mi.TLB_INVALIDATE)
    one.user(store, invalidate, mi.store(DATA, 1), invalidate, store, mi.batch_start(VA), settle=False)
    for i in range(20):
        bench.engines.run()
        two.user(mi.store(DATA, i), settle=False)
        assert two.value() == i
        assert bench.engines.due() <= bench.now
    bench.driver.write(0x941C, 1 << 1)
    bench.settle()


def test_a_command_that_nobody_can_decode_stops_the_engine() -> None:
    one = Batches()
    bench = one.bench
    one.user(mi.store(DATA, 1), 0xDEADBEEF, mi.store(DATA, 2), settle=False)
    assert one.value() == 1
    assert bench.register(BASES[RCS0] + EIR) == 1
    assert bench.register(BASES[RCS0] + MI_MODE) & STOP_RING
    assert bench.register(BASES[RCS0] + EXECLIST_STATUS_HI) == bench.driver.log[RCS0][-1].context
    assert bench.engines.due() == NEVER


@pytest.mark.parametrize("masked", [False, True])
def test_an_error_is_an_event_unless_it_is_masked(masked: bool) -> None:
    one = Batches()
    bench = one.bench
    bench.driver.write(BASES[RCS0] + EMR, 0xFFFFFFFF if masked else 0xFFFFFFFE)
    one.context.emit(0xDEADBEEF)
    bench.driver.submit(one.context)
    assert bench.register(0x44308) >> 3 & 1 == (not masked)
    assert bench.register(BASES[RCS0] + EIR) == (not masked)


def test_an_engine_comes_back_from_a_reset() -> None:
    one = Batches()
    bench = one.bench
    other = Batches(VCS0, bench)
    spinner(other)
    one.user(0xDEADBEEF, settle=False)
    bench.driver.interrupt()
    events = len(bench.driver.log[RCS0])
    bench.driver.reset_engine(RCS0)
    assert len(bench.driver.log[RCS0]) == events
    assert bench.register(BASES[RCS0] + EXECLIST_STATUS_HI) == 0
    context = bench.driver.context(RCS0, one.space.root)
    bench.write_dwords(one.batch, mi.store(DATA, 3), mi.BATCH_END)
    bench.execute(context, mi.batch_start(VA), settle=False)
    assert one.value() == 3
    assert bench.driver.lists[RCS0].idle
    assert not bench.driver.lists[VCS0].idle


def test_a_spinner_is_stopped_and_goes_on() -> None:
    one = Batches()
    bench = one.bench
    spinner(one)
    bench.driver.interrupt()
    assert not bench.register(BASES[RCS0] + MI_MODE) & 0x200
    bench.driver.write(BASES[RCS0] + MI_MODE, STOP_RING << 16 | STOP_RING)
    assert bench.register(BASES[RCS0] + MI_MODE) & 0x200
    bench.store(one.more, 4, 0)
    bench.pass_time()
    bench.run()
    assert not bench.driver.process(RCS0)
    bench.driver.write(BASES[RCS0] + MI_MODE, STOP_RING << 16)
    bench.settle()
    bench.driver.interrupt()
    assert bench.driver.lists[RCS0].idle


def test_a_full_reset_ends_all_lists_without_an_event() -> None:
    bench = GpuBench()
    for engine in (RCS0, BCS0, VCS0, VECS0):
        spinner(Batches(engine, bench))
    bench.run()
    bench.driver.reset(1)
    bench.run()
    assert bench.engines.due() == NEVER
    assert all(len(log) <= 1 for log in bench.driver.log)
    assert all(bench.engines.is_idle(engine) for engine in range(4))


def test_lists_are_ignored_before_they_are_enabled() -> None:
    bench = GpuBench(start=False)
    for value in (0, 0, 32, 0x5019):
        bench.mmio_write(BASES[RCS0] + ELSP, 4, value)
    assert bench.engines.is_idle(RCS0)
    assert bench.pointer.counts.ignored == 1


def test_a_successor_goes_on_in_the_middle_of_a_batch() -> None:
    one = Batches()
    bench = one.bench
    bench.write_dwords(one.more, 0xFFFFFFFF)
    bench.write_dwords(one.batch, mi.end_if_not_above(MORE, 5), mi.batch_start(VA))
    one.context.emit(mi.batch_start(VA), mi.store_register(0x2600, 0))
    bench.driver.submit(one.context)
    bench.run()
    bench.attach()
    assert bench.engines.due() == 0
    bench.store(one.more, 4, 0)
    bench.settle()
    bench.driver.interrupt()
    assert bench.driver.lists[RCS0].idle
    one.user(mi.store(DATA, 5))
    assert one.value() == 5


def test_an_engine_state_fits_twice_in_a_page() -> None:
    assert 2 * lib.xd_engine_state_size() + 128 <= FRAME
