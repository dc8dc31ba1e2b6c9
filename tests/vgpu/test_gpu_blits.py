"""Blits as commands: through the tables of the batch, in slices, into tables. What they draw: tests/vgpu/blit."""

from __future__ import annotations

import pytest

from tests.support.gpu_bench import VA, Batches
from tests.support.tables import FRAME
from tests.vgpu.test_gpu_tables import check
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BCS0

DATA, MORE = Batches.DATA, Batches.MORE
#: 32 bits a pixel; fill with the colour, and copy.
_FILL, _COPY = 3 << 24 | 0xF0 << 16, 3 << 24 | 0xCC << 16


def fill(address: int, width: int, height: int, pitch: int, colour: int) -> list[int]:
    """XY_COLOR_BLT of a rectangle at (0, 0)."""
    rectangle = [0, height << 16 | width]
    return [2 << 29 | 0x50 << 22 | 3 << 20 | 5, _FILL | pitch, *rectangle, *mi.split(address), colour]


def copy(target: int, source: int, width: int, height: int, pitch: int) -> list[int]:
    """XY_SRC_COPY_BLT of a rectangle at (0, 0)."""
    header = 2 << 29 | 0x53 << 22 | 3 << 20 | 8
    rectangle = [0, height << 16 | width]
    return [header, _COPY | pitch, *rectangle, *mi.split(target), 0, pitch, *mi.split(source)]


@pytest.fixture
def one() -> Batches:
    return Batches(BCS0)


def test_a_batch_fills_and_copies(one: Batches) -> None:
    one.user(fill(DATA, 16, 4, 64, 0x11223344), copy(MORE, DATA, 16, 4, 64), mi.store(DATA, 5))
    assert one.bench.guest.memory[one.more : one.more + 260] == b"\x44\x33\x22\x11" * 64 + bytes(4)
    assert one.value() == 5


def test_in_the_ring_addresses_are_of_the_space(one: Batches) -> None:
    one.ring(fill(DATA, 4, 1, 64, 0x77))
    assert one.value() == 0x77


def test_a_batch_with_privilege_reaches_the_ggtt(one: Batches) -> None:
    gfn = one.bench.take()
    batch = one.bench.driver.bind([gfn])
    one.bench.write_dwords(gfn * FRAME, fill(one.bench.driver.bind([one.data // FRAME]), 4, 1, 64, 0x78), mi.BATCH_END)
    one.ring(mi.batch_start(batch, ppgtt=False))
    assert one.value() == 0x78


def test_a_long_blit_leaves_turns_to_others(one: Batches) -> None:
    bench = one.bench
    pages = [bench.page(one.space, VA + (16 + i) * FRAME) for i in range(256)]
    bench.write_dwords(one.batch, fill(VA + 16 * FRAME, 1024, 256, FRAME, 0x5A5A5A5A), mi.store(DATA, 1), mi.BATCH_END)
    one.context.emit(mi.batch_start(VA))
    bench.driver.submit(one.context)
    filled = [bench.dword(page) for page in pages].count(0x5A5A5A5A)
    assert 0 < filled < 256
    assert bench.engines.due() == 0
    bench.attach()
    bench.settle()
    bench.driver.interrupt()
    assert [bench.dword(page + FRAME - 4) for page in pages] == [0x5A5A5A5A] * 256
    assert one.value() == 1
    assert bench.driver.lists[BCS0].idle


def test_a_copy_into_a_table(one: Batches) -> None:
    bench = one.bench
    table = one.space.entry_of(VA) // FRAME
    one.space.map(VA + 16 * FRAME, table)
    other = bench.take()
    # The new table is as the old one, but for the page of the data.
    bench.write_dwords(one.more, *(bench.dword(table * FRAME + 4 * i) for i in range(1024)))
    bench.write_dwords(one.more + (DATA >> 12 & 511) * 8, other * FRAME | 3)
    flush = [0x26 << 23 | 1 << 18 | 2, 0, 0, 0]
    one.user(copy(VA + 16 * FRAME, MORE, 1024, 1, FRAME), flush, mi.store(DATA, 0x33))
    assert (one.value(), bench.dword(other * FRAME)) == (0, 0x33)
    check(bench)


def test_a_blit_that_makes_no_sense_is_an_error(one: Batches) -> None:
    one.user([2 << 29 | 0x50 << 22 | 1, 0, 0], settle=False)
    assert one.bench.register(0x220B0) == 1
