"""Registers of the graphics technology block (GT) that are not an engine's: resets, faults, fuses, clocks, power.

Sources are files of ``drivers/gpu/drm/i915/`` of Linux 6.1 and symbols in them.
"""

from __future__ import annotations

from typing import Any, Final

from xengt_dm.vgpu.registers.register import CORE, Register, fields

GDRST: Final = 0x941C
GDRST_FULL: Final = 1 << 0

#: What RING_TIMESTAMP counts in a microsecond, by CTC_MODE.
TIMESTAMP_MHZ: Final = 24 >> 3 - 2

_GT: Final = "gt/intel_gt_regs.h"


def _row(name: str, offset: int, source: str = _GT, size: int = 4, **more: Any) -> Register:
    return Register(name, offset, size, f"{source} {name}" if source == _GT else source, block="gt")._replace(**more)


def _fixed(name: str, offset: int, value: int, source: str, bits: str = "") -> Register:
    """A register that always reads as ``value``."""
    return Register(name, offset, source=source, reset=value, writable=0, block="gt", fields=fields(bits))


_FUSES: Final = (
    _fixed(
        "FUSE2",
        0x9120,
        0x02800000,
        "gt/intel_sseu.c gen9_sseu_info_init: one slice, three subslices",
        "SUBSLICE_DISABLE:23-20 SLICE_ENABLE:27-25",
    ),
    _fixed(
        "EU_DISABLE0",
        0x9134,
        0,
        "gt/intel_sseu.c gen9_sseu_info_init: 8 execution units in each subslice",
        "SUBSLICE0:7-0 SUBSLICE1:15-8 SUBSLICE2:23-16 SUBSLICE3:31-24",
    ),
    _fixed("EU_DISABLE1", 0x9138, 0, "gt/intel_sseu.c gen9_sseu_info_init"),
    _fixed("EU_DISABLE2", 0x913C, 0, "gt/intel_sseu.c gen9_sseu_info_init"),
    _fixed("EDRAM_CAP", 0x120010, 0, "i915_reg.h HSW_EDRAM_CAP; intel_dram.c intel_dram_edram_detect", "ENABLED:0"),
    _fixed(
        "CTC_MODE",
        0xA26C,
        0x4,
        "gt/intel_gt_clock_utils.c gen9_read_clock_frequency",
        "SOURCE_DIVIDE_LOGIC:0 SHIFT:2-1",
    ),
)

_RESETS: Final = (
    _row(
        "GDRST",
        GDRST,
        "gt/intel_reset.c gen6_hw_domain_reset",
        on_write="gdrst",
        fields=fields("FULL:0 RENDER:1 MEDIA:2 BLT:3 VECS:4 GUC:5 MEDIA2:7"),
    ),
    _fixed("GUC_STATUS", 0xC000, 1, "gt/uc/intel_uc.c __intel_uc_reset_hw: always in reset", "MIA_IN_RESET:0"),
    _row("GUC_WOPCM_SIZE", 0xC050, "gt/uc/intel_guc_reg.h GUC_WOPCM_SIZE; read once by intel_wopcm_init"),
    _row("DMA_GUC_WOPCM_OFFSET", 0xC340, "gt/uc/intel_guc_reg.h; read once by intel_wopcm_init"),
    _row("GUCPMTIMESTAMP", 0xC3E8),
)

_FAULT_FIELDS: Final = fields("VALID:0 FAULT_TYPE:2-1 SOURCE:10-3 GGTT:11 ENGINE:14-12")
_MEMORY: Final = (
    _row("GTT_CACHE_EN", 0x4024, "gt/intel_gtt.c gtt_write_workarounds; drm_WARN_ONCE if it reads zero"),
    _row("GAM_ECOCHK", 0x4090, fields=fields("DIS_TLB:8 DISABLE_HDC_INVALIDATION:25")),
    _row("RING_FAULT_REG", 0x4094, "gt/intel_gt.c gen8_check_faults", fields=_FAULT_FIELDS),
    _row("PRIVATE_PAT", 0x40E0, "gt/intel_gtt.c bdw_setup_private_ppat", 8),
    _row("GAMT_ECO_REG_RW_IA", 0x4AB0, fields=fields("ENABLE_IN_PLACE_DECOMPRESS:18")),
    _row("FAULT_TLB_DATA0", 0x4B10, "gt/intel_gt.c gen8_check_faults"),
    _row("FAULT_TLB_DATA1", 0x4B14, "gt/intel_gt.c gen8_check_faults", fields=fields("VA_HIGH:3-0 GGTT:4")),
    _row("L3_LRA_1_GPGPU", 0x4DD4),
    _row("MMCD_MISC_CTRL", 0x4DDC, fields=fields("HOTSPOT_EN:27 PCLA:31")),
    _row("FBC_LLC_READ_CTRL", 0x9044, fields=fields("FBC_LLC_FULLY_OPEN:30")),
    _row("GFX_FLSH_CNTL", 0x101008, "gt/intel_ggtt.c gen8_ggtt_invalidate", served=CORE, fields=fields("EN:0")),
)

_CONTROL: Final = (
    _row("MCR_SELECTOR", 0xFDC, fields=fields("SUBSLICE:25-24 SLICE:27-26")),
    _row("UCGCTL4", 0x940C, fields=fields("EU_GAUNIT_CLOCK_GATE_DISABLE:14")),
    _row("MISCCPCTL", 0x9424, fields=fields("DOP_CLOCK_GATE_ENABLE:0 DOP_CLOCK_GATE_CFCLK_ENABLE:2")),
    *(_row(f"SLICE{n}_PGCTL_ACK", 0x804C + 4 * n, "gt/intel_gt_regs.h GEN9_SLICE_PGCTL_ACK") for n in range(3)),
    *(
        _row(f"SS{pair}_EU_PGCTL_ACK{n}", 0x805C + 8 * n + at, f"gt/intel_gt_regs.h GEN9_SS{pair}_EU_PGCTL_ACK")
        for n in range(3)
        for pair, at in (("01", 0), ("23", 4))
    ),
)

#: Frequencies and sleep states. 0 says that there is one frequency, so a driver never changes it.
_POWER: Final = (
    _row("RPNSWREQ", 0xA008),
    _row("RC_VIDEO_FREQ", 0xA00C),
    _row("RP_DOWN_TIMEOUT", 0xA010),
    _row("RP_INTERRUPT_LIMITS", 0xA014),
    _row("RPSTAT1", 0xA01C, writable=0),
    _row("RP_CONTROL", 0xA024),
    _row("RP_UP_THRESHOLD", 0xA02C),
    _row("RP_DOWN_THRESHOLD", 0xA030),
    *(
        _row(name, 0xA050 + 4 * n, writable=0)
        for n, name in enumerate(
            ("RP_CUR_UP_EI", "RP_CUR_UP", "RP_PREV_UP", "RP_CUR_DOWN_EI", "RP_CUR_DOWN", "RP_PREV_DOWN")
        )
    ),
    _row("RP_UP_EI", 0xA068),
    _row("RP_DOWN_EI", 0xA06C),
    _row("RC_CONTROL", 0xA090),
    _row("RC_STATE", 0xA094),
    _row("PMINTRMSK", 0xA168),
    _row("PG_ENABLE", 0xA210, fields=fields("RENDER:0 MEDIA:1")),
    _row("PWRGT_DOMAIN_STATUS", 0xA2A0, fields=fields("MEDIA:0 RENDER:1")),
    _fixed(
        "RP_STATE_CAP",
        0x145998,
        0,
        "intel_mchbar_regs.h GEN6_RP_STATE_CAP; gt/intel_rps.c gen6_rps_init",
        "RP0:7-0 RP1:15-8 RPN:23-16",
    ),
    _fixed("RP_STATE_LIMITS", 0x145994, 0, "intel_mchbar_regs.h GEN6_RP_STATE_LIMITS"),
    _fixed("GT_PERF_STATUS", 0x145948, 0, "intel_mchbar_regs.h GEN6_GT_PERF_STATUS"),
    _fixed("DCLK", 0x145E04, 0, "intel_mchbar_regs.h DCLK; gt/intel_llc.c get_ia_constants"),
    _fixed("GT_THREAD_STATUS", 0x13805C, 0, "gt/intel_gt_regs.h GEN6_GT_THREAD_STATUS_REG"),
    _fixed("GT_CORE_STATUS", 0x138060, 0, "gt/intel_gt_regs.h GEN6_GT_CORE_STATUS"),
    *(
        _fixed(name, 0x138104 + 4 * n, 0, f"gt/intel_gt_regs.h GEN6_{name}")
        for n, name in enumerate(("GT_GFX_RC6_LOCKED", "GT_GFX_RC6", "GT_GFX_RC6p", "GT_GFX_RC6pp"))
    ),
)

_WAKE_FIELDS: Final = fields("KERNEL:0 USER:1 KERNEL_FALLBACK:15")
#: By the name of a domain: where it is requested, and where that is acknowledged.
FORCEWAKES: Final = {"RENDER": (0xA278, 0xD84), "MEDIA": (0xA270, 0xD88), "GT": (0xA188, 0x130044)}
_FORCEWAKE: Final = (
    *(
        _row(
            f"FORCEWAKE_{name}",
            request,
            "intel_uncore.c fw_domain_get",
            masked=True,
            on_write="forcewake",
            fields=_WAKE_FIELDS,
        )
        for name, (request, _) in FORCEWAKES.items()
    ),
    *(
        _row(f"FORCEWAKE_ACK_{name}", ack, "intel_uncore.c fw_domain_wait_ack_set", writable=0, fields=_WAKE_FIELDS)
        for name, (_, ack) in FORCEWAKES.items()
    ),
)

PCODE_MAILBOX: Final = 0x138124
PCODE_DATA: Final = 0x138128
PCODE_DATA1: Final = 0x13812C
PCODE_READY: Final = 1 << 31
PCODE_SUCCESS: Final = 0
PCODE_ILLEGAL_COMMAND: Final = 1
_PCODE: Final = (
    _row(
        "PCODE_MAILBOX",
        PCODE_MAILBOX,
        "intel_pcode.c __snb_pcode_rw",
        on_write="pcode",
        fields=fields("COMMAND:7-0 PARAMETERS:28-8 READY:31"),
    ),
    _row("PCODE_DATA", PCODE_DATA, "intel_pcode.c __snb_pcode_rw"),
    _row("PCODE_DATA1", PCODE_DATA1, "intel_pcode.c __snb_pcode_rw"),
)

_MOCS_FIELDS: Final = fields("CACHEABILITY:1-0 TARGET_CACHE:3-2 LRU_AGE:5-4")
_L3_FIELDS: Final = fields("ESC_0:0 SCC_0:3-1 L3_0:5-4 ESC_1:16 SCC_1:19-17 L3_1:21-20")
_MOCS: Final = (
    *(
        Register(
            f"{block}.MOCS{n}",
            base + 4 * n,
            source="gt/intel_mocs.c __init_mocs_table, mocs_offset",
            block=block,
            fields=_MOCS_FIELDS,
        )
        for block, base in (("rcs0", 0xC800), ("vcs0", 0xC900), ("vecs0", 0xCB00), ("bcs0", 0xCC00))
        for n in range(64)
    ),
    *(
        Register(
            f"LNCFCMOCS{n}", 0xB020 + 4 * n, source="gt/intel_mocs.c init_l3cc_table", block="rcs0", fields=_L3_FIELDS
        )
        for n in range(32)
    ),
)

FENCES: Final = 32
_FENCES: Final = tuple(
    _row(
        f"FENCE{n}",
        0x100000 + 8 * n,
        "gt/intel_ggtt_fencing.c i965_write_fence_reg",
        8,
        fields=fields("VALID:0 Y:1 START:31-12 PITCH_LESS_1:42-32 LAST:63-44"),
    )
    for n in range(FENCES)
)

REGISTERS: Final = (
    *_FUSES,
    *_RESETS,
    *_MEMORY,
    *_CONTROL,
    *_POWER,
    *_FORCEWAKE,
    *_PCODE,
    *_MOCS,
    *_FENCES,
)
