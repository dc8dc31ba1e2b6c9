"""A base address register's range: where it is, on the bus and at the ioreq server, and how it moves.

How a range moves
-----------------
Facts: A guest moves a BAR on one vCPU while others may access the device. Xen chooses the server for an access by its
ranges, and puts the request into the vCPU's slot a moment later. So a request for the old address may come after the
old range was taken away. Pausing the domain, which a change of the server's state does even if nothing changes, waits
for what is between these two.

What follows: if the old range went first, accesses to either address would go nowhere for a moment. If the bus forgot
the old range with Xen, an access on its way would be taken for one to guest memory.

What we do: the bus and the server learn the new range; then the server forgets the old one; then the domain is paused
and goes on; by then each access to the old address that Xen gave us is in its slot, and the bus does exactly these at
the device before it forgets the old range, too. All of this happens between two requests, in the serving thread.

Cost: three hypercalls and one pause of the domain for each move. An access to the old address that begins after the
move goes to nobody, as on hardware.

The caller keeps BARs away from RAM: Xen never asks for an access to RAM, but a page that traps would be taken for a
register.
"""

from __future__ import annotations

from typing import Final

from xengt_dm.hypervisor.best_effort import retry_once
from xengt_dm.ioreq.bus import Bus, BusDevice, Kind
from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.ioreq.server import IoreqServer


class Bar:
    """The range of a memory BAR with ``device`` behind it, ``size`` bytes; at first it is nowhere.

    Methods raise CallError if the hypervisor refuses. The server must be enabled.
    """

    def __init__(self, bus: Bus, device: BusDevice, size: int, server: IoreqServer) -> None:
        self._bus: Final = bus
        self._device: Final = device
        self._server: Final = server
        self.size: Final = size
        #: Its gpa; None if it is nowhere.
        self.address: int | None = None

    def range_at(self, address: int) -> Range:
        """The range that the BAR has at ``address``."""
        return Range(RangeKind.MEMORY, address, address + self.size - 1)

    def map(self, address: int) -> None:
        """Put the BAR, which is nowhere, at ``address``. A predecessor may have left the server this range.

        Raises RangeError, too, if another device is there. If it raises, nothing has changed.
        """
        self._bus.insert(Kind.MEMORY, address, self.size, self._device)
        try:
            self._server.add_range(self.range_at(address))
        except BaseException:
            self._bus.remove(Kind.MEMORY, address)
            raise
        self.address = address

    def move(self, address: int) -> None:
        """Put the BAR at ``address``, from wherever it is.

        Raises as :meth:`map`. If the old range cannot be taken away, it raises, and the BAR is at ``address`` all the
        same.
        """
        old = self.address
        if address != old:
            self.map(address)
            if old is not None:
                self._take_away(old)

    def unmap(self) -> None:
        """Take the BAR away from where it is; also if this raises, it is nowhere."""
        old, self.address = self.address, None
        if old is not None:
            self._take_away(old)

    def _take_away(self, address: int) -> None:
        old = self.range_at(address)
        late: list[int] = []
        try:
            self._server.remove_range(old)
            retry_once(self._server.enable)  # the barrier
            late = self._server.slots.waiting_in(old.first, old.last)
        finally:
            self._bus.remove(Kind.MEMORY, address, late)
