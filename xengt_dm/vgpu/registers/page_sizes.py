"""The register that says whether 64 KiB pages count."""

from __future__ import annotations

from typing import Final

from xengt_dm.vgpu.registers.register import Register, fields

#: Its low 4 bits all set make the IPS bit of a page-directory entry count, on generation 9.
GAMW_ECO_DEV_RW_IA: Final = 0x4080
GAMW_64K_FIELD: Final = 0xF

REGISTERS: Final = (
    Register(
        "GAMW_ECO_DEV_RW_IA",
        GAMW_ECO_DEV_RW_IA,
        source="Linux 6.1 gt/intel_gt_regs.h; gt/intel_gtt.c gtt_write_workarounds sets the field",
        on_write="page_sizes",
        block="gt",
        fields=fields("ENABLE_64K_IPS:3-0 CTX_RELOAD_DISABLE:7"),
    ),
)
