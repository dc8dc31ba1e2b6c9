"""What the manuals say in so many words: of the twin, and of the C."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.support.tables import FRAME
from tests.vgpu.blit.commands import corner, halves
from tests.vgpu.blit.pixels import raster_operation
from tests.vgpu.blit.tiles import TILES
from tests.vgpu.blit.twin import MalformedError, Twin
from tests.vgpu.blit.world import REGION_STARTS, Blitter, Guest, MalformedInCError, TwinMemory
from xengt_dm._core import ffi, lib

#: "Bit-Wise Operations and 8-Bit Codes", Skylake, volume 11; those of which the table has no misprint.
EXPRESSIONS: dict[int, Callable[[int, int, int], int]] = {
    0x00: lambda p, s, d: 0,
    0x03: lambda p, s, d: ~(p | s),
    0x05: lambda p, s, d: ~(d | p),
    0x0A: lambda p, s, d: d & ~p,
    0x0C: lambda p, s, d: s & ~p,
    0x0F: lambda p, s, d: ~p,
    0x11: lambda p, s, d: ~(d | s),
    0x1E: lambda p, s, d: p ^ (d | s),
    0x22: lambda p, s, d: d & ~s,
    0x28: lambda p, s, d: d & (p ^ s),
    0x33: lambda p, s, d: ~s,
    0x3C: lambda p, s, d: p ^ s,
    0x44: lambda p, s, d: s & ~d,
    0x48: lambda p, s, d: s & (d ^ p),
    0x55: lambda p, s, d: ~d,
    0x5A: lambda p, s, d: d ^ p,
    0x66: lambda p, s, d: d ^ s,
    0x69: lambda p, s, d: ~(p ^ d ^ s),
    0x77: lambda p, s, d: ~(d & s),
    0x7F: lambda p, s, d: ~(d & p & s),
    0x88: lambda p, s, d: d & s,
    0x8E: lambda p, s, d: s ^ ((s ^ d) & (p ^ d)),
    0x96: lambda p, s, d: d ^ p ^ s,
    0x99: lambda p, s, d: ~(d ^ s),
    0xA0: lambda p, s, d: d & p,
    0xA9: lambda p, s, d: ~(d ^ (p | s)),
    0xAA: lambda p, s, d: d,
    0xB8: lambda p, s, d: p ^ (s & (d ^ p)),
    0xC0: lambda p, s, d: p & s,
    0xCA: lambda p, s, d: d ^ (p & (s ^ d)),
    0xCC: lambda p, s, d: s,
    0xD8: lambda p, s, d: p ^ (d & (s ^ p)),
    0xE2: lambda p, s, d: d ^ (s & (p ^ d)),
    0xEE: lambda p, s, d: d | s,
    0xF0: lambda p, s, d: p,
    0xF5: lambda p, s, d: p | ~d,
    0xFA: lambda p, s, d: d | p,
    0xFB: lambda p, s, d: d | p | ~s,
    0xFC: lambda p, s, d: p | s,
    0xFE: lambda p, s, d: d | p | s,
    0xFF: lambda p, s, d: ~0,
}
#: From which coordinate each bit of an offset comes, the highest first: "Gen9 Swizzles" of Intel's gmmlib.
SWIZZLES = {
    ("x", 1): "YYYXXXXXXXXX",
    ("y", 1): "XXXYYYYYXXXX",
    ("yf", 1): "XYXYYYYYXXXX",
    ("yf", 2): "XYXYXYYYXXXX",
    ("yf", 4): "XYXYXYYYXXXX",
    ("yf", 8): "XYXYXXYYXXXX",
    ("yf", 16): "XYXYXXYYXXXX",
    ("ys", 1): "XYXYXYXYYYYYXXXX",
    ("ys", 2): "XYXYXYXYXYYYXXXX",
    ("ys", 4): "XYXYXYXYXYYYXXXX",
    ("ys", 8): "XYXYXYXYXXYYXXXX",
    ("ys", 16): "XYXYXYXYXXYYXXXX",
}
START = REGION_STARTS[0]
COMMAND = 2 << 29


@pytest.mark.parametrize("code", EXPRESSIONS)
def test_raster_operations(code: int) -> None:
    rng = random.Random(code)
    for size in (1, 7, 8, 61, FRAME):
        p, s, d = (rng.randbytes(size) for _ in range(3))
        words = [int.from_bytes(each, "little") for each in (p, s, d)]
        expected = (EXPRESSIONS[code](*words) & (1 << 8 * size) - 1).to_bytes(size, "little")
        assert raster_operation(code, *words, bits=8 * size).to_bytes(size, "little") == expected
        result = ffi.new("uint8_t[]", size)
        lib.xd_raster(code, p, s, d, result, size)
        assert bytes(ffi.buffer(result)) == expected


def test_which_operands_matter() -> None:
    """ "The BLT engine automatically foregoes reading any form of graphics data that has not been specified"."""
    for code in range(256):
        for uses, number in (
            (lib.xd_raster_uses_pattern, 2),
            (lib.xd_raster_uses_source, 1),
            (lib.xd_raster_uses_destination, 0),
        ):
            pairs = ((case, case | 1 << number) for case in range(8) if not case >> number & 1)
            assert bool(uses(code)) == any(code >> a & 1 != code >> b & 1 for a, b in pairs)


@pytest.mark.parametrize(("tiling", "depth"), SWIZZLES)
def test_tiles_of_the_twin(tiling: str, depth: int) -> None:
    """Two sources that know nothing of each other."""
    letters = SWIZZLES[tiling, depth][::-1]
    for (x, y), offset in TILES[tiling, depth].offsets.items():
        for letter, value in (("X", x), ("Y", y)):
            bits = [offset >> i & 1 for i in range(len(letters)) if letters[i] == letter]
            assert sum(bit << i for i, bit in enumerate(bits)) == value


class Both:
    """Commands for the twin and the C on one memory, and what they do to a linear surface at START."""

    def __init__(self) -> None:
        self.guest = Guest(random.Random(1), chunks=1)
        self.guest.bench.memory[:] = bytes(len(self.guest.bench.memory))
        self.guest.map_region(START)
        self.memory = TwinMemory(self.guest)
        self.twin = Twin(self.memory)
        self.blitter = Blitter(self.guest)

    def execute(self, *dwords: int, swctrl: int = 0) -> None:
        self.twin.execute(dwords, swctrl)
        self.blitter.execute(dwords, swctrl)
        assert bytes(self.memory.bytes) == bytes(self.guest.bench.memory)

    def put(self, offset: int, data: bytes) -> None:
        for i, byte in enumerate(data):
            place = self._place(offset + i)
            self.guest.bench.memory[place] = self.memory.bytes[place] = byte

    def get(self, offset: int, size: int) -> bytes:
        return bytes(self.memory.bytes[self._place(offset + i)] for i in range(size))

    def _place(self, offset: int) -> int:
        address = START + offset
        return self.guest.pages[address // FRAME].gfn * FRAME + address % FRAME

    def malformed(self, *dwords: int) -> None:
        with pytest.raises(MalformedError):
            self.twin.execute(dwords)
        with pytest.raises(MalformedInCError):
            self.blitter.execute(dwords)


@pytest.fixture
def both() -> Both:
    return Both()


def test_a_pattern_fill(both: Both) -> None:
    """ "Pattern Fill -- A Very Simple BLT": 1024 pixels of 8 bits a row; (128,128) to (191,191) are 64 x 64 pixels."""
    pattern = bytes(range(1, 65))
    both.put(0x40000, pattern)
    both.execute(
        COMMAND | 0x51 << 22 | 6,
        0xF0 << 16 | 1024,
        corner(128, 128),
        corner(192, 192),
        *halves(START),
        *halves(START + 0x40000),
    )
    for y in range(126, 194):
        line = pattern[y % 8 * 8 : y % 8 * 8 + 8] * 8 if 128 <= y < 192 else bytes(64)
        assert both.get(y * 1024 + 127, 66) == b"\0" + line + b"\0"


def test_a_character(both: Both) -> None:
    """ "Drawing Characters Using a Font Stored in System Memory": black on gray, eight bytes, the background stays."""
    both.put(0, b"\x55" * 0x28000)
    font = (0x00, 0x0C, 0x12, 0x10, 0x38, 0x10, 0x10, 0x00)
    # SETUP_BLT: clipping to (0,0)..(1024,768), transparent, copy the source; foreground 0
    both.execute(
        COMMAND | 1 << 22 | 8, 3 << 29 | 0xCC << 16 | 1024, 0, corner(1024, 768), *halves(START), 0x77, 0, 0, 0
    )
    data = (int.from_bytes(font[:4], "little"), int.from_bytes(font[4:], "little"))
    both.execute(COMMAND | 0x31 << 22 | 3, corner(128, 128), corner(136, 136), *data)
    for y in range(8):
        line = bytes(0 if font[y] >> (7 - x) & 1 else 0x55 for x in range(8))
        assert both.get((128 + y) * 1024 + 127, 10) == b"\x55" + line + b"\x55"


def fill(x1: int, y1: int, x2: int, y2: int, *, header: int = 3 << 20, control: int = 0) -> list[int]:
    """XY_COLOR_BLT of 32-bit pixels, 1024 bytes a row."""
    color = 0xA1B2C3D4
    rectangle = (corner(x1, y1), corner(x2, y2))
    return [COMMAND | 0x50 << 22 | header | 5, control | 3 << 24 | 0xF0 << 16 | 1024, *rectangle, *halves(START), color]


def pixels(both: Both, y: int) -> list[int]:
    """Which pixels of a row are not 0."""
    line = both.get(y * 1024, 1024)
    return [x for x in range(256) if line[4 * x : 4 * x + 4] != bytes(4)]


def test_edges(both: Both) -> None:
    """X1 and Y1 are in, X2 and Y2 are out."""
    both.execute(*fill(3, 2, 7, 4))
    assert [pixels(both, y) for y in range(1, 5)] == [[], [3, 4, 5, 6], [3, 4, 5, 6], []]


def test_clipping(both: Both) -> None:
    """Of the clip rectangle, too; it counts only if the command says so."""
    both.execute(COMMAND | 3 << 22 | 1, corner(5, 3), corner(9, 5))
    both.execute(*fill(-3, -2, 7, 40, control=1 << 30))
    assert [pixels(both, y) for y in range(2, 6)] == [[], [5, 6], [5, 6], []]
    both.execute(*fill(-3, 1, 2, 2))
    assert [pixels(both, y) for y in range(3)] == [[], [0, 1], []]


def test_empty_rectangles(both: Both) -> None:
    for x2, y2 in ((3, 9), (9, 2), (2, 1), (-5, -5)):
        both.execute(*fill(3, 2, x2, y2))
        assert both.blitter.blit.height == 0
    assert not any(both.memory.bytes)


def test_write_masks(both: Both) -> None:
    """ "This field is only used for 32bpp": alpha, the colours, both, or nothing."""
    for row, (mask, expected) in enumerate({0: "00000000", 1: "d4c3b200", 2: "000000a1", 3: "d4c3b2a1"}.items()):
        both.execute(*fill(0, row, 1, row + 1, header=mask << 20))
        assert both.get(row * 1024, 4).hex() == expected


def test_negative_source_coordinates(both: Both) -> None:
    """ "The absolute value of the source negative coordinate is added to the corresponding destination coordinate"."""
    both.put(0x20000, b"".join(i.to_bytes(4, "little") for i in range(1, 100)))
    both.put(6 * 1024 + 40, b"left")
    source = (corner(-2, -1), 400, *halves(START + 0x20000))
    both.execute(
        COMMAND | 0x53 << 22 | 3 << 20 | 8,
        3 << 24 | 0xCC << 16 | 1024,
        corner(10, 5),
        corner(14, 7),
        *halves(START),
        *source,
    )
    assert [pixels(both, y) for y in (5, 6)] == [[], [10, 12, 13]]
    assert both.get(6 * 1024 + 48, 8) == bytes((1, 0, 0, 0, 2, 0, 0, 0))


def test_y_tiles_by_register(both: Both) -> None:
    """Bit 1 of BCS_SWCTRL "over-rides the setting of the destination format in the packet"; then pitches are dwords."""
    for header in (0, 1 << 11):
        command = [
            COMMAND | 0x50 << 22 | header | 5,
            0xF0 << 16 | 128 // 4,
            corner(16, 1),
            corner(17, 2),
            *halves(START),
            0x99,
        ]
        both.put(528, b"\0")
        both.execute(*command, swctrl=2)
        assert both.get(528, 1) == b"\x99"


def test_solid_and_transparent(both: Both) -> None:
    """ "Setting both ... results in NO PIXELs DRAWN"; solid alone is the background colour."""
    setup = (0, corner(100, 100), *halves(START), 0x11, 0x22, 0xFFFFFFFF, 0xFFFFFFFF)
    scan = (COMMAND | 0x25 << 22 | 1, corner(0, 0), corner(4, 1))
    both.put(0, b"there")
    both.execute(COMMAND | 0x11 << 22 | 8, 1 << 31 | 1 << 28 | 0xF0 << 16 | 1024, *setup)
    both.execute(*scan)
    assert both.get(0, 5) == b"there"
    both.execute(COMMAND | 0x11 << 22 | 8, 1 << 31 | 0xF0 << 16 | 1024, *setup)
    both.execute(*scan)
    assert both.get(0, 5) == b"\x11\x11\x11\x11e"


def test_canonical_addresses(both: Both) -> None:
    """Bits above the 48th do not matter."""
    command = fill(0, 0, 1, 1)
    command[5] |= 0xFFFF0000
    both.execute(*command)
    assert pixels(both, 0) == [0]


def test_malformed_commands(both: Both) -> None:
    both.malformed(*fill(0, 0, 1, 1)[:6])
    fast = [COMMAND | 0x42 << 22 | 8, 0, 0, corner(1, 1), *halves(START), 0, 0, *halves(START)]
    for depth in (2, 6, 7):
        both.malformed(fast[0], depth << 24, *fast[2:])
    both.malformed(*fast[:9])
    both.malformed(COMMAND | 0x71 << 22 | 0xFF, 0, 0, corner(1, 1), *halves(START), 0, 0, *[0] * 65)
    assert both.blitter.begin([COMMAND | 0x55 << 22 | 10, *[0] * 11]) == lib.XD_BLIT_MALFORMED


def test_a_setup_is_forgotten(both: Both) -> None:
    both.execute(COMMAND | 0x11 << 22 | 8, 1 << 31 | 0xF0 << 16 | 1024, 0, 0, *halves(START), 0x11, 0x22, 0, 0)
    lib.xd_blit_reset(both.blitter.blit)
    assert not any(bytes(ffi.buffer(both.blitter.blit)))
