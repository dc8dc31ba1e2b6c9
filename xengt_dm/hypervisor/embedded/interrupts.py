"""Interrupts that device models inject: which of them reach a vCPU, and a record of those.

Sources: hvm_inject_msi in xen/arch/x86/hvm/irq.c, vmsi_deliver in vmsi.c, vlapic_match_dest in vlapic.c,
set_pci_intx_level in dm.c, Xen 4.17.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

#: Delivery modes, bits 8 to 10 of the data.
_FIXED, _LOWEST_PRIORITY = 0, 1


class Msi(NamedTuple):
    """A message-signalled interrupt, as the device model gave it."""

    address: int
    data: int


class Interrupts:
    """What comes in for the local APICs of ``vcpus`` vCPUs, which the guest has ``enabled`` or not.

    An APIC's physical id is twice its vCPU's number, as Xen gives it; its logical id is one bit, the vCPU's, as guests
    with up to eight vCPUs set it. Any thread may call the methods.
    """

    def __init__(self, vcpus: int, enabled: bool) -> None:
        self._vcpus = vcpus
        self._enabled = enabled
        self._lock = threading.Lock()
        #: Those that reached a vCPU, oldest first.
        self.msis: list[Msi] = []
        #: Levels of the lines that were ever driven, by device and pin, in segment 0 and on bus 0.
        self.intx: dict[tuple[int, int], bool] = {}

    def inject_msi(self, address: int, data: int) -> bool:
        """Returns whether Xen accepts the interrupt. An accepted one that reaches no vCPU is not recorded."""
        destination = address >> 12 & 0xFF
        if data & 0xFF == 0:
            # Vector 0 selects an event channel of the guest, a pirq, by its number; no guest binds one here.
            return bool((address >> 32 & 0xFFFFFF00) | destination)
        mode = data >> 8 & 7
        if mode not in (_FIXED, _LOWEST_PRIORITY):
            return False
        reached = self._enabled and self._reaches(destination, logical=bool(address & 4))
        if reached:
            with self._lock:
                self.msis.append(Msi(address, data))
        return reached or mode == _FIXED

    def _reaches(self, destination: int, logical: bool) -> bool:
        if logical:
            return any(destination & 1 << vcpu for vcpu in range(min(self._vcpus, 8)))
        return destination == 0xFF or (destination % 2 == 0 and destination // 2 < self._vcpus)

    def set_intx(self, sbdf: int, pin: int, asserted: bool) -> bool:
        """Drive a line; False if Xen refuses it (EINVAL)."""
        if sbdf >> 8 or not 0 <= pin <= 3:
            return False
        with self._lock:
            self.intx[sbdf >> 3, pin] = asserted
        return True
