"""A process is killed after an instruction of a blit, and another one that has its state and its memory goes on.

The end must be that of a blit without a kill, also if the destination is an operand (then a span that was done twice
would show) and if source and destination overlap.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import random
import sys
from dataclasses import dataclass

import pytest

from tests.single_step.forked import run_until
from tests.support.tables import FRAME
from tests.vgpu.blit.commands import corner, halves
from tests.vgpu.blit.world import REGION_STARTS, Blitter, Guest
from xengt_dm._core import ffi, lib

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="single steps are made for x86-64"
)

START, OTHER = REGION_STARTS[:2]
#: How many instructions of each case a usual run looks at.
POINTS = 30


@dataclass(frozen=True)
class Case:
    name: str
    dwords: list[int]
    swctrl: int = 0


def src_copy(
    raster: int, rectangle: tuple[int, int, int, int], source: tuple[int, int], to: int, other: int
) -> list[int]:
    x1, y1, x2, y2 = rectangle
    head = [2 << 29 | 0x53 << 22 | 3 << 20 | 8, 3 << 24 | raster << 16 | 1024]
    return [*head, corner(x1, y1), corner(x2, y2), *halves(to), corner(*source), 1024, *halves(other)]


def color(mask: int) -> list[int]:
    head = [
        2 << 29 | 0x50 << 22 | mask << 20 | 1 << 11 | 5,
        3 << 24 | 0x5A << 16 | 512 // 4,
        corner(3, 6),
        corner(20, 10),
    ]
    return [*head, *halves(START), 0x12345678]


def fast_copy() -> list[int]:
    """Out of Y tiles into rows: several spans have their source read at once."""
    head = [2 << 29 | 0x42 << 22 | 2 << 20 | 8, 3 << 24 | 600, corner(1, 0), corner(140, 12)]
    return [*head, *halves(START), corner(3, 2), 1024 // 4, *halves(OTHER)]


CASES = (
    Case("xor into itself, overlapping", src_copy(0x66, (5, 4, 35, 7), (2, 3), START, START)),
    Case("copy into itself, overlapping", src_copy(0xCC, (5, 4, 35, 7), (2, 3), START, START)),
    Case("xor, across pages", src_copy(0x66, (1010, 0, 1040, 2), (3, 0), START + 24, OTHER)),
    Case("xor within Y tiles", src_copy(0x66, (5, 4, 40, 8), (2, 3), START, START), swctrl=3),
    Case("xor of colours, X tiles", color(1)),
    Case("xor of rows into Y tiles", src_copy(0x66, (5, 4, 40, 8), (2, 3), START, OTHER), swctrl=2),
    Case("copy of Y tiles into rows", fast_copy()),
)


class Shared(Blitter):
    """A blitter whose state is shared with the processes that are forked, as guest memory is."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self._state = mmap.mmap(-1, 2 * FRAME)
        view = ffi.from_buffer(self._state)
        self.blit = ffi.cast("xd_blit *", view)
        self.bounce = ffi.cast("uint8_t *", view) + FRAME

    def keep(self) -> tuple[bytes, bytes]:
        return bytes(self._state), bytes(self.guest.bench.memory)

    def set(self, kept: tuple[bytes, bytes]) -> None:
        self._state[:], self.guest.bench.memory[:] = kept


def run(blitter: Shared) -> None:
    assert not blitter.turn(1 << 40)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kills(case: Case, stepping: ctypes.CDLL) -> None:
    rng = random.Random(7)
    guest = Guest(rng, chunks=1)
    guest.map_region(START)
    guest.map_region(OTHER)
    blitter = Shared(guest)
    assert blitter.begin(case.dwords, case.swctrl) == lib.XD_BLIT_RUN
    begun = blitter.keep()
    steps = run_until(stepping, lib.xd_blit_run, lambda: run(blitter), 0)
    assert steps is not None
    expected = blitter.keep()[1]
    assert expected != begun[1]
    points = sorted(rng.sample(range(1, steps), min(steps - 1, POINTS)))
    middle = 0
    for after in points:
        blitter.set(begun)
        if run_until(stepping, lib.xd_blit_run, lambda: run(blitter), after) is not None:
            break  # translations are cached now, so there are fewer instructions than before
        middle += bool(blitter.blit.cursor >> 63)
        lib.xd_gm_drop(blitter.memory)
        blitter.finish()
        assert blitter.keep()[1] == expected, f"killed after {after} of {steps} instructions"
    assert middle, "hardly one was killed while a span was being written"
