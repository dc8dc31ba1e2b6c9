"""Contexts: what each has for itself, how it is restored and saved, and what a driver's image says."""

from __future__ import annotations

import pytest

from tests.support.gpu_bench import Batches, GpuBench
from tests.support.tables import FRAME
from xengt_dm.sim import context as image
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BASES, BCS0, RCS0, VCS0, Context
from xengt_dm.vgpu.registers import skylake
from xengt_dm.vgpu.registers.register import EXTRA

DATA = Batches.DATA
#: The registers that contexts of the render engine have besides those in i915's list: offset, a value that it can hold.
EXTRAS = [
    (offset, (row.writable >> 8 * (offset - row.offset) & (0xFFFF if row.masked else 0xFFFFFFFF)) & 0x5A5A5A5A, row)
    for row in skylake.REGISTERS
    if row.context == EXTRA and row.block == "rcs0"
    for offset in range(row.offset, row.end, 4)
]


def load_extras(values: dict[int, int]) -> list[int]:
    masked = {offset for offset, _, row in EXTRAS if row.masked}
    pairs = [(offset, 0xFFFF0000 | value if offset in masked else value) for offset, value in values.items()]
    return [dword for at in range(0, len(pairs), 60) for dword in mi.load_immediate(*pairs[at : at + 60])]


def read_extras(bench: GpuBench, context: Context, data: int) -> dict[int, int]:
    """What a context has in its registers, as it stores them to the page at ``data``."""
    address = bench.driver.bind([data // FRAME])
    stores = [mi.store_register(offset, address + 4 * i, ggtt=True) for i, (offset, _, _) in enumerate(EXTRAS)]
    bench.execute(context, *stores)
    return {offset: bench.dword(data + 4 * i) for i, (offset, _, _) in enumerate(EXTRAS)}


def test_each_context_has_registers_of_its_own() -> None:
    one = Batches()
    bench = one.bench
    inherited = default_image(bench, RCS0)
    first = bench.driver.context(RCS0, one.space.root, inherited)
    second = bench.driver.context(RCS0, one.space.root, inherited)
    fresh = read_extras(bench, second, one.more)
    wanted = {offset: value for offset, value, _ in EXTRAS}
    bench.execute(first, load_extras(wanted))
    assert read_extras(bench, second, one.more) == fresh
    assert read_extras(bench, first, one.more) == wanted
    assert wanted != fresh


def default_image(bench: GpuBench, engine: int) -> list[int]:
    """The registers of a default image, as a driver records it from the first context of an engine."""
    context = bench.driver.context(engine)
    bench.execute(context, mi.NOOP, mi.NOOP)
    return context.registers()


def test_a_virgin_context_gets_reset_values() -> None:
    one = Batches()
    bench = one.bench
    before = read_extras(bench, bench.driver.context(RCS0), one.more)
    bench.execute(one.context, load_extras({offset: value for offset, value, _ in EXTRAS}))
    bench.execute(one.context, mi.load_immediate((0x2600, 7), (0x2678, 9)))
    virgin = bench.driver.context(RCS0)
    assert read_extras(bench, virgin, one.more) == before
    address = bench.driver.bind([one.data // FRAME])
    bench.execute(bench.driver.context(RCS0), mi.store_register(0x2600, address, ggtt=True))
    assert one.value() == 0


@pytest.mark.parametrize("engine", [RCS0, BCS0, VCS0])
def test_general_registers_survive_a_switch(engine: int) -> None:
    one = Batches(engine)
    bench = one.bench
    gpr = one.base + 0x600
    bench.execute(one.context, mi.load_immediate((gpr + 8, 0x1111), (gpr + 12, 0x2222)))
    other = bench.driver.context(engine)
    bench.execute(other, mi.load_immediate((gpr + 8, 0x3333)))
    one.user(mi.store_register(gpr + 8, DATA), mi.store_register(gpr + 12, DATA + 4))
    assert (one.value(), one.value(4)) == (0x1111, 0x2222)


def test_a_save_leaves_alone_what_the_driver_alone_says() -> None:
    one = Batches()
    context = one.context
    context.write_image(image.INDIRECT_CTX_OFFSET, 0x980)
    mine = [image.TAIL, image.START, image.CTL, 0x19, image.INDIRECT_CTX, image.INDIRECT_CTX_OFFSET]
    mine += range(image.PDP3_UDW, image.PDP0_LDW + 1, 2)
    changes = mi.load_immediate(*((BASES[RCS0] + 0x270 + 4 * i, 0x5000 * i) for i in range(8)))
    context.emit(changes, mi.load_immediate((BASES[RCS0] + 0x1C4, 0), (BASES[RCS0] + 0x1C8, 0)))
    before = {at: context.read_image(at) for at in mine}
    before[image.TAIL] = context.tail
    one.bench.execute(context)
    assert one.bench.register(BASES[RCS0] + 0x27C) == 0xF000
    assert {at: context.read_image(at) for at in mine} == before


def test_the_time_of_a_context_passes_while_it_runs() -> None:
    one = Batches()
    bench = one.bench
    one.context.write_image(image.CTX_TIMESTAMP, 1000)
    one.user(mi.semaphore_wait(Batches.MORE, 1, 4), settle=False)
    bench.pass_time(5_000_000)
    bench.store(one.more, 4, 1)
    bench.settle()
    assert one.context.read_image(image.CTX_TIMESTAMP) == 1000 + 5 * 12000
    bench.pass_time(5_000_000)
    bench.execute(one.context, mi.store_register(0x23A8, bench.driver.bind([one.data // FRAME]), ggtt=True))
    assert one.value() == 1000 + 5 * 12000


def test_the_indirect_batch_runs_between_the_two_parts_of_a_restore() -> None:
    one = Batches()
    bench = one.bench
    inherited = default_image(bench, RCS0)
    context = bench.driver.context(RCS0, one.space.root, inherited)
    bench.execute(context, mi.load_immediate((0x7034, 0x4)))
    page = bench.take()
    batch = bench.driver.bind([page])
    address = bench.driver.bind([one.data // FRAME])
    # It loads a register of the ring part, and one of the rest, which its own value overwrites afterwards.
    commands: list[list[int] | int] = [
        mi.store_register(0x2600, address, ggtt=True),
        mi.load_immediate((0x2600, 0x99), (0x7034, 0x99)),
        *[mi.NOOP] * 7,
    ]
    bench.write_dwords(page * FRAME, *commands)
    assert sum(len(each) if isinstance(each, list) else 1 for each in commands) == 16
    context.write_image(image.GPR0, 0x77)
    context.write_image(image.INDIRECT_CTX, batch | 1)
    context.write_image(image.INDIRECT_CTX_OFFSET, image.INDIRECT_OFFSET)
    stores = [mi.store_register(each, address + 4 + 4 * i, ggtt=True) for i, each in enumerate((0x2600, 0x7034))]
    bench.execute(context, *stores)
    assert [one.value(4 * i) for i in range(3)] == [0x77, 0x99, 0x4]


def test_a_store_to_another_contexts_image_is_seen_at_its_next_restore() -> None:
    one = Batches()
    bench = one.bench
    other = bench.driver.context(RCS0)
    bench.execute(other, mi.NOOP, mi.NOOP)
    power = other.address + FRAME + 4 * image.POWER_STATE
    one.ring(mi.store(power, 0x80081, ggtt=True))
    address = bench.driver.bind([one.data // FRAME])
    bench.execute(other, mi.store_register(0x20C8, address, ggtt=True))
    assert one.value() == 0x80081


def test_an_image_that_is_not_there() -> None:
    bench = GpuBench()
    engine = bench.driver
    for low in (0x3FF00019, 0xFFFFF019, 0x00000019):
        engine.lists[RCS0].submit([low])
        engine.write_list(RCS0, [(low, 32)])
        bench.settle()
        engine.interrupt()
    assert engine.lists[RCS0].ended == [0x3FF00019, 0xFFFFF019, 0x00000019]


def test_a_ring_in_its_own_image() -> None:
    """It executes its registers as commands: whatever that is, it ends or stops."""
    bench = GpuBench()
    context = bench.driver.context(RCS0)
    context.write_image(image.START, context.address)
    context.tail = 2 * FRAME
    context.write_image(image.CTL, 3 * FRAME | 1)
    bench.driver.submit(context)
    bench.run(50)
    assert bench.engines.is_idle(RCS0) or bench.pointer.engines[RCS0].reason in (2, 6)
