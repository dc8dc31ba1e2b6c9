"""How the bytes of a tile lie in memory, built up from the words of those who describe it.

X and Y: 4 KiB tiles in row-major layout; within an X tile bytes are laid out row-major, within a Y tile in OWORD chunks
column-major (the kernel's ``drm_fourcc.h``, and the manuals' volume 5). Yf and Ys: below.
"""

from __future__ import annotations

from dataclasses import dataclass

OWORD = 16

#: The places of a block's bytes (x, y), in the order in which they lie in memory.
Block = list[tuple[int, int]]


@dataclass(frozen=True)
class Tile:
    width: int  # bytes
    height: int  # rows
    offsets: dict[tuple[int, int], int]

    @property
    def size(self) -> int:
        return self.width * self.height


def _row(width: int) -> Block:
    return [(x, 0) for x in range(width)]


def _extent(block: Block) -> tuple[int, int]:
    return max(x for x, _ in block) + 1, max(y for _, y in block) + 1


def _down(block: Block, times: int) -> Block:
    """The block, and the same below it, and so on."""
    height = _extent(block)[1]
    return [(x, y + i * height) for i in range(times) for x, y in block]


def _right(block: Block, times: int) -> Block:
    """The block, and the same to the right of it, and so on."""
    width = _extent(block)[0]
    return [(x + i * width, y) for i in range(times) for x, y in block]


def _two_by_two(block: Block) -> Block:
    """Column-major: two below each other, then the column to the right."""
    return _right(_down(block, 2), 2)


def _yf(depth: int) -> Block:
    """``drm_fourcc.h``: 64-byte blocks have four rows of 16 bytes; four of them make a 256-byte unit, a square of
    pixels or twice as wide as high; four units make a group, and four groups a tile, each two by two, column-major.
    """
    block = _down(_row(OWORD), 4)
    if depth == 1:
        unit = _down(block, 4)  # 16 x 16 pixels
    elif depth in (2, 4):
        unit = _right(_down(block, 2), 2)  # 16 x 8 or 8 x 8 pixels
    else:
        unit = _right(block, 4)  # 8 x 4 or 4 x 4 pixels
    return _two_by_two(_two_by_two(unit))


def _tile(block: Block) -> Tile:
    width, height = _extent(block)
    assert len(set(block)) == len(block) == width * height
    return Tile(width, height, {place: offset for offset, place in enumerate(block)})


_X = _tile(_down(_row(512), 8))
_Y = _tile(_right(_down(_row(OWORD), 32), 8))
_YF = {depth: _tile(_yf(depth)) for depth in (1, 2, 4, 8, 16)}
#: 64 KiB: sixteen of the above, in the same manner.
_YS = {depth: _tile(_two_by_two(_two_by_two(_yf(depth)))) for depth in (1, 2, 4, 8, 16)}

#: By name and bytes of a pixel.
TILES = {
    **{("x", depth): _X for depth in _YF},
    **{("y", depth): _Y for depth in _YF},
    **{("yf", depth): tile for depth, tile in _YF.items()},
    **{("ys", depth): tile for depth, tile in _YS.items()},
}
