"""Commands to the blitter: opcodes are bits 28:22 of the header.

Sources: Skylake PRM volumes 6 (opcodes) and 11 "Blitter"; Linux 6.1 ``gt/intel_gpu_commands.h`` and
``gvt/cmd_parser.c``. Addresses have two dwords since generation 8, which makes each command longer by one dword per
address than what older drivers' documents say.
"""

from __future__ import annotations

from typing import Any, Final

from xengt_dm.vgpu.commands.command import (
    BITS_7,
    BLITTER,
    Client,
    Command,
    Field,
    Group,
    Length,
    address,
    bits,
    flag,
    hexadecimal,
    signed,
)
from xengt_dm.vgpu.commands.values import DEPTH, FAST_DEPTH, RASTER, TILING


def _blt(opcode: int, name: str, does: str = "blit", **more: Any) -> Command:
    return Command(name, Client.BLITTER, opcode, BITS_7, does, BLITTER, **more)


def _point(dword: int, x: str, y: str) -> tuple[Field, Field]:
    return signed(dword, 15, 0, x), signed(dword, 31, 16, y)


_MASK: Final = bits(0, 21, 20, "channels", {0: "none", 1: "RGB", 2: "alpha", 3: "RGBA"})
_TILED: Final = flag(0, 11, "tiled destination")
_TILED_SOURCE: Final = flag(0, 15, "tiled source")
#: What dword 1 begins with in most commands.
_HOW: Final = (
    flag(1, 30, "clipping"),
    bits(1, 25, 24, "depth", DEPTH),
    bits(1, 23, 16, "raster operation", RASTER),
    signed(1, 15, 0, "destination pitch"),
)
_RECTANGLE: Final = (*_point(2, "x1", "y1"), *_point(3, "x2", "y2"))
_DESTINATION: Final = address(4, "destination", 0)
_FILL: Final = (_MASK, _TILED, *_HOW, *_RECTANGLE, _DESTINATION)
_INLINE: Final = (hexadecimal(0, "data"),)

COMMANDS: Final = (
    _blt(
        0x01,
        "XY_SETUP_BLT",
        fields=(
            *(_MASK, _TILED, *_HOW),
            *(*_point(2, "clip x1", "clip y1"), *_point(3, "clip x2", "clip y2"), _DESTINATION),
            *(hexadecimal(6, "background"), hexadecimal(7, "foreground"), address(8, "pattern", 6)),
        ),
        least=10,
        usual=10,
    ),
    _blt(
        0x03,
        "XY_SETUP_CLIP_BLT",
        fields=(*_point(1, "clip x1", "clip y1"), *_point(2, "clip x2", "clip y2")),
        least=3,
        usual=3,
    ),
    _blt(
        0x11,
        "XY_SETUP_MONO_PATTERN_SL_BLT",
        fields=(
            *(_MASK, _TILED, *_HOW),
            *(*_point(2, "clip x1", "clip y1"), *_point(3, "clip x2", "clip y2"), _DESTINATION),
            *(hexadecimal(6, "background"), hexadecimal(7, "foreground"), hexadecimal(8, "pattern", 63)),
        ),
        least=10,
        usual=10,
    ),
    _blt(0x24, "XY_PIXEL_BLT", fields=(_TILED, *_point(1, "x", "y")), least=2, usual=2),
    _blt(
        0x25,
        "XY_SCANLINES_BLT",
        fields=(_TILED, *_point(1, "x1", "y1"), *_point(2, "x2", "y2")),
        least=3,
        usual=3,
    ),
    _blt(
        0x26,
        "XY_TEXT_BLT",
        fields=(_TILED, *_point(1, "x1", "y1"), *_point(2, "x2", "y2"), address(3, "source", 0)),
        least=5,
        usual=5,
    ),
    _blt(
        0x31,
        "XY_TEXT_IMMEDIATE_BLT",
        fields=(_TILED, *_point(1, "x1", "y1"), *_point(2, "x2", "y2")),
        group=Group(3, 1, _INLINE),
        least=3,
    ),
    _blt(0x40, "COLOR_BLT", "skip", source="up to generation 7"),
    _blt(
        0x42,
        "XY_FAST_COPY_BLT",
        fields=(
            bits(0, 21, 20, "source tiling", TILING),
            bits(0, 14, 13, "destination tiling", TILING),
            flag(1, 31, "source Yf"),
            flag(1, 30, "destination Yf"),
            bits(1, 26, 24, "depth", FAST_DEPTH),
            signed(1, 15, 0, "destination pitch"),
            *(*_RECTANGLE, _DESTINATION),
            *(*_point(6, "source x1", "source y1"), signed(7, 15, 0, "source pitch"), address(8, "source", 0)),
        ),
        least=10,
        usual=10,
        source="Linux 6.1 gt/intel_migrate.c; the opcode is reserved in the manual's map",
    ),
    _blt(0x43, "SRC_COPY_BLT", "skip", source="up to generation 7"),
    _blt(0x50, "XY_COLOR_BLT", fields=(*_FILL, hexadecimal(6, "color")), least=7, usual=7),
    _blt(0x51, "XY_PAT_BLT", fields=(*_FILL, address(6, "pattern", 6)), least=8, usual=8),
    _blt(
        0x52,
        "XY_MONO_PAT_BLT",
        fields=(
            *_FILL,
            *(hexadecimal(6, "background"), hexadecimal(7, "foreground"), hexadecimal(8, "pattern", 63)),
        ),
        least=10,
        usual=10,
    ),
    _blt(
        0x53,
        "XY_SRC_COPY_BLT",
        fields=(
            *(_MASK, _TILED_SOURCE, _TILED, *_HOW, *_RECTANGLE, _DESTINATION),
            *(*_point(6, "source x1", "source y1"), signed(7, 15, 0, "source pitch"), address(8, "source", 0)),
        ),
        least=10,
        usual=10,
    ),
    _blt(
        0x54,
        "XY_MONO_SRC_COPY_BLT",
        fields=(*_FILL, address(6, "source", 0), hexadecimal(8, "background"), hexadecimal(9, "foreground")),
        least=10,
        usual=10,
    ),
    _blt(0x55, "XY_FULL_BLT", "skip", fields=_FILL),
    _blt(0x56, "XY_FULL_MONO_SRC_BLT", "skip", fields=_FILL),
    _blt(0x57, "XY_FULL_MONO_PATTERN_BLT", "skip", fields=_FILL),
    _blt(0x58, "XY_FULL_MONO_PATTERN_MONO_SRC_BLT", "skip", fields=_FILL),
    _blt(
        0x59,
        "XY_MONO_PAT_FIXED_BLT",
        fields=(*_FILL, hexadecimal(6, "background"), hexadecimal(7, "foreground")),
        least=8,
        usual=8,
    ),
    _blt(
        0x71,
        "XY_MONO_SRC_COPY_IMMEDIATE_BLT",
        fields=(*_FILL, hexadecimal(6, "background"), hexadecimal(7, "foreground")),
        group=Group(8, 1, _INLINE),
        least=8,
    ),
    _blt(0x72, "XY_PAT_BLT_IMMEDIATE", fields=_FILL, group=Group(6, 1, _INLINE), least=6),
    _blt(0x73, "XY_SRC_COPY_CHROMA_BLT", "skip", fields=_FILL),
    _blt(0x74, "XY_FULL_IMMEDIATE_PATTERN_BLT", "skip", fields=_FILL),
    _blt(0x75, "XY_FULL_MONO_SRC_IMMEDIATE_PATTERN_BLT", "skip", fields=_FILL),
    _blt(0x76, "XY_PAT_CHROMA_BLT", "skip", fields=_FILL),
    _blt(0x77, "XY_PAT_CHROMA_BLT_IMMEDIATE", "skip", fields=_FILL),
)


def rule(opcode: int) -> Length:
    """The length of a command that has no row, whatever its opcode."""
    return BITS_7
