"""The ioreq server: its life in the hypervisor. Serving is :mod:`xengt_dm.ioreq.loop`.

Facts: a server outlives the process that made it. Xen destroys it only on request or with its domain, and a vCPU that
waits for it waits for ever.

What follows: the id of the server is on record before anything depends on it, and so are the ranges that it claims. A
successor *adopts* the server that it finds on record: the slots with the requests in them, in whatever state these are.
A request that the predecessor began is handled again, since performing a store twice is harmless.

What we do: :func:`attach` makes a server or finds the predecessor's, and undoes what it did if it fails. The order of
everything else is the business of :mod:`xengt_dm.instance`, where a start, an adoption and a stop can each be read from
top to bottom.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import Protocol

from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.port import DomainPort, WriteTrap
from xengt_dm.hypervisor.best_effort import retry_once
from xengt_dm.ioreq.channels import Channels
from xengt_dm.ioreq.ranges import Range, RangeKind, RangeRecord
from xengt_dm.ioreq.slots import Slots
from xengt_dm.units import CData


class IdRecord(Protocol):
    """Where the id of the server is on record for a successor. Methods that write raise OSError."""

    def read(self) -> int | None:
        """The id on record, None if there is none."""

    def write(self, server: int) -> None: ...

    def clear(self) -> None: ...


class NoIdRecord:
    """An :class:`IdRecord` of a server that nobody will adopt."""

    def read(self) -> int | None:
        return None

    def write(self, server: int) -> None: ...

    def clear(self) -> None: ...


class IoreqServer:
    """A server that exists, with its slots mapped. Made by :func:`attach`. Methods raise CallError."""

    def __init__(
        self,
        port: DomainPort,
        server: int,
        slots: Slots,
        record: IdRecord,
        ranges: RangeRecord,
        *,
        adopted: bool,
    ) -> None:
        self.port = port
        self.id = server
        self.slots = slots
        self.channels = Channels(port.events, slots)
        self.ranges = ranges
        #: Whether a predecessor made it.
        self.adopted = adopted
        #: Whether it is ours to take down: from the start if we made it, else from when we can answer its requests.
        self.owned = not adopted
        self._record = record
        self._claimed = False

    # Being asked

    def enable(self) -> None:
        """Have Xen send requests here. If they are sent here already, this is a barrier for the vCPUs."""
        self.port.set_server_state(self.id, True)

    def disable(self) -> None:
        """Have Xen send no more requests here. Those that wait may still be answered."""
        self.port.set_server_state(self.id, False)

    def exists(self) -> bool:
        """False when the server is gone with its domain, whose vCPUs take no answers any more."""
        return self.port.server_exists(self.id)

    # The trapping type

    def claim(self) -> None:
        """Have stores to frames of the trapping type come here. Does nothing if they do, or where Xen has no claim.

        Raises HostError if the domain is being migrated or saved, or another server has the claim.
        """
        if self.port.write_trap is WriteTrap.CLAIM and not self._claimed:
            self.port.claim_writes(self.id)
            self._claimed = True

    def claim_again(self) -> None:
        """As :meth:`claim`, when a predecessor may have the claim. Every frame becomes RAM."""
        if self.port.write_trap is WriteTrap.CLAIM:
            with suppress(HostError):  # the predecessor may have died before it claimed
                self.port.release_writes(self.id)
            self.claim()

    def release_claim(self) -> None:
        """Give the claim back, if we have it. Every frame that still has the type becomes RAM."""
        if self._claimed:
            self.port.release_writes(self.id)
            self._claimed = False

    # Ranges

    def add_range(self, added: Range) -> None:
        """Have accesses to these addresses come here; one that a predecessor added may be there already."""
        assert added.kind is RangeKind.MEMORY
        self.ranges.add(added)
        try:
            self.port.map_mmio(self.id, added.first, added.last)
        except HostError as error:
            if not (self.adopted and error.errno == errno.EEXIST):
                self.ranges.remove(added)
                raise

    def remove_range(self, removed: Range) -> None:
        """Have accesses to these addresses come here no more; it is no error if they do not."""
        assert removed.kind is RangeKind.MEMORY
        try:
            retry_once(self.port.unmap_mmio, self.id, removed.first, removed.last)
        except HostError as error:
            if error.errno != errno.ENOENT:
                raise
        self.ranges.remove(removed)

    # The end

    def unmap_slots(self) -> None:
        """Nobody looks at :attr:`slots` after this."""
        self.port.unmap_slots(self.id)

    def abandon(self) -> None:
        """After an error, before the server was enabled: leave nothing of one that we made."""
        self.unmap_slots()
        if self.owned:
            self.destroy()

    def destroy(self) -> None:
        """Take the server out of Xen and off the record. What cannot be destroyed stays on record, for a successor."""
        _destroy(self.port, self.id, self._record, self.ranges)


def attach(port: DomainPort, record: IdRecord, ranges: RangeRecord, timing: CData) -> IoreqServer:
    """The predecessor's server if it is on record and still exists, else a new one, which is not enabled.

    Its id is on record and its slots are mapped. Of a new server nothing is left if this fails. ``timing``: see
    :class:`~xengt_dm.ioreq.slots.Slots`. Raises CallError, and OSError if the id cannot be recorded.
    """
    vcpus = port.vcpu_count()
    found = record.read()
    adopted = found is not None and port.server_exists(found)
    server = found if found is not None and adopted else port.create_server()
    try:
        if not adopted:
            ranges.start([])
        record.write(server)
        page = port.map_slots(server)
    except BaseException:
        if not adopted:
            _destroy(port, server, record, ranges)
        raise
    return IoreqServer(port, server, Slots(page, vcpus, timing), record, ranges, adopted=adopted)


def _destroy(port: DomainPort, server: int, record: IdRecord, ranges: RangeRecord) -> None:
    with suppress(DomainGoneError):
        retry_once(port.destroy_server, server)
    ranges.clear()
    record.clear()
