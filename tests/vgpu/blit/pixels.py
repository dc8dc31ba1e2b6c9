"""Where the twin finds a pixel, and what becomes of it: :mod:`.twin` says from which manuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tests.vgpu.blit.tiles import TILES

ADDRESS_MASK = (1 << 48) - 1


class Memory(Protocol):
    """Little-endian numbers at GPU addresses. Bytes that are not mapped read as zeros, and stores to them vanish."""

    def read(self, address: int, size: int) -> int: ...
    def write(self, address: int, value: int, size: int) -> None: ...


def signed(value: int) -> int:
    """A 16-bit number in two's complement."""
    value &= 0xFFFF
    return value - 0x10000 if value & 0x8000 else value


def bit(value: int, number: int) -> bool:
    return bool(value >> number & 1)


@dataclass(frozen=True)
class Surface:
    """Pixels of ``depth`` bytes. ``tiling`` is a name of :data:`TILES`, or "linear"."""

    base: int
    pitch: int
    tiling: str
    depth: int

    def address(self, x: int, y: int) -> int:
        """Where the first byte of the pixel (x, y) lies; the others follow it."""
        if self.tiling == "linear":
            return (self.base + y * self.pitch + x * self.depth) & ADDRESS_MASK
        tile = TILES[self.tiling, self.depth]
        tiles_a_row = abs(self.pitch) // tile.width
        row, inner_y = divmod(-y if self.pitch < 0 else y, tile.height)
        column, inner_x = divmod(x * self.depth, tile.width)
        first = self.base - self.base % tile.size
        return (first + (row * tiles_a_row + column) * tile.size + tile.offsets[inner_x, inner_y]) & ADDRESS_MASK

    def get(self, memory: Memory, x: int, y: int) -> int:
        return memory.read(self.address(x, y), self.depth)

    def put(self, memory: Memory, x: int, y: int, value: int) -> None:
        memory.write(self.address(x, y), value, self.depth)


def raster_operation(code: int, pattern: int, source: int, destination: int, bits: int) -> int:
    """The table of "Bit-Wise Operations": bit PSD of the code is what comes of the bits P, S and D."""
    result = 0
    for case in range(8):
        if bit(code, case):
            p, s, d = (
                operand if bit(case, number) else ~operand
                for number, operand in ((2, pattern), (1, source), (0, destination))
            )
            result |= p & s & d
    return result & (1 << bits) - 1
