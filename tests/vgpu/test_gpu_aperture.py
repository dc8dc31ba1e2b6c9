"""BAR2: memory by the GGTT's entries, and tiled surfaces by fences."""

from __future__ import annotations

import random

import pytest

from tests.support.gpu_bench import NOWHERE, GpuBench
from tests.support.tables import FRAME
from tests.vgpu.test_gpu_tables import check
from xengt_dm.sim.driver import FIRST_ADDRESS
from xengt_dm.steps import finish
from xengt_dm.vgpu.ggtt import FENCES, Aperture
from xengt_dm.vgpu.state import BAR0


class Window:
    """A bench, and its aperture with 4 fences."""

    def __init__(self) -> None:
        self.bench = GpuBench()
        self.aperture = Aperture(self.bench.gpu, self.bench.tables.steps, BAR0.of(self.bench.state), 4)

    def bind(self, count: int) -> tuple[int, list[int]]:
        """Bind fresh frames, which do not follow each other in memory."""
        frames = [self.bench.take() for _ in range(count)]
        random.Random(5).shuffle(frames)
        return self.bench.driver.bind(frames), frames

    def fence(self, number: int, first: int, pages: int, pitch: int, *, y_tiled: bool = False) -> None:
        value = (first + (pages - 1) * FRAME) << 32 | pitch // 128 - 1 << 32 | first | y_tiled << 1 | 1
        self.bench.mmio_write(FENCES + 8 * number, 8, value)

    def write(self, offset: int, size: int, value: int) -> None:
        finish(self.aperture.write(offset, size, value))


@pytest.fixture
def window() -> Window:
    return Window()


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_accesses_of_every_size(window: Window, size: int) -> None:
    address, frames = window.bind(2)
    value = 0x8877665544332211 & (1 << 8 * size) - 1
    for offset in (0, 24, 3, FRAME - size, FRAME - 1, 2 * FRAME - size):
        window.write(address + offset, size, value)
        assert window.aperture.read(address + offset, size) == value
    first = window.bench.guest.memory[frames[0] * FRAME + FRAME - 1]
    rest = window.bench.guest.memory[frames[1] * FRAME : frames[1] * FRAME + size - 1]
    assert bytes([first]) + rest == value.to_bytes(size, "little")


def test_what_is_not_bound_reads_as_zero(window: Window) -> None:
    window.write(FIRST_ADDRESS + (1 << 20), 4, 5)
    assert window.aperture.read(FIRST_ADDRESS + (1 << 20), 4) == 0
    window.bench.driver.bind_at(0, NOWHERE << 12 | 1)
    window.write(0, 4, 5)
    assert window.aperture.read(0, 4) == 0
    assert not window.bench.register(0x4094)


def test_a_store_to_a_table_is_followed(window: Window) -> None:
    bench = window.bench
    space = bench.space()
    page = bench.page(space, 0x5000)
    other = bench.take()
    address = bench.driver.bind([space.entry_of(0) // FRAME])
    window.write(address + 8 * 5, 8, other * FRAME | 3)
    shadow = bench.tables.space((space.root * FRAME,))
    assert bench.tables.resolve(shadow, 0x5000).gpa == other * FRAME != page
    check(bench)


@pytest.mark.parametrize("y_tiled", [False, True])
@pytest.mark.parametrize("pitch", [512, 1024, 2560])
def test_a_fence_shows_a_tiled_surface_row_by_row(window: Window, pitch: int, y_tiled: bool) -> None:
    rows = 64
    pages = pitch * rows // FRAME
    address, frames = window.bind(pages)
    window.fence(2, address, pages, pitch, y_tiled=y_tiled)
    width, height = (128, 32) if y_tiled else (512, 8)
    rng = random.Random(pitch)
    for _ in range(200):
        x, y = rng.randrange(pitch // 4) * 4, rng.randrange(rows)
        window.write(address + y * pitch + x, 4, y << 16 | x)
        # The drawing of a tile in the manuals: which tile, and where in it.
        tile = y // height * (pitch // width) + x // width
        in_x, in_y = x % width, y % height
        where = in_x // 16 * 512 + in_y * 16 + in_x % 16 if y_tiled else in_y * 512 + in_x
        assert window.bench.dword(frames[tile] * FRAME + where) == y << 16 | x
        assert window.aperture.read(address + y * pitch + x, 4) == y << 16 | x


def test_beside_a_fence_addresses_are_what_they_are(window: Window) -> None:
    address, frames = window.bind(4)
    window.fence(0, address + FRAME, 2, 512)
    for page, offset in ((0, 600), (3, 600)):
        window.write(address + page * FRAME + offset, 4, 7)
        assert window.bench.dword(frames[page] * FRAME + offset) == 7
