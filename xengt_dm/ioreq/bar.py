"""A base address register (BAR): the range that it has on the bus and at the ioreq server, and how the range moves.

Without a PCI function, BAR0 gets its range when the instance starts and keeps it. With one, :class:`Bars` moves each
BAR when the guest writes to it or to the command register.

How a range moves
-----------------
Facts: while one vCPU moves a BAR, others may access the device. Xen chooses the server for an access by its ranges, and
puts the request into the vCPU's slot a moment later. So a request for the old address may come after the old range was
removed. A barrier (pausing the domain, see docs/glossary.md) waits until every such request is in its slot.

What follows: if the old range were removed before the new one is added, accesses to both addresses would be lost for a
moment. If the bus removed the old range at the same time as Xen, it would take a late request for a store to memory.

What we do, between two requests, in the serving thread:

1. Add the new range on the bus and at the server.
2. Remove the old range at the server.
3. Make a barrier. Each request for the old address that Xen sent to us is in its slot now.
4. Remove the old range on the bus, which still serves the requests of these slots at the device.

Cost: three hypercalls and one pause of the domain for each move. An access to the old address that begins after the
move reaches no device, as on hardware.

A guest may put a BAR over its own RAM. Xen sends no request for an access to plain RAM, but a store to a
write-protected frame there goes to a register, so neither the guest's memory nor the shadow changes. A guard range of
such a frame is a part of the BAR's range, and its removal leaves a hole in the BAR. This harms no other guest, and the
daemon goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from xengt_dm.errors import HostError
from xengt_dm.hypervisor.best_effort import retry_once
from xengt_dm.ioreq.bus import Bus
from xengt_dm.ioreq.devices import BusDevice, Kind, RangeError
from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.ioreq.server import IoreqServer
from xengt_dm.units import CData


class Bar:
    """A memory BAR of ``size`` bytes, whose accesses go to ``device``. At first it is not mapped.

    Methods raise CallError if the hypervisor refuses. The server must be enabled.
    """

    def __init__(
        self, bus: Bus, device: BusDevice, size: int, server: IoreqServer, registers: CData | None = None
    ) -> None:
        """``registers``: as in :meth:`Bus.insert`."""
        self._bus: Final = bus
        self._device: Final = device
        self._server: Final = server
        self._registers: Final = registers
        self.size: Final = size
        #: Its gpa; None while it is not mapped.
        self.address: int | None = None

    def range_at(self, address: int) -> Range:
        """Returns the range that the BAR has at ``address``."""
        return Range(RangeKind.MEMORY, address, address + self.size - 1)

    def map(self, address: int) -> None:
        """Maps the BAR, which is not mapped, at ``address``. The server may have the range from a predecessor.

        Also raises RangeError, if another device is there. If it raises, nothing has changed.
        """
        self._bus.insert(Kind.MEMORY, address, self.size, self._device, self._registers)
        try:
            self._server.add_range(self.range_at(address))
        except BaseException:
            self._bus.remove(Kind.MEMORY, address)
            raise
        self.address = address

    def move(self, address: int) -> None:
        """Moves the BAR to ``address``, or maps it there if it is not mapped.

        Raises as :meth:`map`. If it raises because the old range cannot be removed, the BAR is at ``address`` even so.
        """
        old = self.address
        if address != old:
            self.map(address)
            if old is not None:
                self._remove_range(old)

    def unmap(self) -> None:
        """Unmaps the BAR. If it raises, the BAR is not mapped even so."""
        old, self.address = self.address, None
        if old is not None:
            self._remove_range(old)

    def _remove_range(self, address: int) -> None:
        old = self.range_at(address)
        late: list[int] = []  # vCPUs
        try:
            self._server.remove_range(old)
            retry_once(self._server.enable)  # the barrier
            late = self._server.slots.waiting_in(old.first, old.last)
        finally:
            self._bus.remove(Kind.MEMORY, address, late)


class Bars:
    """The BARs of a PCI function by their numbers, placed as the guest says."""

    def __init__(self, bars: Mapping[int, Bar]) -> None:
        self._bars: Final = bars

    def place(self, number: int, address: int | None) -> None:
        """Moves a BAR to ``address``, or unmaps it if that is None.

        The guest chooses the address. If another device is there, or if the hypervisor gives us no range there, the BAR
        is nowhere. Raises CallError if the old range cannot be removed.
        """
        bar = self._bars[number]
        if address is None:
            bar.unmap()
            return
        try:
            bar.move(address)
        except (RangeError, HostError):
            if bar.address == address:  # it is there, and the old range is what failed
                raise
            bar.unmap()
