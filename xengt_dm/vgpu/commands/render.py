"""Commands to the 3D pipeline, and those that it shares with media: opcodes are bits 28:16 of the header.

Bits 28:27 are the pipeline: 0 common, 1 commands of one dword, 3 the 3D pipeline; 2 is media (``media.py``). All that
these commands do, but for PIPE_CONTROL, is rendering.

Sources: Skylake PRM volume 6 (opcodes); Mesa 24 ``src/intel/genxml`` (fields, lengths); Linux 6.1
``gvt/cmd_parser.c`` and ``i915_cmd_parser.c`` (lengths).
"""

from __future__ import annotations

from typing import Any, Final

from xengt_dm.vgpu.commands.command import (
    BITS_7,
    BITS_8,
    BITS_10,
    ONE,
    RENDER,
    Client,
    Command,
    Field,
    Group,
    Length,
    address,
    bits,
    flag,
    hexadecimal,
    offset,
    signed,
)
from xengt_dm.vgpu.commands.values import PIPELINE, TOPOLOGY, WRITES


def command(header: int, name: str, usual: int = 0, length: Length = BITS_7, **more: Any) -> Command:
    """A row; ``header``: bits 31:16 of it. The opcode is 13 bits of these."""
    return Command(name, Client.RENDER, header & 0x1FFF, length, usual=usual, **{"engines": RENDER, **more})


def _bases(*rows: tuple[int, str]) -> tuple[Field, ...]:
    return tuple(each for dword, name in rows for each in (address(dword, name, 12), flag(dword, 0, f"set {name}")))


_COMMON: Final = (
    command(0x6003, "STATE_PREFETCH", 2, fields=(offset(1, "pointer", 6), bits(1, 2, 0, "count"))),
    command(
        0x6101,
        "STATE_BASE_ADDRESS",
        19,
        fields=(
            *_bases((1, "general state"), (4, "surface state"), (6, "dynamic state"), (8, "indirect objects")),
            *_bases((10, "instructions"), (16, "bindless surface state")),
            *(offset(12, "general state size", 12), offset(13, "dynamic state size", 12)),
            *(offset(14, "indirect objects size", 12), offset(15, "instructions size", 12)),
            offset(18, "bindless surface state size", 12),
        ),
    ),
    command(0x6102, "STATE_SIP", 3, fields=(offset(1, "pointer", 4, 63),)),
    command(0x6104, "GPGPU_CSR_BASE_ADDRESS", 3, fields=(address(1, low=12),)),
)
_ONE_DWORD: Final = (
    command(0x680B, "3DSTATE_VF_STATISTICS", 1, ONE, fields=(flag(0, 0, "enable"),)),
    command(
        *(0x6904, "PIPELINE_SELECT", 1, ONE),
        fields=(
            hexadecimal(0, "mask", 15, 8),
            flag(0, 5, "force media awake"),
            flag(0, 4, "gate the media sampler's clock"),
            bits(0, 1, 0, "pipeline", PIPELINE),
        ),
    ),
)

_STAGES: Final = ("VS", "HS", "DS", "GS", "PS")
_SURFACE: Final = (address(2, low=0),)
_CONSTANTS: Final = (
    *(bits(1, 15, 0, "length 0"), bits(1, 31, 16, "length 1"), bits(2, 15, 0, "length 2"), bits(2, 31, 16, "length 3")),
    *(address(3, "buffer 0", 5), address(5, "buffer 1", 5), address(7, "buffer 2", 5), address(9, "buffer 3", 5)),
)
_URB: Final = (bits(1, 15, 0, "entries"), bits(1, 24, 16, "entry size"), bits(1, 31, 25, "start"))
_PUSH: Final = (bits(1, 5, 0, "size"), bits(1, 20, 16, "offset"))
_BUFFER: Final = Group(
    *(1, 4),
    (
        *(bits(0, 31, 26, "buffer"), flag(0, 14, "address"), flag(0, 13, "null"), bits(0, 11, 0, "pitch")),
        *(address(1, low=0), hexadecimal(3, "size")),
    ),
)
_RECTANGLE: Final = (
    *(bits(1, 15, 0, "x min"), bits(1, 31, 16, "y min"), bits(2, 15, 0, "x max"), bits(2, 31, 16, "y max")),
    *(signed(3, 15, 0, "x origin"), signed(3, 31, 16, "y origin")),
)


def _kernel(dword: int) -> tuple[Field, ...]:
    return (offset(dword, "kernel", 6, 63),)


def _pointer(low: int, high: int = 31) -> tuple[Field, ...]:
    return (offset(1, "offset", low, high),)


def _stages(header: int, name: str, usual: int, fields: tuple[Field, ...]) -> tuple[Command, ...]:
    """A command for each stage, whose opcodes follow each other in this order: VS, HS, DS, GS, PS."""
    return tuple(
        command(header + n, f"3DSTATE_{name}_{stage}", usual, fields=fields) for n, stage in enumerate(_STAGES)
    )


#: The pipelined state of the 3D pipeline.
_STATE: Final = (
    command(0x7804, "3DSTATE_CLEAR_PARAMS", 3, fields=(hexadecimal(1, "depth"), flag(2, 0, "valid"))),
    command(0x7805, "3DSTATE_DEPTH_BUFFER", 8, fields=_SURFACE),
    command(0x7806, "3DSTATE_STENCIL_BUFFER", 5, fields=_SURFACE),
    command(0x7807, "3DSTATE_HIER_DEPTH_BUFFER", 5, fields=_SURFACE),
    command(0x7808, "3DSTATE_VERTEX_BUFFERS", group=_BUFFER),
    command(0x7809, "3DSTATE_VERTEX_ELEMENTS"),
    command(0x780A, "3DSTATE_INDEX_BUFFER", 5, fields=(*_SURFACE, hexadecimal(4, "size"))),
    command(0x780B, "3DSTATE_VF_STATISTICS (3D)", 1, ONE, source="Linux 6.1 gvt/cmd_parser.c: of one dword"),
    command(0x780C, "3DSTATE_VF", 2, fields=(hexadecimal(1, "cut index"),)),
    command(0x780D, "3DSTATE_MULTISAMPLE", 2, fields=(bits(1, 3, 1, "samples (log 2)"),)),
    command(0x780E, "3DSTATE_CC_STATE_POINTERS", 2, fields=_pointer(6)),
    command(0x780F, "3DSTATE_SCISSOR_STATE_POINTERS", 2, fields=_pointer(5)),
    command(0x7810, "3DSTATE_VS", 9, fields=_kernel(1)),
    command(0x7811, "3DSTATE_GS", 10, fields=_kernel(1)),
    command(0x7812, "3DSTATE_CLIP", 4),
    command(0x7813, "3DSTATE_SF", 4),
    command(0x7814, "3DSTATE_WM", 2),
    command(0x7815, "3DSTATE_CONSTANT_VS", 11, fields=_CONSTANTS),
    command(0x7816, "3DSTATE_CONSTANT_GS", 11, fields=_CONSTANTS),
    command(0x7817, "3DSTATE_CONSTANT_PS", 11, fields=_CONSTANTS),
    command(0x7818, "3DSTATE_SAMPLE_MASK", 2, fields=(hexadecimal(1, "mask", 15),)),
    command(0x7819, "3DSTATE_CONSTANT_HS", 11, fields=_CONSTANTS),
    command(0x781A, "3DSTATE_CONSTANT_DS", 11, fields=_CONSTANTS),
    command(0x781B, "3DSTATE_HS", 9, fields=_kernel(3)),
    command(0x781C, "3DSTATE_TE", 4),
    command(0x781D, "3DSTATE_DS", 11, fields=_kernel(1)),
    command(0x781E, "3DSTATE_STREAMOUT", 5),
    command(0x781F, "3DSTATE_SBE", 6),
    command(0x7820, "3DSTATE_PS", 12, fields=_kernel(1)),
    command(0x7821, "3DSTATE_VIEWPORT_STATE_POINTERS_SF_CLIP", 2, fields=_pointer(6)),
    command(0x7823, "3DSTATE_VIEWPORT_STATE_POINTERS_CC", 2, fields=_pointer(5)),
    command(0x7824, "3DSTATE_BLEND_STATE_POINTERS", 2, fields=_pointer(6)),
    command(0x7825, "3DSTATE_DEPTH_STENCIL_STATE_POINTERS", 2, fields=_pointer(6)),
    *_stages(0x7826, "BINDING_TABLE_POINTERS", 2, _pointer(5, 15)),
    *_stages(0x782B, "SAMPLER_STATE_POINTERS", 2, _pointer(5)),
    command(0x7830, "3DSTATE_URB_VS", 2, fields=_URB),
    command(0x7831, "3DSTATE_URB_HS", 2, fields=_URB),
    command(0x7832, "3DSTATE_URB_DS", 2, fields=_URB),
    command(0x7833, "3DSTATE_URB_GS", 2, fields=_URB),
    *(command(0x7834 + n, f"3DSTATE_GATHER_CONSTANT_{each}") for n, each in enumerate(("VS", "GS", "HS", "DS", "PS"))),
    command(0x7839, "3DSTATE_DX9_CONSTANTF_VS", 0, BITS_10),
    command(0x783A, "3DSTATE_DX9_CONSTANTF_PS", 0, BITS_10),
    command(0x783B, "3DSTATE_DX9_CONSTANTI_VS"),
    command(0x783C, "3DSTATE_DX9_CONSTANTI_PS"),
    command(0x783D, "3DSTATE_DX9_CONSTANTB_VS"),
    command(0x783E, "3DSTATE_DX9_CONSTANTB_PS"),
    command(0x783F, "3DSTATE_DX9_LOCAL_VALID_VS"),
    command(0x7840, "3DSTATE_DX9_LOCAL_VALID_PS"),
    command(0x7841, "3DSTATE_DX9_GENERATE_ACTIVE_VS"),
    command(0x7842, "3DSTATE_DX9_GENERATE_ACTIVE_PS"),
    *(
        command(0x7843 + n, f"3DSTATE_BINDING_TABLE_EDIT_{each}", 0, BITS_8)
        for n, each in enumerate(("VS", "GS", "HS", "DS", "PS"))
    ),
    command(0x7848, "3DSTATE_VF_HASHING"),
    command(0x7849, "3DSTATE_VF_INSTANCING", 3),
    command(0x784A, "3DSTATE_VF_SGVS", 2),
    command(0x784B, "3DSTATE_VF_TOPOLOGY", 2, fields=(bits(1, 5, 0, "topology", TOPOLOGY),)),
    command(0x784C, "3DSTATE_WM_CHROMA_KEY", 2),
    command(0x784D, "3DSTATE_PS_BLEND", 2),
    command(0x784E, "3DSTATE_WM_DEPTH_STENCIL", 4),
    command(0x784F, "3DSTATE_PS_EXTRA", 2),
    command(0x7850, "3DSTATE_RASTER", 5),
    command(0x7851, "3DSTATE_SBE_SWIZ", 11),
    command(0x7852, "3DSTATE_WM_HZ_OP", 5),
    command(0x7853, "3DSTATE_INT"),
    command(0x7854, "3DSTATE_RS_CONSTANT_POINTER", 4),
    command(0x7855, "3DSTATE_VF_COMPONENT_PACKING", 5),
)
#: State for which the pipeline is flushed first.
_FLUSHING_STATE: Final = (
    command(0x7900, "3DSTATE_DRAWING_RECTANGLE", 4, fields=_RECTANGLE),
    command(0x7902, "3DSTATE_SAMPLER_PALETTE_LOAD0"),
    command(0x7904, "3DSTATE_CHROMA_KEY", 4),
    command(0x7906, "3DSTATE_POLY_STIPPLE_OFFSET", 2),
    command(0x7907, "3DSTATE_POLY_STIPPLE_PATTERN", 33),
    command(0x7908, "3DSTATE_LINE_STIPPLE", 3),
    command(0x790A, "3DSTATE_AA_LINE_PARAMETERS", 3),
    command(0x790B, "3DSTATE_GS_SVB_INDEX"),
    command(0x790C, "3DSTATE_SAMPLER_PALETTE_LOAD1"),
    command(0x7911, "3DSTATE_MONOFILTER_SIZE", 2),
    *_stages(0x7912, "PUSH_CONSTANT_ALLOC", 2, _PUSH),
    command(0x7917, "3DSTATE_SO_DECL_LIST", 0, BITS_8),
    command(
        *(0x7918, "3DSTATE_SO_BUFFER", 8),
        fields=(bits(1, 30, 29, "buffer"), address(2), hexadecimal(4, "size"), address(5, "offset address")),
    ),
    command(0x7919, "3DSTATE_BINDING_TABLE_POOL_ALLOC", 4, fields=(flag(1, 11, "enable"), address(1, low=12))),
    command(0x791A, "3DSTATE_GATHER_POOL_ALLOC", 4, fields=(flag(1, 11, "enable"), address(1, low=12))),
    command(0x791B, "3DSTATE_DX9_CONSTANT_BUFFER_POOL_ALLOC", 4),
    command(0x791C, "3DSTATE_SAMPLE_PATTERN", 9),
    command(0x791D, "3DSTATE_URB_CLEAR", 2),
)
_PIPE_CONTROL: Final = command(
    *(0x7A00, "PIPE_CONTROL", 6),
    does="pipe_control",
    least=6,
    fields=(
        *(flag(1, 26, "flush LLC"), flag(1, 24, "GGTT"), flag(1, 23, "LRI"), flag(1, 21, "store index")),
        *(flag(1, 20, "CS stall"), flag(1, 19, "snapshot reset"), flag(1, 18, "TLB invalidate")),
        flag(1, 16, "media state clear"),
        bits(1, 15, 14, "post-sync", WRITES),
        *(flag(1, 13, "depth stall"), flag(1, 12, "render target flush"), flag(1, 11, "instruction invalidate")),
        *(flag(1, 10, "texture invalidate"), flag(1, 9, "indirect state off"), flag(1, 8, "notify")),
        *(flag(1, 7, "flush"), flag(1, 5, "DC flush"), flag(1, 4, "VF invalidate")),
        *(flag(1, 3, "constant invalidate"), flag(1, 2, "state invalidate"), flag(1, 1, "scoreboard stall")),
        flag(1, 0, "depth flush"),
        *(address(2), hexadecimal(4, "data", 63)),
    ),
)
_PRIMITIVE: Final = command(
    *(0x7B00, "3DPRIMITIVE", 7),
    fields=(
        *(flag(0, 10, "indirect"), flag(0, 9, "UAV coherency"), flag(0, 8, "predicate")),
        *(flag(1, 9, "end offset"), bits(1, 8, 8, "access", {0: "sequential", 1: "random"})),
        bits(1, 5, 0, "topology", TOPOLOGY),
        *(bits(2, 31, 0, "vertices"), bits(3, 31, 0, "first vertex"), bits(4, 31, 0, "instances")),
        *(bits(5, 31, 0, "first instance"), signed(6, 31, 0, "base vertex")),
    ),
)

COMMANDS: Final = (*_COMMON, *_ONE_DWORD, *_STATE, *_FLUSHING_STATE, _PIPE_CONTROL, _PRIMITIVE)
