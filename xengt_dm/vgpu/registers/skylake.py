"""The registers of BAR0 of a Skylake GT2 (8086:1912) without a display."""

from __future__ import annotations

from typing import Final

from xengt_dm.vgpu.registers import display, engine, gt, interrupts, page_sizes, pvinfo, render, tlb
from xengt_dm.vgpu.registers.register import Register

#: A full reset gives the memory below this offset its reset values. Interrupt registers, PVINFO, fences and the GGTT
#: stay (gvt/mmio.c intel_vgpu_reset_mmio, GVT_GEN8_MMIO_RESET_OFFSET).
RESET_END: Final = 0x44200
REGISTERS: Final[tuple[Register, ...]] = (
    *pvinfo.REGISTERS,
    *page_sizes.REGISTERS,
    *gt.REGISTERS,
    *tlb.REGISTERS,
    *engine.REGISTERS,
    *render.REGISTERS,
    *interrupts.REGISTERS,
    *display.REGISTERS,
)
