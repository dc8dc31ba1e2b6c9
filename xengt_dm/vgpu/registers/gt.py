"""Registers of the graphics technology block (GT) that are not an engine's."""

from __future__ import annotations

from typing import Final

from xengt_dm.vgpu.registers.register import Register

#: Its low 4 bits all set make the IPS bit of a page-directory entry count, on generation 9.
GAMW_ECO_DEV_RW_IA: Final = 0x4080
GAMW_64K_FIELD: Final = 0xF

#: The registers by which a driver has an engine's TLB invalidated, and what it writes. The bit reads as 0 afterwards.
TLB_INVALIDATES: Final = {"RTCR": 0x4260, "M1TCR": 0x4264, "BTCR": 0x426C, "VTCR": 0x4270}
TLB_INVALIDATE: Final = 1

REGISTERS: Final = (
    Register(
        "GAMW_ECO_DEV_RW_IA",
        GAMW_ECO_DEV_RW_IA,
        source="Linux 6.1 gt/intel_gt_regs.h; gt/intel_gtt.c gtt_write_workarounds sets the field",
        on_write="page_sizes",
    ),
    *(
        Register(
            f"GEN8_{name}",
            offset,
            source="Linux 6.1 gt/intel_gt_regs.h; gt/intel_gt.c intel_gt_invalidate_tlbs",
            writable=0,
            on_write="invalidate_tlb",
        )
        for name, offset in TLB_INVALIDATES.items()
    ),
)
