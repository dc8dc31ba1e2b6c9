"""A live engine, looked at: the same before as after, and what the engine has is shown."""

from __future__ import annotations

import pytest

from tests.support.gpu_bench import VA, Batches, GpuBench
from xengt_dm._core import ffi
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BCS0, RCS0
from xengt_dm.vgpu.decode import Item, Kind, Limits
from xengt_dm.vgpu.engine_view import EngineView
from xengt_dm.vgpu.listing import Section

LIMITS = Limits(10_000)


def look(bench: GpuBench, engine: int = RCS0, *, whole: bool = False) -> list[tuple[Section, list[Item]]]:
    found = EngineView(bench.pointer, engine).sections(whole, LIMITS)
    return [(section, list(section.items)) for section in found]


def names(items: list[Item]) -> list[str]:
    return [item.command.name if item.command else item.problem for item in items]


def test_an_engine_that_never_ran() -> None:
    ((section, items),) = look(GpuBench())
    assert section.title == "rcs0: idle"
    assert items == []


def test_an_engine_that_is_done_has_its_ring_still() -> None:
    world = Batches()
    world.ring(mi.store(world.DATA, 5), mi.USER_INTERRUPT)
    assert names(look(world.bench)[0][1]) == []
    ((section, items),) = look(world.bench, whole=True)
    assert section.title == "rcs0: idle"
    assert names(items)[:2] == ["MI_STORE_DATA_IMM", "MI_USER_INTERRUPT"]
    at = ffi.cast("uint32_t *", world.bench.pointer.registers + world.base + 0x3C)
    at[0] = at[0] & ~1  # a context without a ring was loaded
    assert look(world.bench, whole=True)[0][1] == [], "it has no ring any more"


def test_pages_are_read_from_where_each_of_them_is() -> None:
    world = Batches()
    far = world.data + 8 * 4096
    world.space.map(VA + 2 * 4096, far // 4096)
    world.user(mi.ARB_CHECK, mi.batch_start(VA), settle=False)
    world.bench.run()
    for number, page in enumerate((world.batch, world.data, far)):
        world.bench.write_dwords(page + 8, [number << 16 | i for i in range(1000)])
    memory = world.bench.guest.memory
    pages = b"".join(memory[page : page + 4096] for page in (world.batch, world.data, far))
    assert EngineView(world.bench.pointer, RCS0).read(True, VA + 8, len(pages) - 8) == pages[8:]


@pytest.mark.parametrize("engine", [RCS0, BCS0])
def test_an_engine_that_spins_in_a_batch(engine: int) -> None:
    world = Batches(engine)
    world.user(mi.ARB_CHECK, mi.ARB_CHECK, mi.batch_start(VA), settle=False)
    world.bench.run()
    sections = look(world.bench, engine)
    name = ("rcs0", "bcs0")[engine]
    assert f"{name}: context {world.context.address:#x}" in sections[0][0].title
    batch = [items for section, items in sections if "the batch of level 1" in section.title]
    assert {"MI_ARB_CHECK", "MI_BATCH_BUFFER_START"} <= set(names(batch[0]))
    assert all(item.ppgtt and VA <= item.address < VA + 20 for item in batch[0])
    assert (True, batch[0][0].address) in sections[0][0].marks
    start = world.bench.register(world.base + 0x38)
    assert start
    assert sections[0][0].marks[False, start + world.bench.register(world.base + 0x34)] == "level 0"
    image = sections[-1][1]
    assert sections[-1][0].title == f"{name}: the context image"
    assert {item.kind for item in image} == {Kind.IMAGE}
    assert "MI_LOAD_REGISTER_IMM" in names(image)


def test_looking_changes_nothing() -> None:
    world = Batches()
    world.user(mi.ARB_CHECK, mi.batch_start(VA), settle=False)
    world.bench.run()
    bench = world.bench
    before = bytes(bench.state), bytes(bench.guest.memory), bytes(ffi.buffer(bench.pointer))
    look(bench, whole=True)
    EngineView(bench.pointer, RCS0).read(True, 0x123456789000, 4096)
    assert (bytes(bench.state), bytes(bench.guest.memory), bytes(ffi.buffer(bench.pointer))) == before


def test_what_the_gpu_cannot_reach_is_not_there() -> None:
    world = Batches()
    world.user(mi.ARB_CHECK, mi.batch_start(VA), settle=False)
    world.bench.run()
    view = EngineView(world.bench.pointer, RCS0)
    assert len(view.read(True, VA, 5000)) == 5000
    assert len(view.read(True, VA + 3 * 4096 - 8, 4096)) == 8
    assert view.read(True, 1 << 40, 4096) == b""
    assert view.read(False, 0xFFFFF000, 4096) == b""
    assert view.read(False, 1 << 60, 4096) == b""
    assert view.read(True, VA, 0) == b""
    other = EngineView(world.bench.pointer, BCS0)
    assert other.read(True, VA, 4) == b"", "it has no space"
