"""The ioreq server in Xen: creating or adopting it, enabling it, its claim and ranges, and destroying it.

The serve loop is :mod:`xengt_dm.ioreq.loop`.

Facts: a server outlives the process that created it. Xen destroys it only on request or with its domain. A vCPU whose
request no process answers waits for ever.

What follows: the id of the server is recorded before anything depends on it, and so are its ranges. A successor
*adopts* the server that is on record, with the requests in its slots, whatever their states. It serves a request again
that the predecessor began to serve, since performing a store twice is harmless.

What we do: :func:`left_server` finds the predecessor's; :func:`attach` maps it or creates one, and undoes what it did
if it fails. :mod:`xengt_dm.instance` calls everything else. A start and a stop can be read there from top to bottom, an
adoption in :mod:`xengt_dm.adoption`.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import Protocol

from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.best_effort import retry_once
from xengt_dm.hypervisor.port import DomainPort, WriteTrap
from xengt_dm.ioreq.channels import Channels
from xengt_dm.ioreq.journal import Journal
from xengt_dm.ioreq.ranges import Range, RangeKind, RangeRecord
from xengt_dm.ioreq.slots import Slots
from xengt_dm.units import CData


class IdRecord(Protocol):
    """The record of the server's id for a successor. Methods that write raise OSError.

    ``certain``: what is read is of this domain, and not of an earlier one with the same id.
    """

    @property
    def certain(self) -> bool: ...

    def read(self) -> int | None:
        """Returns the recorded id, or None if there is none."""

    def write(self, server: int) -> None: ...

    def clear(self) -> None: ...


class NoIdRecord:
    """An :class:`IdRecord` that records nothing, for a server that no successor will adopt."""

    certain = True

    def read(self) -> int | None:
        return None

    def write(self, server: int) -> None: ...

    def clear(self) -> None: ...


class ClaimRecord(Protocol):
    """The record for a successor of whether the server has the claim.

    ``claimed`` is set after the claim is made, and cleared before it is released.
    """

    claimed: bool


class NoClaimRecord:
    """A :class:`ClaimRecord` that no successor reads."""

    claimed = False


class IoreqServer:
    """An existing server, with its slots mapped. :func:`attach` makes it. Methods raise CallError."""

    def __init__(
        self,
        port: DomainPort,
        server: int,
        slots: Slots,
        record: IdRecord,
        ranges: RangeRecord,
        claim: ClaimRecord,
        *,
        adopted: bool,
    ) -> None:
        self.port = port
        self.id = server
        self.slots = slots
        self.channels = Channels(port.events, slots)
        self.ranges = ranges
        #: Whether a predecessor created it.
        self.adopted = adopted
        #: Whether this process must destroy it at the end: always if it created the server, and otherwise once it can
        #: answer the requests; but not if it hands the server over to a successor.
        self.owned = not adopted
        self._record = record
        self._claim = claim
        #: Whether there may be a claim although none is on record.
        self._unrecorded = adopted and not claim.claimed

    # Requests

    def enable(self) -> None:
        """Has Xen send requests to this server. If the server is enabled already, this is a barrier for the vCPUs."""
        self.port.set_server_state(self.id, True)

    def disable(self) -> None:
        """Has Xen send no more requests to this server. Those in its slots may still be answered."""
        self.port.set_server_state(self.id, False)

    def exists(self) -> bool:
        """Returns False if the server is gone with its domain. The vCPUs then take no answers any more."""
        return self.port.server_exists(self.id)

    # The trapping type

    def claim(self) -> None:
        """Claims the trapping type for this server. Does nothing if it has the claim, or where Xen knows no claim.

        Raises HostError if the domain is being migrated or saved, or another server has the claim.
        """
        if self.port.write_trap is WriteTrap.CLAIM and not self._claim.claimed:
            self._release_unrecorded()
            self.port.claim_writes(self.id)
            self._claim.claimed = True

    def claim_again(self) -> None:
        """Releases the claim that a predecessor may have made, so that every frame becomes RAM, and claims again."""
        if self.port.write_trap is WriteTrap.CLAIM:
            self._claim.claimed = False
            self._unrecorded = True
            self.claim()

    def release_claim(self) -> None:
        """Releases the claim if this server has it. Every frame that still has the type becomes RAM."""
        if self._claim.claimed:
            self._claim.claimed = False
            try:
                self.port.release_writes(self.id)
            except HostError:
                self._claim.claimed = True
                raise
        elif self.port.write_trap is WriteTrap.CLAIM:
            self._release_unrecorded()

    def _release_unrecorded(self) -> None:
        """Releases the claim that a predecessor made, or did not release, when it died between that and the record."""
        if self._unrecorded:
            with suppress(HostError):  # there is none
                self.port.release_writes(self.id)
            self._unrecorded = False

    # Ranges

    def add_range(self, added: Range) -> None:
        """Has Xen send accesses to these addresses to this server. The server may have the range from a predecessor.

        If this fails, a range that was on record before stays there, because Xen may have it.
        """
        port = self.port
        new = self.ranges.add(added)
        try:
            match added.kind:
                case RangeKind.PORT:
                    port.map_ports(self.id, added.first, added.last)
                case RangeKind.PCI:
                    port.map_pci(self.id, added.first)
                case RangeKind.MEMORY | RangeKind.GUARD:
                    port.map_mmio(self.id, added.first, added.last)
        except HostError as error:
            if self.adopted and error.errno == errno.EEXIST:
                return
            if new:
                self.ranges.remove(added)
            raise

    def remove_range(self, removed: Range) -> None:
        """Undoes :meth:`add_range`. It is no error if the server does not have the range."""
        port = self.port
        try:
            match removed.kind:
                case RangeKind.PORT:
                    retry_once(port.unmap_ports, self.id, removed.first, removed.last)
                case RangeKind.PCI:
                    retry_once(port.unmap_pci, self.id, removed.first)
                case RangeKind.MEMORY | RangeKind.GUARD:
                    retry_once(port.unmap_mmio, self.id, removed.first, removed.last)
        except HostError as error:
            if error.errno != errno.ENOENT:
                raise
        self.ranges.remove(removed)

    # The end

    def unmap_slots(self) -> None:
        """Unmaps the slots. The caller must not use :attr:`slots` afterwards."""
        self.port.unmap_slots(self.id)

    def abandon(self) -> None:
        """Undoes :func:`attach`, after an error before the server was enabled. An adopted server stays."""
        self.unmap_slots()
        if self.owned:
            self.destroy()

    def destroy(self) -> None:
        """Destroys the server and clears its records. If Xen refuses, the records stay for a successor."""
        _destroy(self.port, self.id, self._record, self.ranges)


def left_server(port: DomainPort, record: IdRecord) -> int | None:
    """Returns the id of a predecessor's server, if one is on record and exists. Raises CallError."""
    found = record.read()
    return found if found is not None and port.server_exists(found) else None


def attach(
    port: DomainPort,
    left: int | None,
    record: IdRecord,
    ranges: RangeRecord,
    timing: CData,
    journal: Journal,
    claim: ClaimRecord | None = None,
) -> IoreqServer:
    """Returns the server ``left`` by a predecessor, or a new one, which is not enabled.

    The server's id is on record then, and its slots are mapped. If this fails, no new server is left. ``timing``
    and ``journal``: see :class:`~xengt_dm.ioreq.slots.Slots`. Raises CallError, and OSError if the id cannot be
    recorded.
    """
    vcpus = port.vcpu_count()
    adopted = left is not None
    server = port.create_server() if left is None else left
    try:
        if not adopted:
            ranges.start([])
        record.write(server)
        page = port.map_slots(server)
    except BaseException:
        if not adopted:
            _destroy(port, server, record, ranges)
        raise
    slots = Slots(page, vcpus, timing, journal.pointer)
    return IoreqServer(port, server, slots, record, ranges, claim or NoClaimRecord(), adopted=adopted)


def _destroy(port: DomainPort, server: int, record: IdRecord, ranges: RangeRecord) -> None:
    with suppress(DomainGoneError):
        retry_once(port.destroy_server, server)
    ranges.clear()
    record.clear()
