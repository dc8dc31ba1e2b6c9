"""The hypervisor port: one domain, as its device model sees it.

Three sides implement it: :mod:`xengt_dm.hypervisor.xen.port` on Xen's stable libraries,
:mod:`xengt_dm.hypervisor.embedded`, an in-process hypervisor, and :mod:`xengt_dm.hypervisor.sim`, the same in another
process. Nothing above this port knows which one it has.

Every call raises :class:`~xengt_dm.errors.HostError` when the hypervisor refuses it, and
:class:`~xengt_dm.errors.DomainGoneError` when the domain is no more. Frames are gfn of 4 KiB, addresses are guest
physical, ranges are inclusive at both ends, as in Xen's own interfaces.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple, Protocol

from xengt_dm.errors import CallError
from xengt_dm.units import CData

#: What EOPNOTSUPP means when a server claims the writes (xen/arch/x86/hvm/dm.c: hap_enabled; ca2b511d3f, Xen 4.9).
NEEDS_HAP: Final = (
    "the domain runs on shadow paging: write trapping needs HAP. Write hap=1 in the domain's xl file, or remove hap=0, "
    "and create the domain again; the CPU must have EPT or NPT, which `xengt-dm check` tells"
)


class MemType(enum.IntEnum):
    """What a device model may ask for: hvmmem_type_t, xen/include/public/hvm/hvm_op.h."""

    RAM_RW = 0
    RAM_RO = 1
    MMIO_DM = 2
    #: HVMMEM_mmio_write_dm of the 2014 series and Xen 4.6; a placeholder that Xen >= 4.7 refuses (c858e932c1).
    MMIO_WRITE_DM = 3
    #: Since Xen 4.8 (cb34624af5).
    IOREQ_SERVER = 4


class WriteTrap(enum.Enum):
    """How this hypervisor lets a device model see the stores to a page."""

    #: One server claims the type for its domain (XEN_DMOP_map_mem_type_to_ioreq_server, Xen >= 4.9).
    CLAIM = "claim"
    #: The server owns a memory range for each page, and the page has the type (the 2014 series, Xen 4.6).
    RANGES = "ranges"


class ChannelCalls(NamedTuple):
    """Event channels as C calls them: addresses of functions, and of what they are called with (``xd_channels``)."""

    handle: int
    take: int
    unmask: int
    notify: int


class EventPort(Protocol):
    """The event channels of one device model, behind one file descriptor."""

    @property
    def fd(self) -> int:
        """Readable while an unmasked channel is pending."""

    def bind(self, remote_port: int) -> int:
        """Binds to the domain's end ``remote_port``. Returns the local port, which is pending once at the start.

        Raises HostError.
        """

    def unbind(self, port: int) -> None:
        """Closes the local port. Raises HostError."""

    def drain(self) -> int:
        """Takes and unmasks all pending channels, without waiting. Returns how many there were; 0 may happen."""

    def notify(self, port: int) -> None:
        """Sends an event to the other end of a local port. Raises HostError."""

    @property
    def calls(self) -> ChannelCalls:
        """What the methods above are for C. Good until the channels are closed."""

    def failure(self, call: str, errno: int) -> CallError:
        """Returns the exception for a failed one of :attr:`calls`; ``call`` is its name in Xen's library or kernel."""


class DomainPort(Protocol):
    """What a device model may do to its domain.

    Methods raise HostError if Xen refuses a call, and DomainGoneError if the domain or the server does not exist any
    more. ``server`` is the id of an ioreq server.
    """

    @property
    def domid(self) -> int:
        """The domain's id."""

    @property
    def events(self) -> EventPort:
        """The event channels of this device model."""

    @property
    def write_trap(self) -> WriteTrap:
        """How stores can be trapped. Raises HostError if they cannot be, or not all of them; the error says why."""

    @property
    def retype_in_flight_is_fatal(self) -> bool:
        """Returns whether the domain crashes if a frame becomes RAM while a store to it is in flight.

        See :mod:`xengt_dm.traps.state`.
        """

    @property
    def frame_limit(self) -> int:
        """No frame at or above this number is RAM of the domain."""

    def vcpu_count(self) -> int:
        """Returns the largest number of vCPUs that the domain can have. Each has a slot."""

    def create_server(self) -> int:
        """Creates an ioreq server without buffered requests. Returns its id. Xen pauses the domain meanwhile."""

    def destroy_server(self, server: int) -> None:
        """Destroys an ioreq server with its ranges and its claim."""

    def server_exists(self, server: int) -> bool:
        """Returns False if the server or the domain is gone. Xen destroys all servers of a dying domain."""

    def map_slots(self, server: int) -> int:
        """Maps the page of the server's slots. Returns its address. :meth:`unmap_slots` undoes this."""

    def unmap_slots(self, server: int) -> None:
        """Unmaps what :meth:`map_slots` mapped. Does nothing if the slots are not mapped."""

    def set_server_state(self, server: int, enabled: bool) -> None:
        """Enable or disable. Xen pauses the domain meanwhile, even if nothing changes: a barrier for its vCPUs."""

    def map_mmio(self, server: int, first: int, last: int) -> None:
        """Claim accesses to memory that lie wholly in gpa ``first``..``last``.

        HostError EEXIST if the server has a range that overlaps, ENOMEM if it has 256 of this kind. Ranges of several
        servers may overlap. Of the enabled servers with a range that contains all of an access, Xen asks the one with
        the highest id.
        """

    def unmap_mmio(self, server: int, first: int, last: int) -> None:
        """Give a range back, or a part of one. HostError ENOENT if no range of the server holds all of it."""

    def map_ports(self, server: int, first: int, last: int) -> None:
        """Claim accesses to I/O ports that lie wholly in ``first``..``last``; the rest is as in :meth:`map_mmio`.

        An access to 0xcfc..0xcff goes here only while the address that was latched at 0xcf8 is not enabled (bit 31).
        """

    def unmap_ports(self, server: int, first: int, last: int) -> None:
        """Give ports back; as :meth:`unmap_mmio`."""

    def map_pci(self, server: int, sbdf: int) -> None:
        """Claim the configuration cycles of a PCI function, whose number is that of :func:`xengt_dm.units.sbdf`.

        Requests are of type PCI_CONFIG and have ``sbdf << 32 | register`` for an address. Only ports 0xcf8 and
        0xcfc..0xcff make such cycles: Xen decodes segment 0 and 256 registers, and no memory-mapped configuration
        space. Xen sees what is written to 0xcf8, but answers no read of it. HostError as in :meth:`map_mmio`.
        """

    def unmap_pci(self, server: int, sbdf: int) -> None:
        """Give a PCI function back. HostError ENOENT if the server does not have it."""

    def claim_writes(self, server: int) -> None:
        """WriteTrap.CLAIM only: stores to pages of type IOREQ_SERVER go to this server."""

    def release_writes(self, server: int) -> None:
        """WriteTrap.CLAIM only: give the claim back; Xen resets every page of the type to RAM_RW."""

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        """Change the type of ``count`` frames one by one.

        ``gfns`` is ``uint64_t *``; ``errors`` is ``int *`` and receives 0 or a positive errno for each frame. Returns
        how many failed. Raises only if the domain is gone.
        """

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        """Map frames for reading and writing, at ``address`` (replacing what is there) or anywhere if 0.

        ``errors`` is ``int *``: 0, or a positive errno for a frame that is no RAM (touching that page would fault).
        Returns the address.
        """

    def unmap_frames(self, address: int, count: int) -> None:
        """Unmaps ``count`` pages at ``address``, which :meth:`map_frames` returned."""

    def inject_msi(self, address: int, data: int) -> bool:
        """Deliver a message-signalled interrupt, from address and data as the guest wrote them.

        Returns whether Xen accepted it; an accepted one may still find no vCPU that takes it. Not accepted, and lost as
        on real hardware: vector 0, a delivery mode other than fixed and lowest priority, and lowest priority to local
        APICs of which none is enabled. HostError where it is not the guest's doing.
        """

    def set_intx(self, sbdf: int, pin: int, asserted: bool) -> None:
        """Drive the interrupt line 0 (INTA) to 3 (INTD) of a PCI function's device; the function itself is ignored.

        HostError EINVAL for a segment or bus that is not 0. Only HVM guests have such lines: Xen asserts that the
        domain has an I/O APIC, so the caller must not drive a PVH guest's.
        """

    def close(self) -> None:
        """Close every handle. Safe to call twice."""
