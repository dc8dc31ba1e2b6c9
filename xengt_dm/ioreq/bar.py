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

import errno
from typing import Final, Protocol

from xengt_dm.errors import HostError
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.ioreq.bus import Bus, BusDevice, Kind


class WaitingVcpus(Protocol):
    """Who waits for what; :class:`xengt_dm.ioreq.server.IoreqServer` knows."""

    @property
    def id(self) -> int:
        """The server's id."""

    def waiting_in(self, first: int, last: int) -> list[int]:
        """The vCPUs that wait for an answer to an access that begins in gpa ``first``..``last``."""


class Bar:
    """The range of a memory BAR with ``device`` behind it, ``size`` bytes; at first it is nowhere.

    The server must be enabled."""

    def __init__(self, bus: Bus, device: BusDevice, size: int, port: DomainPort, server: WaitingVcpus) -> None:
        self._bus: Final = bus
        self._device: Final = device
        self._port: Final = port
        self._server: Final = server
        self.size: Final = size
        #: Its gpa; None if it is nowhere.
        self.address: int | None = None

    def map(self, address: int, *, adopted: bool = False) -> None:
        """Put the BAR, which is nowhere, at ``address``. ``adopted``: the server may have this range already.

        Raises HostError if the hypervisor refuses, RangeError if another device is there; then nothing has changed.
        """
        self._bus.insert(Kind.MEMORY, address, self.size, self._device)
        try:
            self._port.map_mmio(self._server.id, address, address + self.size - 1)
        except HostError as error:
            if not (adopted and error.errno == errno.EEXIST):
                self._bus.remove(Kind.MEMORY, address)
                raise
        self.address = address

    def move(self, address: int) -> None:
        """Put the BAR at ``address``, from wherever it is.

        Raises HostError and RangeError as :meth:`map`. Raises HostError, too, if the old range cannot be taken away;
        then the BAR is at ``address`` all the same.
        """
        old = self.address
        if address != old:
            self.map(address)
            if old is not None:
                self._take_away(old)

    def unmap(self) -> None:
        """Take the BAR away from where it is. Raises HostError; also then it is nowhere."""
        old, self.address = self.address, None
        if old is not None:
            self._take_away(old)

    def _take_away(self, address: int) -> None:
        last = address + self.size - 1
        late: list[int] = []
        try:
            self._port.unmap_mmio(self._server.id, address, last)
            self._port.set_server_state(self._server.id, True)
            late = self._server.waiting_in(address, last)
        finally:
            self._bus.remove(Kind.MEMORY, address, late)
