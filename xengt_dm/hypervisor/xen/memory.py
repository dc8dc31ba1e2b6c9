"""libxenforeignmemory for one domain: maps guest frames and the ioreq page into our address space."""

from __future__ import annotations

import mmap
from typing import NamedTuple

from xengt_dm.hypervisor.xen.errors import failure
from xengt_dm.hypervisor.xen.library import Binding
from xengt_dm.units import PAGE_SIZE, CData


class Resource(NamedTuple):
    """A mapped resource: the library's handle and the address of the mapping."""

    handle: CData
    address: int


class ForeignMemory:
    """A handle of libxenforeignmemory, and the domain that it is used for. Errors are those of DeviceModel.

    A foreign mapping outlives this handle, holds a reference to the domain's memory, and does not survive a fork.
    """

    def __init__(self, binding: Binding, domid: int) -> None:
        self._ffi, self._lib = binding
        self._domid = domid
        self._handle = self._lib.xenforeignmemory_open(self._lib.xd_xen_quiet_logger(), 0)
        if self._handle == self._ffi.NULL:
            raise failure("xenforeignmemory_open", None, self._ffi.errno)
        self._error = self._ffi.new("int *")

    def close(self) -> None:
        """Closes the handle. Safe to call twice."""
        if self._handle != self._ffi.NULL:
            handle, self._handle = self._handle, self._ffi.NULL
            self._lib.xenforeignmemory_close(handle)

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        """Maps frames; see DomainPort.map_frames.

        ``address`` and ``count`` must cover whole mappings of earlier calls, or memory of our own. Reason: Linux has
        one list of pages for each foreign mapping (drivers/xen/privcmd.c privcmd_close). If a mapping were cut in two,
        a control domain of type PVH would free that list twice. Newer kernels refuse the cut, with ENOMEM (6.1) or
        EINVAL (6.12) here and EINVAL in :meth:`unmap_frames`. After that refusal everything is as before. After any
        other failure the range is reserved.
        """
        assert self._handle != self._ffi.NULL, "map_frames on a closed handle"
        mapped = self._lib.xd_xen_map_frames(self._handle, self._domid, first_gfn, count, address, errors, self._error)
        if mapped == 0:
            raise failure("xenforeignmemory_map", self._domid, self._error[0])
        return mapped

    def unmap_frames(self, address: int, count: int) -> None:
        """Unmaps ``count`` pages at ``address``, which :meth:`map_frames` returned."""
        pointer = self._ffi.cast("void *", address)
        if self._lib.xenforeignmemory_unmap(self._handle, pointer, count) != 0:
            raise failure("xenforeignmemory_unmap", self._domid, self._ffi.errno)

    def map_ioreq_page(self, server: int) -> Resource:
        """Maps the first page of the server's slots. It holds 128 slots, as many as a domain can have vCPUs."""
        address = self._ffi.new("void **")
        handle = self._lib.xenforeignmemory_map_resource(
            self._handle,
            self._domid,
            self._lib.XENMEM_resource_ioreq_server,
            server,
            self._lib.XD_IOREQ_FRAME_FIRST,
            1,
            address,
            mmap.PROT_READ | mmap.PROT_WRITE,
            0,
        )
        if handle == self._ffi.NULL:
            raise failure("xenforeignmemory_map_resource", self._domid, self._ffi.errno)
        return Resource(handle, int(self._ffi.cast("uintptr_t", address[0])))

    def unmap_resource(self, resource: Resource) -> None:
        """Unmaps what :meth:`map_slots` mapped."""
        if self._lib.xenforeignmemory_unmap_resource(self._handle, resource.handle) != 0:
            raise failure("xenforeignmemory_unmap_resource", self._domid, self._ffi.errno)

    def resource_frames(self, resource: int, resource_id: int) -> int:
        """Returns how many frames a resource (the binding's XENMEM_resource_*) has at most."""
        size = self._ffi.new("size_t *")
        if self._lib.xenforeignmemory_resource_size(self._handle, self._domid, resource, resource_id, size) != 0:
            raise failure("xenforeignmemory_resource_size", self._domid, self._ffi.errno)
        return int(size[0]) // PAGE_SIZE
