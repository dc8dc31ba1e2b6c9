"""Resets: of the whole GT, of an engine, and how a driver prepares the latter.

A driver writes GDRST and waits until the bits that it wrote read as zero, then writes them once more (gt/intel_reset.c
gen6_hw_domain_reset). A reset is over within the write, and to do it twice is to do it once.

A driver that is replaced without a word, by kexec or after a panic, leaves address spaces that nobody takes back, whose
tables stay write-protected while the next kernel uses their frames for something else. What the next driver does first
is to look at PVINFO, and then to reset everything, before it announces anything. A full reset at that moment ends all
spaces. Any other, after a hang, leaves them.
"""

from __future__ import annotations

from typing import Final

from xengt_dm.steps import Steps
from xengt_dm.vgpu.behaviours.parts import OnWrites, Parts
from xengt_dm.vgpu.behaviours.pvinfo import tell_page_sizes
from xengt_dm.vgpu.mmio import Written
from xengt_dm.vgpu.registers.engine import ENGINES, READY_TO_RESET, REQUEST_RESET
from xengt_dm.vgpu.registers.gt import GDRST, GDRST_FULL


def gdrst(parts: Parts, written: Written) -> Steps[None] | None:
    """Drop what the engines execute, without an event, and give registers their reset values.

    Returns steps if a new driver has come that knows of no address space.
    """
    full = bool(written.new & GDRST_FULL)
    hit = [number for number, engine in enumerate(ENGINES) if full or written.new >> engine.reset_bit & 1]
    if hit:
        parts.engines.reset(hit)
    image = parts.reset_image
    if full:
        parts.mmio.fill(0, image)
        tell_page_sizes(parts)
    for each in (each for number in hit for each in ENGINES[number].ranges):
        parts.mmio.fill(each.start, image[each.start : each.stop])
    parts.mmio.store(GDRST, 4, 0)
    return _end_spaces(parts) if full and parts.state.probed else None


def _end_spaces(parts: Parts) -> Steps[None]:
    yield from parts.spaces.end_all_spaces()
    parts.state.probed = False


def reset_ctl(parts: Parts, written: Written) -> None:
    """An engine is ready for a reset as soon as it is asked."""
    asked = written.new & REQUEST_RESET
    parts.mmio.store(written.register.offset, 4, REQUEST_RESET | READY_TO_RESET if asked else 0)


ON_WRITE: Final[OnWrites] = {"gdrst": gdrst, "reset_ctl": reset_ctl}
