"""The embedded hypervisor's side of :mod:`xengt_dm.hypervisor.port`."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xengt_dm._embedded import ffi, lib
from xengt_dm.errors import CallError, HostError
from xengt_dm.hypervisor.embedded.errors import check, failure
from xengt_dm.hypervisor.embedded.p2m import Again, why_unusable
from xengt_dm.hypervisor.port import NEEDS_HAP, ChannelCalls, MemType, WriteTrap
from xengt_dm.units import CData

if TYPE_CHECKING:
    from xengt_dm.hypervisor.embedded.domain import EmbeddedDomain

#: XEN_DMOP_IOREQ_MEM_ACCESS_WRITE, xen/include/public/hvm/dm_op.h.
_ACCESS_WRITE = 2


class EmbeddedEventPort:
    """The event channels of one device model. Implements EventPort."""

    def __init__(self, domain: EmbeddedDomain) -> None:
        self._domain = domain
        self._handle = lib.xd_emb_events_new(domain.handle)
        if self._handle == ffi.NULL:
            raise MemoryError("event channels")

    @property
    def handle(self) -> CData:
        """``xd_emb_events *``."""
        if self._handle is None:
            raise ValueError("the event channels are closed")
        return self._handle

    @property
    def fd(self) -> int:
        return int(lib.xd_emb_events_fd(self.handle))

    def bind(self, remote_port: int) -> int:
        return self._check("xenevtchn_bind_interdomain", lib.xd_emb_events_bind(self.handle, remote_port))

    def unbind(self, port: int) -> None:
        self._check("xenevtchn_unbind", lib.xd_emb_events_unbind(self.handle, port))

    def drain(self) -> int:
        return int(lib.xd_emb_events_drain(self.handle))

    def pending(self) -> int:
        """One pending port, masked from now on, or 0; :meth:`unmask` it."""
        return int(lib.xd_emb_events_pending(self.handle))

    def unmask(self, port: int) -> None:
        self._check("xenevtchn_unmask", lib.xd_emb_events_unmask(self.handle, port))

    def notify(self, port: int) -> None:
        self._check("xenevtchn_notify", lib.xd_emb_events_notify(self.handle, port))

    @property
    def calls(self) -> ChannelCalls:
        names = ("take", "unmask", "notify")
        return ChannelCalls(
            int(ffi.cast("uintptr_t", self.handle)),
            *(int(ffi.cast("uintptr_t", ffi.addressof(lib, f"xd_emb_channels_{name}"))) for name in names),
        )

    def failure(self, call: str, errno: int) -> CallError:
        return failure(call, self._domain.domid, errno)

    def close(self) -> None:
        """As the kernel does when the last handle goes: every channel is unbound, and the domain is not told."""
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.xd_emb_events_free(handle)

    def _check(self, call: str, rc: int) -> int:
        return check(call, self._domain.domid, rc)


class EmbeddedPort:
    """One device model's handles on an :class:`EmbeddedDomain`. Implements DomainPort.

    Several may be open at once, as several processes may on Xen; servers belong to the domain, not to the port.
    """

    def __init__(self, domain: EmbeddedDomain) -> None:
        self._domain = domain
        self._events = EmbeddedEventPort(domain)
        self._slots: dict[int, CData] = {}
        self._closed = False
        domain.ports.append(self)

    @property
    def domid(self) -> int:
        return self._domain.domid

    @property
    def events(self) -> EmbeddedEventPort:
        return self._events

    @property
    def write_trap(self) -> WriteTrap:
        flavour = self._domain.flavour
        reason = why_unusable(flavour)
        if reason:
            raise HostError("xendevicemodel_set_mem_type", self.domid, errno.EOPNOTSUPP, reason)
        return WriteTrap.CLAIM if flavour.claim else WriteTrap.RANGES

    @property
    def retype_in_flight_is_fatal(self) -> bool:
        flavour = self._domain.flavour
        return flavour.emulates_again and (self._domain.rep_stores or flavour.looks_again is not Again.NEVER)

    @property
    def frame_limit(self) -> int:
        return self._domain.ram_frames

    def vcpu_count(self) -> int:
        self._check("xendevicemodel_nr_vcpus", lib.xd_emb_call(self._handle, lib.XD_CALL_OTHER))
        return self._domain.vcpu_count

    def create_server(self) -> int:
        return self._check("xendevicemodel_create_ioreq_server", lib.xd_emb_server_create(self._handle))

    def destroy_server(self, server: int) -> None:
        self._check("xendevicemodel_destroy_ioreq_server", lib.xd_emb_server_destroy(self._handle, server))

    def server_exists(self, server: int) -> bool:
        return bool(lib.xd_emb_server_exists(self._handle, server))

    def map_slots(self, server: int) -> int:
        page = ffi.new("char **")
        self._check("xenforeignmemory_map_resource", lib.xd_emb_slots_map(self._handle, server, page))
        self.unmap_slots(server)
        self._slots[server] = page[0]
        return int(ffi.cast("uintptr_t", page[0]))

    def unmap_slots(self, server: int) -> None:
        page = self._slots.pop(server, None)
        if page is not None:
            lib.xd_emb_slots_unmap(self._handle, page)

    def set_server_state(self, server: int, enabled: bool) -> None:
        self._check("xendevicemodel_set_ioreq_server_state", lib.xd_emb_server_state(self._handle, server, enabled))

    def map_mmio(self, server: int, first: int, last: int) -> None:
        self._map_range(server, lib.XD_RANGE_MEMORY, first, last)

    def unmap_mmio(self, server: int, first: int, last: int) -> None:
        self._unmap_range(server, lib.XD_RANGE_MEMORY, first, last)

    def map_ports(self, server: int, first: int, last: int) -> None:
        self._map_range(server, lib.XD_RANGE_PORT, first, last)

    def unmap_ports(self, server: int, first: int, last: int) -> None:
        self._unmap_range(server, lib.XD_RANGE_PORT, first, last)

    def map_pci(self, server: int, sbdf: int) -> None:
        rc = lib.xd_emb_range_map(self._handle, server, lib.XD_RANGE_PCI, sbdf, sbdf)
        self._check("xendevicemodel_map_pcidev_to_ioreq_server", rc)

    def unmap_pci(self, server: int, sbdf: int) -> None:
        rc = lib.xd_emb_range_unmap(self._handle, server, lib.XD_RANGE_PCI, sbdf, sbdf)
        self._check("xendevicemodel_unmap_pcidev_from_ioreq_server", rc)

    def _map_range(self, server: int, kind: int, first: int, last: int) -> None:
        rc = lib.xd_emb_range_map(self._handle, server, kind, first, last)
        self._check("xendevicemodel_map_io_range_to_ioreq_server", rc)

    def _unmap_range(self, server: int, kind: int, first: int, last: int) -> None:
        rc = lib.xd_emb_range_unmap(self._handle, server, kind, first, last)
        self._check("xendevicemodel_unmap_io_range_from_ioreq_server", rc)

    def claim_writes(self, server: int) -> None:
        self.map_mem_type(server, MemType.IOREQ_SERVER, _ACCESS_WRITE)

    def release_writes(self, server: int) -> None:
        self.map_mem_type(server, MemType.IOREQ_SERVER, 0)

    def map_mem_type(self, server: int, mem_type: int, flags: int) -> None:
        """The hypercall behind :meth:`claim_writes` and :meth:`release_writes`, with any arguments."""
        rc = lib.xd_emb_claim(self._handle, server, mem_type, flags)
        if rc == -errno.EOPNOTSUPP and self._domain.flavour.claim:
            raise HostError("xendevicemodel_map_mem_type_to_ioreq_server", self.domid, -rc, NEEDS_HAP)
        self._check("xendevicemodel_map_mem_type_to_ioreq_server", rc)

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        rc = lib.xd_emb_set_mem_types(self._handle, mem_type, gfns, count, errors)
        return self._check("xendevicemodel_set_mem_type", rc)

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        at = ffi.new("uint64_t *", address)
        rc = lib.xd_emb_map_frames(self._handle, first_gfn, count, errors, at)
        self._check("xenforeignmemory_map2", rc)
        return int(at[0])

    def unmap_frames(self, address: int, count: int) -> None:
        self._check("xenforeignmemory_unmap", lib.xd_emb_unmap_frames(self._handle, address, count))

    def inject_msi(self, address: int, data: int) -> bool:
        self._check("xendevicemodel_inject_msi", lib.xd_emb_call(self._handle, lib.XD_CALL_OTHER))
        return self._domain.interrupts.inject_msi(address, data)

    def set_intx(self, sbdf: int, pin: int, asserted: bool) -> None:
        rc = lib.xd_emb_call(self._handle, lib.XD_CALL_OTHER)
        if not rc and not self._domain.interrupts.set_intx(sbdf, pin, asserted):
            rc = -errno.EINVAL
        self._check("xendevicemodel_set_pci_intx_level", rc)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for server in list(self._slots):
            self.unmap_slots(server)
        self._events.close()
        self._domain.ports.remove(self)

    @property
    def _handle(self) -> CData:
        return self._domain.handle

    def _check(self, call: str, rc: int) -> int:
        return check(call, self._domain.domid, rc)
