"""The TLBs: a driver invalidates one before it gives an object's pages away, and waits until the bit reads as zero."""

from __future__ import annotations

from typing import Final

from xengt_dm.steps import Steps
from xengt_dm.vgpu.behaviours.parts import OnWrites, Parts
from xengt_dm.vgpu.mmio import Written
from xengt_dm.vgpu.registers.tlb import TLB_BIT, TLB_INVALIDATE


def tlb(parts: Parts, written: Written) -> Steps[None] | None:
    """What the engine may use of its tables from now on is what they say by now."""
    if not written.new & TLB_BIT:
        return None
    offset = written.register.offset
    parts.mmio.store(offset, 4, written.new & ~TLB_BIT)
    return parts.engines.invalidate_tlb(TLB_INVALIDATE.index(offset)) if offset in TLB_INVALIDATE else None


ON_WRITE: Final[OnWrites] = {"tlb": tlb}
