"""Commands to the media pipeline of the render engine (GPGPU included), to the video and the enhancement engine.

Opcodes are bits 28:16 of the header, as in ``render.py``. Bits 28:27 are 2 in nearly all of them, so the same header
means one thing to one engine and another to the next. Nothing of it is executed.

Sources: Skylake PRM volume 6 (opcodes), 8 "MFX", 9 "VEBOX", 10 "HEVC", 15 "SFC"; Mesa 24 ``src/intel/genxml`` and the
Intel media driver's ``gen9_skl/hw`` (HCP, HUC, VDENC, SFC, lengths); Linux 6.1 ``i915_cmd_parser.c`` (lengths).
"""

from __future__ import annotations

from typing import Final

from xengt_dm.vgpu.commands.command import (
    BITS_7,
    BITS_11,
    BITS_15,
    ENHANCEMENT,
    ONE,
    RENDER,
    VIDEO,
    Command,
    Length,
    bits,
    flag,
    hexadecimal,
    offset,
)
from xengt_dm.vgpu.commands.render import command

_LOAD: Final = (bits(2, 16, 0, "length"), hexadecimal(3, "start"))
_RENDER: Final = (
    command(
        *(0x7000, "MEDIA_VFE_STATE", 9, BITS_15),
        fields=(offset(1, "scratch", 10, 47), bits(3, 31, 16, "threads"), bits(3, 15, 8, "URB entries")),
    ),
    command(0x7001, "MEDIA_CURBE_LOAD", 4, BITS_15, fields=_LOAD),
    command(0x7002, "MEDIA_INTERFACE_DESCRIPTOR_LOAD", 4, BITS_15, fields=_LOAD),
    command(0x7004, "MEDIA_STATE_FLUSH", 2, BITS_15, fields=(flag(1, 7, "flush to GO"), bits(1, 5, 0, "descriptor"))),
    command(0x7100, "MEDIA_OBJECT", 0, BITS_15),
    command(0x7102, "MEDIA_OBJECT_PRT", 16, BITS_15),
    command(0x7103, "MEDIA_OBJECT_WALKER", 0, BITS_15),
    command(0x7104, "GPGPU_OBJECT", 0, BITS_7, source="Linux 6.1 i915_cmd_parser.c"),
    # Bits 8 and 10 of its header are flags, so the length of the other media commands would be wrong by hundreds.
    command(
        *(0x7105, "GPGPU_WALKER", 15, BITS_7),
        fields=(
            *(flag(0, 10, "indirect"), flag(0, 8, "predicate"), bits(1, 5, 0, "descriptor")),
            bits(4, 31, 30, "SIMD", {0: "8", 1: "16", 2: "32"}),
            *(bits(7, 31, 0, "x groups"), bits(10, 31, 0, "y groups"), bits(12, 31, 0, "z groups")),
        ),
    ),
    command(0x7106, "MEDIA_OBJECT_GRPID", 0, BITS_15),
)


def _video(names: dict[int, str]) -> tuple[Command, ...]:
    return tuple(command(header, name, 0, BITS_11, engines=VIDEO) for header, name in names.items())


_MFX: Final = {
    0x7000: "MFX_PIPE_MODE_SELECT",
    0x7001: "MFX_SURFACE_STATE",
    0x7002: "MFX_PIPE_BUF_ADDR_STATE",
    0x7003: "MFX_IND_OBJ_BASE_ADDR_STATE",
    0x7004: "MFX_BSP_BUF_BASE_ADDR_STATE",
    0x7006: "MFX_STATE_POINTER",
    0x7007: "MFX_QM_STATE",
    0x7008: "MFX_FQM_STATE",
    0x7009: "MFX_DBK_OBJECT",
    0x7029: "MFD_IT_OBJECT",
    0x7048: "MFX_PAK_INSERT_OBJECT",
    0x704A: "MFX_STITCH_OBJECT",
    0x7100: "MFX_AVC_IMG_STATE",
    0x7101: "MFX_AVC_QM_STATE",
    0x7102: "MFX_AVC_DIRECTMODE_STATE",
    0x7103: "MFX_AVC_SLICE_STATE",
    0x7104: "MFX_AVC_REF_IDX_STATE",
    0x7105: "MFX_AVC_WEIGHTOFFSET_STATE",
    0x7125: "MFD_AVC_PICID_STATE",
    0x7126: "MFD_AVC_DPB_STATE",
    0x7127: "MFD_AVC_SLICEADDR",
    0x7128: "MFD_AVC_BSD_OBJECT",
    0x7142: "MFC_AVC_FQM_STATE",
    0x7148: "MFC_AVC_PAK_INSERT_OBJECT",
    0x7149: "MFC_AVC_PAK_OBJECT",
    0x7200: "MFX_VC1_PIC_STATE",
    0x7201: "MFX_VC1_PRED_PIPE_STATE",
    0x7202: "MFX_VC1_DIRECTMODE_STATE",
    0x7220: "MFD_VC1_SHORT_PIC_STATE",
    0x7221: "MFD_VC1_LONG_PIC_STATE",
    0x7228: "MFD_VC1_BSD_OBJECT",
    0x7300: "MFX_MPEG2_PIC_STATE",
    0x7301: "MFX_MPEG2_QM_STATE",
    0x7328: "MFD_MPEG2_BSD_OBJECT",
    0x7343: "MFC_MPEG2_SLICEGROUP_STATE",
    0x7349: "MFC_MPEG2_PAK_OBJECT",
    0x7400: "MFX_VP8_PIC_STATE",
    0x7428: "MFD_VP8_BSD_OBJECT",
    0x7441: "MFX_VP8_ENCODER_CFG",
    0x7443: "MFX_VP8_BSP_BUF_BASE_ADDR_STATE",
    0x7449: "MFX_VP8_PAK_OBJECT",
    0x7700: "MFX_JPEG_PIC_STATE",
    0x7702: "MFX_JPEG_HUFF_TABLE_STATE",
    0x7728: "MFD_JPEG_BSD_OBJECT",
    0x7743: "MFC_JPEG_HUFF_TABLE_STATE",
    0x7749: "MFC_JPEG_SCAN_OBJECT",
    0x7780: "VD_PIPELINE_FLUSH",
}
_VDENC: Final = {
    0x7080: "VDENC_PIPE_MODE_SELECT",
    0x7081: "VDENC_SRC_SURFACE_STATE",
    0x7082: "VDENC_REF_SURFACE_STATE",
    0x7083: "VDENC_DS_REF_SURFACE_STATE",
    0x7084: "VDENC_PIPE_BUF_ADDR_STATE",
    0x7085: "VDENC_IMG_STATE",
    0x7086: "VDENC_CONST_QPT_STATE",
    0x7087: "VDENC_WALKER_STATE",
    0x7088: "VDENC_WEIGHTSOFFSETS_STATE",
}
_HCP: Final = {
    0x7380: "HCP_PIPE_MODE_SELECT",
    0x7381: "HCP_SURFACE_STATE",
    0x7382: "HCP_PIPE_BUF_ADDR_STATE",
    0x7383: "HCP_IND_OBJ_BASE_ADDR_STATE",
    0x7384: "HCP_QM_STATE",
    0x7385: "HCP_FQM_STATE",
    0x7388: "HEVC_VP9_RDOQ_STATE",
    0x7390: "HCP_PIC_STATE",
    0x7391: "HCP_TILE_STATE",
    0x7392: "HCP_REF_IDX_STATE",
    0x7393: "HCP_WEIGHTOFFSET_STATE",
    0x7394: "HCP_SLICE_STATE",
    0x73A0: "HCP_BSD_OBJECT",
    0x73A1: "HCP_PAK_OBJECT",
    0x73A2: "HCP_PAK_INSERT_OBJECT",
    0x73B0: "HCP_VP9_PIC_STATE",
    0x73B2: "HCP_VP9_SEGMENT_STATE",
}
_HUC: Final = {
    0x7580: "HUC_PIPE_MODE_SELECT",
    0x7581: "HUC_IMEM_STATE",
    0x7582: "HUC_DMEM_STATE",
    0x7583: "HUC_CFG_STATE",
    0x7584: "HUC_VIRTUAL_ADDR_STATE",
    0x7585: "HUC_IND_OBJ_BASE_ADDR_STATE",
    0x75A0: "HUC_STREAM_OBJECT",
    0x75A1: "HUC_START",
}
_VEBOX: Final = {
    0x7400: ("VEBOX_SURFACE_STATE", 9),
    0x7401: ("VEBOX_TILING_CONVERT", 5),
    0x7402: ("VEBOX_STATE", 16),
    0x7403: ("VEBOX_DI_IECP", 0),
}
#: The scaler, of which both the video and the enhancement engine have one.
_SFC: Final = {
    0x7500: "SFC_LOCK",
    0x7501: "SFC_STATE",
    0x7502: "SFC_AVS_STATE",
    0x7503: "SFC_IEF_STATE",
    0x7504: "SFC_FRAME_START",
    0x7505: "SFC_AVS_LUMA_COEFF_TABLE",
    0x7506: "SFC_AVS_CHROMA_COEFF_TABLE",
}

COMMANDS: Final = (
    *_RENDER,
    command(0x6800, "MFX_WAIT", 1, ONE, engines=VIDEO, does="nothing"),
    *_video({**_MFX, **_VDENC, **_HCP, **_HUC}),
    *(command(header, name, usual, BITS_11, engines=ENHANCEMENT) for header, (name, usual) in _VEBOX.items()),
    *(command(header, name, 0, BITS_11, engines=(*VIDEO, *ENHANCEMENT)) for header, name in _SFC.items()),
)


def rule(engine: str, opcode: int) -> Length:
    """The length of a command of ``render.py`` or of this file that has no row."""
    pipeline = opcode >> 11
    if pipeline == 1:
        return ONE
    if pipeline == 2:
        return BITS_15 if engine in RENDER else BITS_11
    return BITS_7
