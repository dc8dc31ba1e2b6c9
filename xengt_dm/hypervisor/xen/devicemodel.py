"""libxendevicemodel for one domain: every call has types, and every failure is an exception."""

from __future__ import annotations

from collections.abc import Sequence

from xengt_dm.errors import DomainGoneError
from xengt_dm.hypervisor.port import MemType
from xengt_dm.hypervisor.xen.errors import failure
from xengt_dm.hypervisor.xen.library import Binding
from xengt_dm.units import CData


def _parts(sbdf: int) -> tuple[int, int, int, int]:
    """Segment, bus, device and function."""
    return sbdf >> 16, sbdf >> 8 & 0xFF, sbdf >> 3 & 0x1F, sbdf & 7


class DeviceModel:
    """A handle of libxendevicemodel, and the domain that it is used for.

    Every method raises HostError, with the library's call, the domain and the meaning of the errno, and DomainGoneError
    if the domain or the ioreq server does not exist any more. No method may be called after :meth:`close`.
    """

    def __init__(self, binding: Binding, domid: int) -> None:
        self._ffi, self._lib = binding
        self._domid = domid
        self._handle = self._lib.xendevicemodel_open(self._lib.xd_xen_quiet_logger(), 0)
        if self._handle == self._ffi.NULL:
            raise failure("xendevicemodel_open", None, self._ffi.errno)
        self._set_mem_types = self._lib.xd_xen_set_mem_types

    def close(self) -> None:
        """Closes the handle. Safe to call twice."""
        if self._handle != self._ffi.NULL:
            handle, self._handle = self._handle, self._ffi.NULL
            self._lib.xendevicemodel_close(handle)

    def _call(self, name: str, *arguments: object) -> None:
        call = f"xendevicemodel_{name}"
        assert self._handle != self._ffi.NULL, f"{call} on a closed handle"
        if getattr(self._lib, call)(self._handle, self._domid, *arguments) != 0:
            raise failure(call, self._domid, self._ffi.errno)

    def vcpu_count(self) -> int:
        """Returns the largest number of vCPUs that the domain can have. Needs Xen 4.15 or later."""
        count = self._ffi.new("unsigned int *")
        self._call("nr_vcpus", count)
        return int(count[0])

    # ioreq servers

    def create_server(self) -> int:
        """Creates an ioreq server and returns its id. It has no buffered requests, because a GPU does not use them."""
        server = self._ffi.new("ioservid_t *")
        self._call("create_ioreq_server", self._lib.HVM_IOREQSRV_BUFIOREQ_OFF, server)
        return int(server[0])

    def server_exists(self, server: int) -> bool:
        """Returns whether the server exists.

        The call passes no pointers for the server's pages; with them Xen would allocate guest frames for the pages.
        """
        null = self._ffi.NULL
        try:
            self._call("get_ioreq_server_info", server, null, null, null)
        except DomainGoneError:
            return False
        return True

    def set_server_state(self, server: int, enabled: bool) -> None:
        """Enables or disables an ioreq server. Xen pauses the domain meanwhile."""
        self._call("set_ioreq_server_state", server, int(enabled))

    def destroy_server(self, server: int) -> None:
        """Destroys an ioreq server with its ranges and its claim."""
        self._call("destroy_ioreq_server", server)

    def map_range(self, server: int, first: int, last: int, *, ports: bool = False) -> None:
        """Has Xen send accesses to gpa, or I/O ports, ``first`` to ``last`` inclusive to the server."""
        self._call("map_io_range_to_ioreq_server", server, int(not ports), first, last)

    def unmap_range(self, server: int, first: int, last: int, *, ports: bool = False) -> None:
        """Undoes :meth:`map_range`, for the range or a part of it."""
        self._call("unmap_io_range_from_ioreq_server", server, int(not ports), first, last)

    def map_pci(self, server: int, sbdf: int) -> None:
        """Has Xen send accesses to the configuration space of a PCI function to the server."""
        self._call("map_pcidev_to_ioreq_server", server, *_parts(sbdf))

    def unmap_pci(self, server: int, sbdf: int) -> None:
        """Undoes :meth:`map_pci`."""
        self._call("unmap_pcidev_from_ioreq_server", server, *_parts(sbdf))

    def claim_writes(self, server: int) -> None:
        """Claims the type IOREQ_SERVER: Xen sends stores to its pages to this server, whether it is enabled or not."""
        flags = self._lib.XEN_DMOP_IOREQ_MEM_ACCESS_WRITE
        self._call("map_mem_type_to_ioreq_server", server, self._lib.HVMMEM_ioreq_server, flags)

    def release_writes(self, server: int) -> None:
        """Releases the claim. Before it returns, Xen walks the domain's memory and resets every page of the type."""
        self._call("map_mem_type_to_ioreq_server", server, self._lib.HVMMEM_ioreq_server, 0)

    # memory

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        """Changes the types of ``count`` frames; the parameters are those of DomainPort.set_mem_types.

        Each frame is changed by a hypercall of its own. After a failed call over a range the caller could not know how
        many frames were changed, because Xen does not copy its progress back (xen/arch/x86/hvm/dm.c). Cost: one
        hypercall for each page. Xen flushes TLBs for each page in both cases.
        """
        failed = self._set_mem_types(self._handle, self._domid, mem_type, gfns, count, errors)
        if failed < 0:
            raise failure("xendevicemodel_set_mem_type", self._domid, -failed)
        return failed

    def track_dirty(self, first_gfn: int, count: int) -> bytes:
        """Returns which frames were written since the last call: one bit each, the lowest first. At most 32768."""
        bitmap = self._ffi.new("unsigned long[]", (count + 63) // 64)
        self._call("track_dirty_vram", first_gfn, count, bitmap)
        return bytes(self._ffi.buffer(bitmap, (count + 7) // 8))

    def modified_memory(self, first_gfn: int, count: int) -> None:
        """Adds these frames, to which we wrote, to Xen's log of dirty pages."""
        self._call("modified_memory", first_gfn, count)

    def modified_memory_bulk(self, extents: Sequence[tuple[int, int]]) -> None:
        """Does the same for (first gfn, count) pairs. At most 256, which is the kernel's limit for one buffer."""
        array = self._ffi.new("struct xen_dm_op_modified_memory_extent[]", len(extents))
        for slot, (first_gfn, count) in zip(array, extents, strict=True):
            slot.first_pfn, slot.nr = first_gfn, count
        self._call("modified_memory_bulk", array, len(extents))

    def relocate_memory(self, source_gfn: int, target_gfn: int, count: int) -> None:
        """Moves ``count`` pages of the guest from ``source_gfn`` on to ``target_gfn`` on."""
        self._call("relocate_memory", count, source_gfn, target_gfn)

    def pin_cache_attribute(self, first_gfn: int, last_gfn: int, attribute: int) -> None:
        """Fixes the cache attribute of frames. ``attribute`` is one of the binding's XEN_DMOP_MEM_CACHEATTR_*."""
        self._call("pin_memory_cacheattr", first_gfn, last_gfn, attribute)

    # interrupts

    def inject_msi(self, address: int, data: int) -> None:
        """Delivers an MSI from ``address`` and ``data`` as the guest wrote them to the device."""
        self._call("inject_msi", address, data)

    def inject_event(
        self, vcpu: int, vector: int, kind: int, error_code: int = 0xFFFFFFFF, length: int = 0, extra: int = 0
    ) -> None:
        """Injects an event that the vCPU takes when it next runs.

        ``kind`` is an enum x86_event_type. An ``error_code`` of all ones means none.
        """
        self._call("inject_event", vcpu, vector, kind, error_code, length, extra)

    def set_intx(self, sbdf: int, pin: int, asserted: bool) -> None:
        """Sets the level of pin 0 (INTA) to 3 (INTD) of a PCI device."""
        segment, bus, device, _ = _parts(sbdf)
        self._call("set_pci_intx_level", segment, bus, device, pin, int(asserted))

    def set_isa_irq(self, irq: int, asserted: bool) -> None:
        """Sets the level of an ISA interrupt, 0 to 15."""
        self._call("set_isa_irq_level", irq, int(asserted))

    def set_pci_link_route(self, link: int, irq: int) -> None:
        """Routes PCI interrupt link 0 to 3 to an ISA interrupt; 0 disables the link."""
        self._call("set_pci_link_route", link, irq)

    def shutdown(self, reason: int) -> None:
        """Shuts the domain down. ``reason`` is one of the binding's SHUTDOWN_*."""
        self._call("shutdown", reason)
