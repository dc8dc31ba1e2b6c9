"""The registers by which a driver has the TLB of an engine invalidated."""

from __future__ import annotations

from typing import Final

from xengt_dm.vgpu.registers.register import CORE, Register, fields

#: By engine, in the order of ENGINES.
TLB_INVALIDATE: Final = (0x4260, 0x426C, 0x4264, 0x4270)
#: What the driver writes. The bit reads as 0 afterwards.
TLB_BIT: Final = 1

REGISTERS: Final = tuple(
    Register(
        name,
        offset,
        source=f"gt/intel_gt.c mmio_invalidate_full, gt/intel_gt_regs.h GEN8_{name}",
        on_write="tlb",
        block="gt",
        fields=fields("INVALIDATE:0"),
        served=CORE,
    )
    for name, offset in (("RTCR", 0x4260), ("M1TCR", 0x4264), ("M2TCR", 0x4268), ("BTCR", 0x426C), ("VTCR", 0x4270))
)
