"""Names of the values that fields of commands can have, as the manuals have them.

Sources: Skylake PRM volumes 2b and 6; Mesa 24 ``src/intel/genxml``; Linux 6.1 ``gt/intel_gpu_commands.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ENGINE_NAMES: Final[Mapping[int, str]] = {0: "rcs0", 1: "vcs0", 2: "bcs0", 3: "vecs0", 4: "vcs1"}
COMPARE: Final[Mapping[int, str]] = {0: ">", 1: ">=", 2: "<", 3: "<=", 4: "==", 5: "!="}
POST_SYNC: Final[Mapping[int, str]] = {0: "no write", 1: "write data", 3: "write timestamp"}
DISPLAY_PLANE: Final[Mapping[int, str]] = {0: "A", 1: "B", 4: "C"}

ALU: Final[Mapping[int, str]] = {
    0x000: "NOOP",
    0x080: "LOAD",
    0x480: "LOADINV",
    0x081: "LOAD0",
    0x481: "LOAD1",
    0x100: "ADD",
    0x101: "SUB",
    0x102: "AND",
    0x103: "OR",
    0x104: "XOR",
    0x180: "STORE",
    0x580: "STOREINV",
}
ALU_OPERAND: Final[Mapping[int, str]] = {
    **{number: f"R{number}" for number in range(16)},
    0x20: "SRCA",
    0x21: "SRCB",
    0x31: "ACCU",
    0x32: "ZF",
    0x33: "CF",
}

_ATOMIC_NAMES: Final = (
    *("AND", "OR", "XOR", "MOVE", "INC", "DEC", "ADD", "SUB", "RSUB", "IMAX", "IMIN", "UMAX", "UMIN", "CMP_WR"),
    "PREDEC",
)
ATOMIC: Final[Mapping[int, str]] = {
    **{0x01 + n: name for n, name in enumerate(_ATOMIC_NAMES)},
    **{0x21 + n: f"{name}8B" for n, name in enumerate(_ATOMIC_NAMES)},
    0x4E: "CMP_WR16B",
}
SET_PREDICATE: Final[Mapping[int, str]] = {
    0: "never",
    1: "if RESULT_2 is 0",
    2: "if RESULT_2 is 1",
    3: "if RESULT is 0",
    4: "if RESULT is 1",
    5: "unless one slice",
    6: "unless two slices",
    7: "unless three slices",
    15: "always",
}

_TOPOLOGIES: Final = (
    *("POINTLIST", "LINELIST", "LINESTRIP", "TRILIST", "TRISTRIP", "TRIFAN", "QUADLIST", "QUADSTRIP", "LINELIST_ADJ"),
    *("LINESTRIP_ADJ", "TRILIST_ADJ", "TRISTRIP_ADJ", "TRISTRIP_REVERSE", "POLYGON", "RECTLIST", "LINELOOP"),
    *("POINTLIST_BF", "LINESTRIP_CONT", "LINESTRIP_BF", "LINESTRIP_CONT_BF"),
)
TOPOLOGY: Final[Mapping[int, str]] = {
    **{1 + n: name for n, name in enumerate(_TOPOLOGIES)},
    22: "TRIFAN_NOSTIPPLE",
    **{31 + n: f"PATCHLIST_{n}" for n in range(1, 33)},
}
#: Of PIPE_CONTROL.
WRITES: Final[Mapping[int, str]] = {0: "no write", 1: "write data", 2: "write depth count", 3: "write timestamp"}
PIPELINE: Final[Mapping[int, str]] = {0: "3D", 1: "media", 2: "GPGPU"}
#: Bits per pixel, of the blitter.
DEPTH: Final[Mapping[int, str]] = {0: "8 bpp", 1: "16 bpp", 2: "16 bpp (1555)", 3: "32 bpp"}
FAST_DEPTH: Final[Mapping[int, str]] = {0: "8 bpp", 1: "16 bpp", 3: "32 bpp", 4: "64 bpp", 5: "128 bpp"}
#: Of XY_FAST_COPY_BLT.
TILING: Final[Mapping[int, str]] = {0: "linear", 1: "X", 2: "Y", 3: "Ys"}
#: Raster operations that have a name of their own.
RASTER: Final[Mapping[int, str]] = {
    0x00: "BLACKNESS",
    0x55: "DSTINVERT",
    0x5A: "PATINVERT",
    0x66: "SRCINVERT",
    0x88: "SRCAND",
    0xAA: "NOOP",
    0xCC: "SRCCOPY",
    0xEE: "SRCPAINT",
    0xF0: "PATCOPY",
    0xFF: "WHITENESS",
}
