"""The blitter of generation 9, one pixel at a time, from the words of its manual and never from the C.

Sources: the Skylake manual, volume 11, says what a blit is (clipping, overlap, patterns, monochrome data); the Ivy
Bridge manual, volume 1 part 4, says which bit of which dword means what, and from generation 8 on each address takes
two dwords. How tiles lie in memory is in :mod:`.tiles`.

Where the manual says nothing: an operand that a command does not have reads as zeros, immediate data that is missing is
zeros, and a surface with a negative pitch goes up from its base.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.vgpu.blit.pixels import ADDRESS_MASK, Memory, Surface, bit, raster_operation, signed

#: Makes the value of an operand for the pixel (x, y) of the destination; None: that pixel must not be written.
Operand = Callable[[int, int], int | None]


class MalformedError(Exception):
    """A command that has too few dwords, or a reserved depth."""


@dataclass
class Setup:
    """What XY_SETUP_BLT and its relatives leave for the commands after them."""

    mask: int = 0
    control: int = 0
    base: int = 0
    background: int = 0
    foreground: int = 0
    pattern_address: int = 0
    monochrome: bool = False
    pattern: bytes = bytes(8)
    clip: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass
class Job:
    """A rectangle, and how to make each of its pixels."""

    to: Surface
    x1: int
    y1: int
    x2: int
    y2: int
    raster: int
    mask: int  # bit 1: write the alpha channel, bit 0: write the colours; for 4-byte pixels only
    clip: tuple[int, int, int, int] | None = None
    source: Operand | None = None
    pattern: Operand | None = None
    right_to_left: bool = False
    bottom_to_top: bool = False


DEPTHS = (1, 2, 2, 4)
FAST_DEPTHS = {0: 1, 1: 2, 3: 4, 4: 8, 5: 16}
#: XY_MONO_PAT_FIXED_BLT, as the manual draws them; the ones that are reserved are empty.
FIXED = {
    0: "........ ........ ........ ######## ........ ........ ........ ........",
    1: "....#... ....#... ....#... ....#... ....#... ....#... ....#... ....#...",
    2: "#....... .#...... ..#..... ...#.... ....#... .....#.. ......#. .......#",
    3: ".......# ......#. .....#.. ....#... ...#.... ..#..... .#...... #.......",
    4: "....#... ....#... ....#... ######## ....#... ....#... ....#... ....#...",
    5: "#......# .#....#. ..#..#.. ...##... ...##... ..#..#.. .#....#. #......#",
    8: ".#.#.#.# #.#.#.#. .#.#.#.# #.#.#.#. .#.#.#.# #.#.#.#. .#.#.#.# #.#.#.#.",
    9: "##..##.. ..##..## ##..##.. ..##..## ##..##.. ..##..## ##..##.. ..##..##",
    10: "#...#... .#...#.. ..#...#. ...#...# #...#... .#...#.. ..#...#. ...#...#",
    11: ".###.### #.###.## ##.###.# ###.###. .###.### #.###.## ##.###.# ###.###.",
}


class Twin:
    """Executes commands of the blitter on ``memory``."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.setup = Setup()

    def execute(self, dwords: Sequence[int], swctrl: int = 0) -> None:
        opcode = dwords[0] >> 22 & 0x7F
        parse, least = COMMANDS[opcode]
        if len(dwords) < least:
            raise MalformedError
        job = parse(self, dwords, swctrl)
        if job:
            self.perform(job)

    def perform(self, job: Job) -> None:
        for y in _order(job.y1, job.y2, job.bottom_to_top):
            for x in _order(job.x1, job.x2, job.right_to_left):
                if _is_drawn(job, x, y):
                    self._pixel(job, x, y)

    def _pixel(self, job: Job, x: int, y: int) -> None:
        source = job.source(x, y) if job.source else 0
        pattern = job.pattern(x, y) if job.pattern else 0
        if source is None or pattern is None:
            return
        before = job.to.get(self.memory, x, y)
        after = raster_operation(job.raster, pattern, source, before, 8 * job.to.depth)
        if job.to.depth == 4:
            written = 0xFF000000 * bit(job.mask, 1) + 0x00FFFFFF * bit(job.mask, 0)
            after = after & written | before & ~written
        job.to.put(self.memory, x, y, after)

    # Operands

    def copied(self, surface: Surface, sx: int, sy: int, job: Job) -> Operand:
        """Pixels of another surface; nothing comes of those with negative coordinates."""

        def value(x: int, y: int) -> int | None:
            from_x, from_y = sx + x - job.x1, sy + y - job.y1
            return None if from_x < 0 or from_y < 0 else surface.get(self.memory, from_x, from_y)

        return value

    def expanded(self, is_set: Callable[[int, int], bool], ground: tuple[int, int], transparent: bool) -> Operand:
        """Colours for the bits of monochrome data: ``ground`` are background and foreground."""

        def value(x: int, y: int) -> int | None:
            if is_set(x, y):
                return ground[1]
            return None if transparent else ground[0]

        return value

    def byte_at(self, address: int) -> int:
        return self.memory.read(address & ADDRESS_MASK, 1)


def _order(first: int, end: int, backwards: bool) -> Sequence[int]:
    return range(first, end)[::-1] if backwards else range(first, end)


def _is_drawn(job: Job, x: int, y: int) -> bool:
    """X1 and Y1 are in, X2 and Y2 are out. Without clipping, negative coordinates are clipped to 0."""
    left, top, right, bottom = job.clip or (0, 0, 1 << 16, 1 << 16)
    return left <= x < right and top <= y < bottom


# Fields that commands have in common


def _corner(dword: int) -> tuple[int, int]:
    return signed(dword), signed(dword >> 16)


def _address(dwords: Sequence[int], first: int) -> int:
    return (dwords[first] | dwords[first + 1] << 32) & ADDRESS_MASK


def _tiling(is_tiled: bool, is_y: bool) -> str:
    """Bits of BCS_SWCTRL override what the packet says."""
    return "y" if is_y else "x" if is_tiled else "linear"


def _pitch(field: int, tiling: str) -> int:
    """Bytes for linear surfaces, dwords for tiled ones."""
    return signed(field) * (1 if tiling == "linear" else 4)


def _clip(from_dword: int, to_dword: int) -> tuple[int, int, int, int]:
    """15-bit positive numbers."""
    return from_dword & 0x7FFF, from_dword >> 16 & 0x7FFF, to_dword & 0x7FFF, to_dword >> 16 & 0x7FFF


def _job(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    """The dwords 0 to 5, which most commands share."""
    depth = DEPTHS[d[1] >> 24 & 3]
    tiling = _tiling(bit(d[0], 11), bit(swctrl, 1))
    to = Surface(_address(d, 4), _pitch(d[1], tiling), tiling, depth)
    job = Job(to, *_corner(d[2]), *_corner(d[3]), raster=d[1] >> 16 & 0xFF, mask=d[0] >> 20 & 3)
    job.clip = twin.setup.clip if bit(d[1], 30) else None
    return job


def _solid(color: int) -> Operand:
    return lambda x, y: color


def _bytes(dwords: Sequence[int]) -> bytes:
    """Immediate data."""
    return struct.pack(f"<{len(dwords)}I", *dwords)


def _pattern(header: int, pixel: Callable[[int, int], int]) -> Callable[[int, int], int]:
    """``pixel`` of the 8x8 pattern; the seeds say which one lies at (0, 0) of the destination."""
    across, down = header >> 12 & 7, header >> 8 & 7
    return lambda x, y: pixel((x + across) % 8, (y + down) % 8)


def _mono_pattern(twin: Twin, header: int, rows: bytes, ground: tuple[int, int], control: int) -> Operand:
    """Byte 0 is scan line 0; pixel 0 is bit 7. ``control`` has the bits solid and transparent."""
    if bit(control, 31):
        return (lambda x, y: None) if bit(control, 28) else _solid(ground[0])
    is_set = _pattern(header, lambda x, y: rows[y] >> (7 - x) & 1)
    return twin.expanded(lambda x, y: bool(is_set(x, y)), ground, bit(control, 28))


def _color_pattern(twin: Twin, header: int, address: int, depth: int) -> Operand:
    """In linear memory, on a boundary of its size."""
    first = address - address % (64 * depth)
    lines = Surface(first, 8 * depth, "linear", depth)
    return _pattern(header, lambda x, y: lines.get(twin.memory, x, y))


def _immediate_pattern(header: int, data: bytes, depth: int) -> Operand:
    padded = data + bytes(256)

    def pixel(x: int, y: int) -> int:
        first = (8 * y + x) * depth
        return int.from_bytes(padded[first : first + depth], "little")

    return _pattern(header, pixel)


def _mono_bits(byte: Callable[[int], int], job: Job, first_bit: int, row_bits: int) -> Callable[[int, int], bool]:
    """Rows of ``row_bits`` bits, which belong to the rows of the rectangle; within a byte bit 7 comes first."""

    def is_set(x: int, y: int) -> bool:
        number = (y - job.y1) * row_bits + first_bit + x - job.x1
        return bool(byte(number // 8) >> (7 - number % 8) & 1)

    return is_set


# The commands


def xy_color(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    job = _job(twin, d, swctrl)
    job.pattern = _solid(d[6])
    return job


def xy_src_copy(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    job = _job(twin, d, swctrl)
    tiling = _tiling(bit(d[0], 15), bit(swctrl, 0))
    return _copy(twin, job, Surface(_address(d, 8), _pitch(d[7], tiling), tiling, job.to.depth), d[6], legacy=True)


def xy_fast_copy(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    depth = FAST_DEPTHS.get(d[1] >> 24 & 7)
    if depth is None:
        raise MalformedError
    to_tiling = ("linear", "x", "yf" if bit(d[1], 30) else "y", "ys")[d[0] >> 13 & 3]
    from_tiling = ("linear", "x", "yf" if bit(d[1], 31) else "y", "ys")[d[0] >> 20 & 3]
    to = Surface(_address(d, 4), _pitch(d[1], to_tiling), to_tiling, depth)
    job = Job(to, *_corner(d[2]), *_corner(d[3]), raster=0xCC, mask=3)
    return _copy(twin, job, Surface(_address(d, 8), _pitch(d[7], from_tiling), from_tiling, depth), d[6], legacy=False)


def _copy(twin: Twin, job: Job, surface: Surface, corner: int, *, legacy: bool) -> Job:
    """If the bases are the same, a source to the left is copied from the right, and one above from the bottom."""
    sx, sy = _corner(corner)
    job.source = twin.copied(surface, sx, sy, job)
    if legacy and surface.base == job.to.base:
        job.right_to_left = sx < job.x1
        job.bottom_to_top = sy < job.y1
    return job


def xy_pat(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    job = _job(twin, d, swctrl)
    job.pattern = _color_pattern(twin, d[0], _address(d, 6), job.to.depth)
    return job


def xy_pat_immediate(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    job = _job(twin, d, swctrl)
    job.pattern = _immediate_pattern(d[0], _bytes(d[6:]), job.to.depth)
    return job


def xy_mono_pat(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    job = _job(twin, d, swctrl)
    job.pattern = _mono_pattern(twin, d[0], _bytes(d[8:10]), (d[6], d[7]), d[1] & 1 << 28)
    return job


def xy_mono_pat_fixed(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    job = _job(twin, d, swctrl)
    drawing = FIXED.get(d[0] >> 15 & 15, " ".join(["." * 8] * 8))
    rows = bytes(int(row.replace("#", "1").replace(".", "0"), 2) for row in drawing.split())
    job.pattern = _mono_pattern(twin, d[0], rows, (d[6], d[7]), d[1] & 1 << 28)
    return job


def xy_mono_src_copy(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    job = _job(twin, d, swctrl)
    address = _address(d, 6)
    return _mono_source(twin, job, lambda i: twin.byte_at(address + i), d[0], d[1], (d[8], d[9]))


def xy_mono_src_copy_immediate(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    if len(d) > 8 + 64:
        raise MalformedError
    job = _job(twin, d, swctrl)
    return _mono_source(twin, job, _immediate_byte(_bytes(d[8:])), d[0], d[1], (d[6], d[7]))


def _immediate_byte(data: bytes) -> Callable[[int], int]:
    return lambda i: data[i] if i < len(data) else 0


def _mono_source(
    twin: Twin, job: Job, byte: Callable[[int], int], header: int, control: int, ground: tuple[int, int]
) -> Job:
    """Scan lines are word aligned, and start at a bit of their first byte."""
    first_bit = header >> 17 & 7
    row_bits = (first_bit + job.x2 - job.x1 + 15) // 16 * 16
    job.source = twin.expanded(_mono_bits(byte, job, first_bit, row_bits), ground, bit(control, 29))
    return job


def xy_setup(twin: Twin, d: Sequence[int], swctrl: int) -> None:
    twin.setup = Setup(d[0] >> 20 & 3, d[1], _address(d, 4), d[6], d[7], _address(d, 8), clip=_clip(d[2], d[3]))


def xy_setup_mono_pattern(twin: Twin, d: Sequence[int], swctrl: int) -> None:
    xy_setup(twin, d, swctrl)
    twin.setup = replace(twin.setup, monochrome=True, pattern=_bytes(d[8:10]))


def xy_setup_clip(twin: Twin, d: Sequence[int], swctrl: int) -> None:
    twin.setup.clip = _clip(d[1], d[2])


def _from_setup(twin: Twin, header: int, from_dword: int, to_dword: int, swctrl: int) -> Job:
    """A command that has no more than a rectangle; all else was said before."""
    setup = twin.setup
    whole = [header & ~(3 << 20) | setup.mask << 20, setup.control, from_dword, to_dword, setup.base, setup.base >> 32]
    return _job(twin, whole, swctrl)


def xy_pixel(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    x, y = _corner(d[1])
    job = replace(_from_setup(twin, d[0], d[1], 0, swctrl), x2=x + 1, y2=y + 1)
    job.pattern = _solid(twin.setup.background)
    return job


def xy_scanlines(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    setup, job = twin.setup, _from_setup(twin, d[0], d[1], d[2], swctrl)
    if setup.monochrome:
        ground = (setup.background, setup.foreground)
        job.pattern = _mono_pattern(twin, d[0], setup.pattern, ground, setup.control)
    else:
        job.pattern = _color_pattern(twin, d[0], setup.pattern_address, job.to.depth)
    return job


def xy_text(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    job, address = _from_setup(twin, d[0], d[1], d[2], swctrl), _address(d, 3)
    return _text(twin, job, lambda i: twin.byte_at(address + i), bit(d[0], 16))


def xy_text_immediate(twin: Twin, d: Sequence[int], swctrl: int) -> Job:
    if len(d) > 3 + 64:
        raise MalformedError
    job = _from_setup(twin, d[0], d[1], d[2], swctrl)
    return _text(twin, job, _immediate_byte(_bytes(d[3:])), bit(d[0], 16))


def _text(twin: Twin, job: Job, byte: Callable[[int], int], byte_packed: bool) -> Job:
    """The next scan line starts with the next bit, or the next byte."""
    row_bits = job.x2 - job.x1
    if byte_packed:
        row_bits = (row_bits + 7) // 8 * 8
    ground = (twin.setup.background, twin.setup.foreground)
    job.source = twin.expanded(_mono_bits(byte, job, 0, row_bits), ground, bit(twin.setup.control, 29))
    return job


#: By opcode: what a command does, and how many dwords it has at least.
COMMANDS: dict[int, tuple[Callable[[Twin, Sequence[int], int], Job | None], int]] = {
    0x01: (xy_setup, 10),
    0x03: (xy_setup_clip, 3),
    0x11: (xy_setup_mono_pattern, 10),
    0x24: (xy_pixel, 2),
    0x25: (xy_scanlines, 3),
    0x26: (xy_text, 5),
    0x31: (xy_text_immediate, 3),
    0x42: (xy_fast_copy, 10),
    0x50: (xy_color, 7),
    0x51: (xy_pat, 8),
    0x52: (xy_mono_pat, 10),
    0x53: (xy_src_copy, 10),
    0x54: (xy_mono_src_copy, 10),
    0x59: (xy_mono_pat_fixed, 8),
    0x71: (xy_mono_src_copy_immediate, 8),
    0x72: (xy_pat_immediate, 6),
}
