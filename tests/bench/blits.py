"""Blits of 1 MiB between pages that lie scattered in the guest's memory, against memcpy of the same pages.

The blitter finds each page through the shadow, and goes through its bounce area, so it copies twice. Everything is in
one thread, and stays in the caches for both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tests.bench import reference
from tests.bench.measure import MICRO, Figure, Timed, best, cpu
from tests.support.tables import FRAME
from tests.vgpu.blit.commands import corner, halves
from tests.vgpu.blit.world import Blitter, Guest
from xengt_dm._core import ffi, lib
from xengt_dm.units import CData

PAGES = 256
#: The surface: 32-bit pixels, 4 KiB a row; in tiles, whole ones.
WIDTH, HEIGHT = 1024, PAGES
TO, FROM = 1 << 32, 1 << 33
COMMAND = 2 << 29
LINEAR, X, Y = "linear", "X", "Y"
TILINGS = {LINEAR: 0, X: 1, Y: 2, "Yf": 2, "Ys": 3}


def run(quick: bool) -> Iterator[Figure]:
    world = _World()
    rounds = 2 if quick else 400
    commands = {
        "copy": (_src_copy(0xCC), 2.0),
        "copy, fast": (_fast_copy(LINEAR, LINEAR), 2.0),
        "linear to X": (_fast_copy(X, LINEAR), 4.0),
        "linear to Y": (_fast_copy(Y, LINEAR), 4.0),
        "linear to Yf": (_fast_copy("Yf", LINEAR), 4.0),
        "linear to Ys": (_fast_copy("Ys", LINEAR), 4.0),
        "X to linear": (_fast_copy(LINEAR, X), 4.0),
        "Y to linear": (_fast_copy(LINEAR, Y), 4.0),
        "X to X": (_fast_copy(X, X), 4.0),
        "Y to Y": (_fast_copy(Y, Y), 4.0),
        "X to Y": (_fast_copy(Y, X), 4.0),
        "xor": (_src_copy(0x66), None),
        "fill": (_fill(), None),
    }
    blits = [world.timed(dwords) for dwords, _ in commands.values()]
    copied, *seconds = best(rounds, world.copy, *blits)
    for (what, (_, target)), taken in zip(commands.items(), seconds, strict=True):
        how = f"{taken * MICRO:.0f} us for 1 MiB, memcpy {copied * MICRO:.0f}"
        yield Figure("blits", what, taken / copied, "x memcpy", how, target)


class _World:
    """Surfaces at TO and FROM, each with PAGES pages from anywhere."""

    def __init__(self) -> None:
        guest = Guest(random.Random(1), chunks=2)
        self._base = guest.bench.base
        frames: dict[int, list[int]] = {}
        for start in (TO, FROM):
            frames[start] = [guest.free.pop() for _ in range(PAGES)]
            for i, gfn in enumerate(frames[start]):
                guest.map(start // FRAME + i, gfn)
        self._to, self._from = (ffi.new("uint32_t[]", frames[start]) for start in (TO, FROM))
        self._blitter = Blitter(guest)
        self._library = reference.load()

    def copy(self) -> float:
        return cpu(
            lambda: self._library.copy_pages(
                reference.FFI.cast("char *", self._base), _word(self._to), _word(self._from), PAGES
            )
        )

    def timed(self, dwords: list[int]) -> Timed:
        blitter, command = self._blitter, ffi.new("uint32_t[]", dwords)
        budget: CData = ffi.new("uint64_t *")

        def blit() -> None:
            budget[0] = 1 << 40
            assert lib.xd_blit_begin(blitter.blit, command, len(dwords), 0) == lib.XD_BLIT_RUN
            assert lib.xd_blit_run(blitter.blit, blitter.memory, blitter.space, blitter.bounce, budget) == 0

        work: Callable[[], None] = blit
        return lambda: cpu(work)


def _word(numbers: CData) -> CData:
    """The same memory, for a library that was loaded with another FFI."""
    return reference.FFI.cast("uint32_t *", int(ffi.cast("uintptr_t", numbers)))


def _rectangle() -> list[int]:
    return [corner(0, 0), corner(WIDTH, HEIGHT), *halves(TO)]


def _src_copy(raster: int) -> list[int]:
    head = [COMMAND | 0x53 << 22 | 3 << 20 | 8, 3 << 24 | raster << 16 | 4 * WIDTH]
    return [*head, *_rectangle(), 0, 4 * WIDTH, *halves(FROM)]


def _fill() -> list[int]:
    return [COMMAND | 0x50 << 22 | 3 << 20 | 5, 3 << 24 | 0xF0 << 16 | 4 * WIDTH, *_rectangle(), 0x12345678]


def _fast_copy(to: str, source: str) -> list[int]:
    header = COMMAND | 0x42 << 22 | TILINGS[source] << 20 | TILINGS[to] << 13 | 8
    control = (source == "Yf") << 31 | (to == "Yf") << 30 | 3 << 24
    pitches = [4 * WIDTH if tiling == LINEAR else WIDTH for tiling in (to, source)]
    return [header, control | pitches[0], *_rectangle(), 0, pitches[1], *halves(FROM)]
