"""Fences: ranges of the aperture in which a tiled surface looks as if it had one row after the other.

A fence (gt/intel_ggtt_fencing.c i965_write_fence_reg) has a first and a last page, a pitch, and whether tiles are X or
Y: an X tile has 8 rows of 512 bytes; a Y tile has 8 columns of 16 bytes, each with 32 rows. Rows of tiles follow each
other.
"""

from __future__ import annotations

from typing import Final

from xengt_dm.units import PAGE_SIZE

FIRST: Final = 0x100000
_FENCE: Final = 8
_VALID, _Y_TILES = 1 << 0, 1 << 1
_PAGES: Final = 0xFFFFF000
_PITCH_UNIT: Final = 128
_COLUMN: Final = 16


class Fences:
    """The ``count`` fence registers in ``bar0``."""

    def __init__(self, bar0: memoryview, count: int) -> None:
        self._words = bar0[FIRST : FIRST + _FENCE * count].cast("Q")

    def place(self, offset: int) -> int:
        """Returns where the byte lies that is read at an offset of the aperture."""
        for fence in self._words:
            first, last = fence & _PAGES, fence >> 32 & _PAGES
            if fence & _VALID and first <= offset < last + PAGE_SIZE:
                pitch = ((fence >> 32 & 0x7FF) + 1) * _PITCH_UNIT
                tiled = _y_tiled if fence & _Y_TILES else _x_tiled
                return first + tiled(offset - first, pitch)
        return offset

    def splits(self, offset: int, size: int) -> bool:
        """Whether some bytes of an access may lie apart from each other."""
        return offset % _COLUMN + size > _COLUMN


def _x_tiled(offset: int, pitch: int) -> int:
    y, x = divmod(offset, pitch)
    return y // 8 * 8 * pitch + x // 512 * PAGE_SIZE + y % 8 * 512 + x % 512


def _y_tiled(offset: int, pitch: int) -> int:
    y, x = divmod(offset, pitch)
    in_tile = x % 128 // _COLUMN * 512 + y % 32 * _COLUMN + x % _COLUMN
    return y // 32 * 32 * pitch + x // 128 * PAGE_SIZE + in_tile
