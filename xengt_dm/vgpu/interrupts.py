"""The interrupts of the device: from what C asks for to whoever delivers them."""

from __future__ import annotations

from typing import Protocol

from xengt_dm._core import lib
from xengt_dm.vgpu.core import GpuCore


class Trigger(Protocol):
    """What delivers an interrupt: the PCI function of the device, :class:`xengt_dm.vgpu.pci.Function`."""

    @property
    def level_triggered(self) -> bool:
        """Whether the guest hears of an interrupt again and again until there is none any more."""

    def signal(self, level: bool) -> None:
        """True: the device has an interrupt now; False: it has none any more."""


def deliver(gpu: GpuCore, trigger: Trigger) -> bool:
    """Do what C asks for. Returns whether an engine has work besides."""
    pointer = gpu.pointer
    attention = int(pointer.attention)
    if not attention:
        return False
    pointer.attention = 0
    pointer.level_triggered = trigger.level_triggered
    if attention & lib.XD_ATTENTION_INTERRUPT:
        trigger.signal(True)
    if attention & lib.XD_ATTENTION_LINE_DOWN and not lib.xd_interrupt_pending(pointer):
        trigger.signal(False)
    return bool(attention & lib.XD_ATTENTION_RUN)
