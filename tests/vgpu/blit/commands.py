"""Random commands of the blitter, most of which draw something."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.tables import FRAME
from tests.vgpu.blit.tiles import TILES
from tests.vgpu.blit.world import REGION_PAGES

REGION = REGION_PAGES * FRAME
PIXEL_BYTES = (1, 2, 2, 4)
FAST_CODES = {1: 0, 2: 1, 4: 3, 8: 4, 16: 5}


@dataclass(frozen=True)
class Picture:
    """A surface as fields of a command have it. ``pitch``: the 16 bits of the field."""

    base: int
    pitch: int
    tiling: str


def corner(x: int, y: int) -> int:
    return (x & 0xFFFF) | (y & 0xFFFF) << 16


def halves(address: int) -> list[int]:
    return [address & 0xFFFFFFFF, address >> 32]


class Commands:
    """Draws from ``rng``; surfaces lie in the regions ``to`` and ``others``, which do not overlap."""

    def __init__(self, rng: random.Random, to: int, other: int) -> None:
        self.rng = rng
        self.to = to
        self.other = other

    def legacy(self) -> list[tuple[list[int], int]]:
        """A command and what it takes from earlier ones: dwords, and the register BCS_SWCTRL."""
        rng = self.rng
        makers: Sequence[Callable[[], tuple[list[int], int]]] = (
            self.color, self.copy, self.copy, self.pattern, self.immediate_pattern, self.mono_pattern,
            self.fixed_pattern, self.mono_source, self.immediate_source,
        )  # fmt: skip
        made = rng.choice(makers)()
        return [([3 << 22 | 2 << 29 | 1, *self.clip()], 0), made]

    # Parts

    def rectangle(self) -> tuple[int, int, int, int]:
        rng = self.rng
        x, y = (
            rng.choice((rng.randint(-12, 8), rng.randint(0, 200))),
            rng.choice((rng.randint(-9, 5), rng.randint(0, 90))),
        )
        shape = rng.random()
        if shape < 0.05:
            return x, y, x + rng.randint(-2, 1), y + rng.randint(-2, 1)
        if shape < 0.15:
            return x, y, x + rng.randint(500, 1600), y + rng.randint(1, 2)
        if shape < 0.25:
            return x, y, x + rng.randint(1, 4), y + rng.randint(40, 150)
        return x, y, x + rng.randint(1, 60), y + rng.randint(1, 40)

    def clip(self) -> list[int]:
        rng = self.rng
        x, y = rng.randint(0, 60), rng.randint(0, 30)
        return [
            corner(x, y) | rng.choice((0, 0x8000, 0x80000000)),
            corner(x + rng.randint(0, 150), y + rng.randint(0, 80)),
        ]

    def picture(self, region: int, tiling: str, depth: int) -> Picture:
        rng = self.rng
        negative = rng.random() < 0.15
        if tiling == "linear":
            pitch = rng.choice((rng.randint(1, 700), 64 * rng.randint(1, 60), FRAME))
            offset = rng.choice((0, 0, 64 * rng.randrange(100), depth * rng.randrange(3000), rng.randrange(9000)))
        else:
            tile = TILES[tiling, depth]
            pitch = tile.width * rng.randint(1, max(1, 2048 // tile.width)) // 4 + (rng.random() < 0.1) * rng.randint(
                0, 30
            )
            offset = tile.size * rng.randrange(3) + (rng.random() < 0.1) * rng.randrange(FRAME)
        base = region + (REGION - offset - 1 if negative else offset)
        return Picture(base & (1 << 48) - 1, (-pitch if negative else pitch) & 0xFFFF, tiling)

    def apart(self, to: Picture, x2: int, depth: int, source: str) -> Picture:
        """A destination whose rows do not share bytes. They may only if they are written in order, which they are not
        if the source alone is tiled.
        """
        pitch = to.pitch - 0x10000 if to.pitch & 0x8000 else to.pitch
        if to.tiling != "linear" or source == "linear" or abs(pitch) >= x2 * depth:
            return to
        wide = x2 * depth + self.rng.randrange(64)
        return Picture(to.base, (-wide if pitch < 0 else wide) & 0xFFFF, to.tiling)

    def raster(self, usual: int) -> int:
        return usual if self.rng.random() < 0.4 else self.rng.randrange(256)

    def data(self, dwords: int) -> list[int]:
        return [self.rng.getrandbits(32) for _ in range(dwords)]

    def other_address(self) -> list[int]:
        return halves(self.other + self.rng.choice((64 * self.rng.randrange(REGION // 64), self.rng.randrange(REGION))))

    def start(self, opcode: int, usual: int, length: int) -> tuple[list[int], int, int]:
        """Dwords 0 to 5, BCS_SWCTRL, and the bytes of a pixel."""
        rng = self.rng
        depth = rng.randrange(4)
        tiling = rng.choice(("linear", "linear", "x", "y"))
        to = self.picture(self.to, tiling, PIXEL_BYTES[depth])
        header = 2 << 29 | opcode << 22 | rng.choice((3, 3, 1, 2, 0)) << 20 | length - 2
        header |= (tiling == "x" or (tiling == "y" and rng.random() < 0.7)) << 11
        control = to.pitch | self.raster(usual) << 16 | depth << 24 | (rng.random() < 0.4) << 30
        x1, y1, x2, y2 = self.rectangle()
        swctrl = (tiling == "y") << 1
        return [header, control, corner(x1, y1), corner(x2, y2), *halves(to.base)], swctrl, PIXEL_BYTES[depth]

    # Commands

    def color(self) -> tuple[list[int], int]:
        dwords, swctrl, _ = self.start(0x50, 0xF0, 7)
        return [*dwords, *self.data(1)], swctrl | self.rng.getrandbits(1)

    def copy(self) -> tuple[list[int], int]:
        dwords, swctrl, depth = self.start(0x53, 0xCC, 10)
        rng = self.rng
        tiling = rng.choice(("linear", "linear", "x", "y"))
        source = self.picture(self.other, tiling, depth)
        to = Picture(0, dwords[1] & 0xFFFF, "y" if swctrl else "x" if dwords[0] >> 11 & 1 else "linear")
        dwords[1] = dwords[1] & ~0xFFFF | self.apart(to, dwords[3] & 0xFFFF, depth, tiling).pitch
        dwords[0] |= (tiling == "x") << 15
        place = corner(
            rng.choice((rng.randint(-9, 9), rng.randint(0, 150))), rng.choice((rng.randint(-9, 9), rng.randint(0, 80)))
        )
        return [*dwords, place, source.pitch, *halves(source.base)], swctrl | (tiling == "y")

    def copy_within(self) -> tuple[list[int], int]:
        """Source and destination are one surface, and overlap more often than not."""
        dwords, swctrl, depth = self.start(0x53, 0xCC, 10)
        rng = self.rng
        tiling = "y" if swctrl else "x" if dwords[0] >> 11 & 1 else "linear"
        x1, y1 = rng.randint(0, 30), rng.randint(0, 30)
        width, height = rng.randint(1, 90), rng.randint(1, 40)
        line = (x1 + width + 31) * depth
        unit = 4 if tiling == "linear" else TILES[tiling, depth].width
        pitch = (line + unit - 1) // unit * unit * rng.choice((1, -1))
        base = self.to + (REGION // 2 if pitch < 0 else 0)
        dwords[0] |= (tiling == "x") << 15
        dwords[1] = dwords[1] & ~0xFFFF | (pitch if tiling == "linear" else pitch // 4) & 0xFFFF
        dwords[2:6] = [corner(x1, y1), corner(x1 + width, y1 + height), *halves(base)]
        place = corner(x1 + rng.randint(-30, 30), y1 + rng.choice((0, rng.randint(-30, 30))))
        return [*dwords, place, dwords[1] & 0xFFFF, *halves(base)], swctrl | swctrl >> 1

    def fast_copy(self) -> tuple[list[int], int]:
        rng = self.rng
        depth = rng.choice((1, 2, 4, 8, 16))
        kinds = ("linear", "x", "y", "yf", "ys")
        to = self.picture(self.to, rng.choice(kinds), depth)
        source = self.picture(self.other, rng.choice(kinds), depth)
        code = {"linear": 0, "x": 1, "y": 2, "yf": 2, "ys": 3}
        header = 2 << 29 | 0x42 << 22 | code[source.tiling] << 20 | code[to.tiling] << 13 | 8
        x1, y1, x2, y2 = self.rectangle()
        to = self.apart(to, x2, depth, source.tiling)
        control = (source.tiling == "yf") << 31 | (to.tiling == "yf") << 30 | FAST_CODES[depth] << 24 | to.pitch
        place = corner(
            rng.choice((rng.randint(-9, 9), rng.randint(0, 150))), rng.choice((rng.randint(-9, 9), rng.randint(0, 80)))
        )
        dwords = [header, control, corner(x1, y1), corner(x2, y2), *halves(to.base), place, source.pitch]
        return [*dwords, *halves(source.base)], rng.randrange(4)

    def seeds(self) -> int:
        return self.rng.randrange(8) << 12 | self.rng.randrange(8) << 8

    def pattern(self) -> tuple[list[int], int]:
        dwords, swctrl, _ = self.start(0x51, 0xF0, 8)
        dwords[0] |= self.seeds()
        return [*dwords, *self.other_address()], swctrl

    def immediate_pattern(self) -> tuple[list[int], int]:
        count = self.rng.choice((16, 32, 64, 64, self.rng.randrange(65)))
        dwords, swctrl, _ = self.start(0x72, 0xF0, 6 + count)
        dwords[0] |= self.seeds()
        return [*dwords, *self.data(count)], swctrl

    def mono_pattern(self) -> tuple[list[int], int]:
        dwords, swctrl, _ = self.start(0x52, 0xF0, 10)
        dwords[0] |= self.seeds()
        dwords[1] |= self.rng.getrandbits(1) << 28
        return [*dwords, *self.data(4)], swctrl

    def fixed_pattern(self) -> tuple[list[int], int]:
        dwords, swctrl, _ = self.start(0x59, 0xF0, 8)
        dwords[0] |= self.seeds() | self.rng.randrange(16) << 15
        dwords[1] |= self.rng.getrandbits(1) << 28
        return [*dwords, *self.data(2)], swctrl

    def mono_source(self) -> tuple[list[int], int]:
        dwords, swctrl, _ = self.start(0x54, 0xCC, 10)
        dwords[0] |= self.rng.randrange(8) << 17
        dwords[1] |= self.rng.getrandbits(1) << 29
        return [*dwords, *self.other_address(), *self.data(2)], swctrl

    def immediate_source(self) -> tuple[list[int], int]:
        count = self.rng.choice((2, 32, 64, self.rng.randrange(65)))
        dwords, swctrl, _ = self.start(0x71, 0xCC, 8 + count)
        dwords[0] |= self.rng.randrange(8) << 17
        dwords[1] |= self.rng.getrandbits(1) << 29
        return [*dwords, *self.data(2 + count)], swctrl

    def from_setup(self) -> list[tuple[list[int], int]]:
        """A setup command, and commands that use it."""
        rng = self.rng
        opcode = rng.choice((0x01, 0x11))
        dwords, swctrl, _ = self.start(opcode, 0xF0, 10)
        tiled = dwords[0] & 1 << 11
        dwords[1] |= rng.getrandbits(1) << 31 | rng.getrandbits(1) << 29 | rng.getrandbits(1) << 28
        setup = [
            *dwords[:2],
            *self.clip(),
            *dwords[4:],
            *self.data(2),
            *(self.other_address() if opcode == 1 else self.data(2)),
        ]
        made = [(setup, 0)]
        for _ in range(rng.randint(1, 3)):
            x1, y1, x2, y2 = self.rectangle()
            first, end = corner(x1, y1), corner(x2, y2)
            count = rng.choice((2, 32, 64))
            header = 2 << 29 | tiled | rng.getrandbits(1) << 16
            use = rng.choice((
                [header & ~(1 << 16) | 0x24 << 22, first],
                [header & ~(1 << 16) | 0x25 << 22 | self.seeds() | 1, first, end],
                [header | 0x26 << 22 | 3, first, end, *self.other_address()],
                [header | 0x31 << 22 | count + 1, first, end, *self.data(count)],
            ))  # fmt: skip
            made.append((use, swctrl))
        return made
