"""PVINFO and page sizes: address spaces come and go, and 64 KiB pages begin to count."""

from __future__ import annotations

from typing import Final

from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import Steps
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.behaviours.parts import OnReads, OnWrites, Parts
from xengt_dm.vgpu.mmio import Written
from xengt_dm.vgpu.registers.register import Register


def notify(parts: Parts, written: Written) -> Steps[object] | None:
    """An address space is announced, or done with; its roots are what the pdp registers hold now."""
    parts.state.probed = False
    pdps = tuple(parts.mmio.load(reg.PDP0 + 8 * n, 8) for n in range(reg.PDP_COUNT))
    match written.new:
        case reg.Notification.PPGTT_L4_CREATE:
            return parts.spaces.create_space(Mode.L4, pdps[:1])
        case reg.Notification.PPGTT_L4_DESTROY:
            return parts.spaces.destroy_space(Mode.L4, pdps[:1])
        case reg.Notification.PPGTT_L3_CREATE:
            return parts.spaces.create_space(Mode.L3, pdps)
        case reg.Notification.PPGTT_L3_DESTROY:
            return parts.spaces.destroy_space(Mode.L3, pdps)
    parts.spaces.ignore_notification()
    return None


def probe(parts: Parts, register: Register) -> None:
    """A driver looks for the device (i915_vgpu.c intel_vgpu_detect)."""
    parts.state.probed = True


def page_sizes(parts: Parts, written: Written) -> None:
    """Whether 64 KiB pages count may have changed."""
    tell_page_sizes(parts)


def tell_page_sizes(parts: Parts) -> None:
    """Tell the spaces whether 64 KiB pages count, by the register."""
    field = parts.mmio.load(reg.GAMW_ECO_DEV_RW_IA, 4) & reg.GAMW_64K_FIELD
    parts.spaces.set_64k_pages(field == reg.GAMW_64K_FIELD)


ON_READ: Final[OnReads] = {"probe": probe}
ON_WRITE: Final[OnWrites] = {"notify": notify, "page_sizes": page_sizes}
