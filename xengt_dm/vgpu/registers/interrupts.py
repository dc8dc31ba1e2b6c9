"""The interrupt registers: master, the four banks of the GT, the power unit's bank, and the south display's.

An event of an engine passes the engine's RING_IMR and the bank's IMR and sets its bit in the bank's IIR; what is set in
IIR and in IER makes the bank pending in the master, and that is an interrupt while the master is enabled
(gt/intel_gt_irq.c gen8_gt_irq_handler, i915_irq.c gen8_irq_handler).
"""

from __future__ import annotations

from typing import Final

from xengt_dm.vgpu.registers.engine import event_fields
from xengt_dm.vgpu.registers.register import CORE, Field, Register, fields

MASTER_IRQ: Final = 0x44200
GT_BANK0: Final = 0x44300
#: By bank: the engines whose events it has, with the bit at which they begin.
GT_BANKS: Final = ((("rcs0", 0), ("bcs0", 16)), (("vcs0", 0),), (), (("vecs0", 0),))

_ALL: Final = 0xFFFFFFFF
_IRQ: Final = "i915_irq.c gen8_irq_reset, gen3_irq_reset"


def _bank(
    block: str, prefix: str, offset: int, source: str, bits: tuple[Field, ...] = (), served: str = ""
) -> tuple[Register, ...]:
    """Status, mask, identity and enable of a bank, whose masks are all set at first."""
    names = [f"{prefix}{suffix}" for suffix in ("ISR", "IMR", "IIR", "IER")]
    isr, imr, iir, ier = (
        Register(name, offset + 4 * n, source=source, block=block, fields=bits) for n, name in enumerate(names)
    )
    return (
        isr._replace(writable=0),
        imr._replace(reset=_ALL, served=served),
        iir._replace(writable=0, write_one_to_clear=_ALL, served=served),
        ier._replace(served=served),
    )


def _gt_bank(bank: int) -> tuple[Register, ...]:
    bits = [event for engine, shift in GT_BANKS[bank] for event in event_fields(shift, f"{engine.upper()}_")]
    return _bank(
        "interrupts",
        f"GT{bank}_",
        GT_BANK0 + 16 * bank,
        "i915_reg.h GEN8_GT_ISR(n); gt/intel_gt_irq.c gen8_gt_irq_handler",
        tuple(bits),
        CORE,
    )


REGISTERS: Final = (
    Register(
        "MASTER_IRQ",
        MASTER_IRQ,
        source="i915_reg.h GEN8_MASTER_IRQ; i915_irq.c gen8_irq_handler",
        block="interrupts",
        fields=fields("RCS0:0 BCS0:1 VCS0:2 VCS1:3 PM:4 GUC:5 VECS0:6 ENABLE:31"),
        served=CORE,
    ),
    *(row for bank in range(4) for row in _gt_bank(bank)),
    *_bank("interrupts", "PCU_", 0x444E0, _IRQ),
    *_bank("interrupts", "SDE", 0xC4000, "i915_irq.c ibx_irq_reset, ibx_irq_postinstall: SDEIIR must read zero"),
)
