"""Lists, contexts and events, as a driver sees them."""

from __future__ import annotations

import pytest

from tests.support.gpu_bench import VA, Batches, GpuBench
from xengt_dm.sim import context as image
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BASES, BCS0, EXECLIST_STATUS, RCS0, VCS0, VECS0

ENGINES = [RCS0, BCS0, VCS0, VECS0]


def test_a_space_is_needed_for_nothing_that_is_in_the_ggtt() -> None:
    bench = GpuBench()
    context = bench.driver.context(RCS0)
    status = bench.take() * 4096
    address = bench.driver.bind([status // 4096])
    bench.execute(context, mi.store(address + 8, 0x1234, ggtt=True))
    assert bench.dword(status + 8) == 0x1234
    assert bench.driver.log[RCS0] == [(0x1, 32), (0x18, 32)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_stores_through_the_shadow(engine: int) -> None:
    batches = Batches(engine)
    batches.user(mi.store(Batches.DATA + 16, 0xCAFE))
    assert batches.value(16) == 0xCAFE
    assert batches.bench.driver.lists[engine].idle
    assert batches.bench.driver.interrupts == 1
    assert batches.bench.line.edges == 1
    assert batches.bench.register(BASES[engine] + EXECLIST_STATUS + 4) == 0


def test_two_elements_end_one_after_the_other() -> None:
    bench = GpuBench()
    first, second = bench.driver.context(RCS0), bench.driver.context(RCS0)
    page = bench.take()
    address = bench.driver.bind([page])
    first.emit(mi.store(address, 1, ggtt=True))
    second.emit(mi.store(address + 4, 2, ggtt=True))
    ids = bench.driver.submit(first, second)
    bench.settle()
    bench.driver.interrupt()
    assert bench.qword(page * 4096) == 2 << 32 | 1
    assert bench.driver.log[RCS0] == [(0x1, ids[0]), (0x14, ids[0]), (0x18, ids[1])]
    assert bench.driver.lists[RCS0].ended == [first, second]


def test_the_image_has_the_head_and_the_time_after_a_save() -> None:
    batches = Batches()
    context = batches.context
    context.write_image(image.CTX_TIMESTAMP, 100)
    batches.ring(mi.store(0, 0))
    assert context.read_image(image.HEAD) == context.tail
    assert context.read_image(image.TAIL) == context.tail
    assert context.read_image(image.CTX_TIMESTAMP) == 100  # no time has passed
    assert not context.read_image(image.CONTEXT_CONTROL) & image.RESTORE_INHIBIT


def test_the_ring_wraps() -> None:
    batches = Batches()
    for round_ in range(40):
        batches.ring(*[mi.store(0x1000 + 4 * i, round_) for i in range(128)])
    context = batches.context
    assert context.read_image(image.HEAD) == context.tail
    batches.user(mi.store(Batches.DATA, 7))
    assert batches.value() == 7


def test_a_lite_restore_goes_on_with_the_new_tail() -> None:
    batches = Batches()
    bench, context = batches.bench, batches.context
    # The batch does not end before the CPU lets it.
    bench.write_dwords(batches.more, 0xFFFFFFFF)
    spin: list[list[int] | int] = [mi.ARB_CHECK, mi.end_if_not_above(Batches.MORE, 5), mi.batch_start(VA)]
    bench.write_dwords(batches.batch, *spin)
    context.emit(mi.batch_start(VA))
    ids = bench.driver.submit(context)
    bench.run()
    bench.driver.interrupt()
    assert bench.driver.log[RCS0] == [(0x1, ids[0])]
    address = bench.driver.bind([batches.data // 4096])
    context.emit(mi.store(address, 0x77, ggtt=True))
    ids += bench.driver.submit(context)
    bench.run()
    bench.driver.interrupt()
    assert bench.driver.log[RCS0][1:] == [(0x8002, ids[1])]
    assert batches.value() == 0
    bench.store(batches.more, 4, 5)
    bench.settle()
    bench.driver.interrupt()
    assert batches.value() == 0x77
    assert bench.driver.log[RCS0][2:] == [(0x18, ids[1])]


def test_a_list_with_another_context_waits_for_the_running_one() -> None:
    batches = Batches()
    bench = batches.bench
    bench.write_dwords(batches.more, 0xFFFFFFFF)
    bench.write_dwords(batches.batch, mi.end_if_not_above(Batches.MORE, 5), mi.batch_start(VA))
    batches.context.emit(mi.batch_start(VA))
    bench.driver.submit(batches.context)
    bench.run()
    bench.driver.interrupt()
    other = bench.driver.context(RCS0)
    other.emit(mi.NOOP)
    running, pending = bench.driver.log[RCS0][0].context, bench.driver.submit(other)[0]
    bench.run()
    assert bench.register(BASES[RCS0] + EXECLIST_STATUS + 4) == running
    bench.store(batches.more, 4, 0)
    bench.settle()
    bench.driver.interrupt()
    assert bench.driver.log[RCS0] == [(0x1, running), (0x18, running), (0x1, pending), (0x18, pending)]
