"""libxenforeignmemory for one domain: guest frames and the ioreq pages in our address space."""

from __future__ import annotations

import mmap
from typing import NamedTuple

from xengt_dm.hypervisor.xen.errors import failure
from xengt_dm.hypervisor.xen.library import Binding
from xengt_dm.units import PAGE_SIZE, CData


class Resource(NamedTuple):
    """A mapped resource: the library's handle for it, and its address."""

    handle: CData
    address: int


class ForeignMemory:
    """A foreign-memory handle and the domain it is for; errors as in DeviceModel.

    A foreign mapping outlives this handle, holds a reference on the domain's memory, and does not survive a fork.
    """

    def __init__(self, binding: Binding, domid: int) -> None:
        self._ffi, self._lib = binding
        self._domid = domid
        self._handle = self._lib.xenforeignmemory_open(self._lib.xd_xen_quiet_logger(), 0)
        if self._handle == self._ffi.NULL:
            raise failure("xenforeignmemory_open", None, self._ffi.errno)
        self._error = self._ffi.new("int *")

    def close(self) -> None:
        if self._handle != self._ffi.NULL:
            handle, self._handle = self._handle, self._ffi.NULL
            self._lib.xenforeignmemory_close(handle)

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        """Map frames; see DomainPort.map_frames.

        ``address`` with ``count`` must cover the whole of what earlier calls mapped there, or memory of our own. Linux
        has one list of pages for a foreign mapping (drivers/xen/privcmd.c privcmd_close), which a mapping cut in two
        would free twice in a control domain of type PVH; newer kernels refuse the cut, with ENOMEM (6.1) or EINVAL
        (6.12) here and EINVAL in :meth:`unmap_frames`. After that refusal all is as before; after any other failure
        the range is reserved.
        """
        assert self._handle != self._ffi.NULL, "map_frames on a closed handle"
        mapped = self._lib.xd_xen_map_frames(self._handle, self._domid, first_gfn, count, address, errors, self._error)
        if mapped == 0:
            raise failure("xenforeignmemory_map", self._domid, self._error[0])
        return mapped

    def unmap_frames(self, address: int, count: int) -> None:
        pointer = self._ffi.cast("void *", address)
        if self._lib.xenforeignmemory_unmap(self._handle, pointer, count) != 0:
            raise failure("xenforeignmemory_unmap", self._domid, self._ffi.errno)

    def map_ioreq_page(self, server: int) -> Resource:
        """The first page of the server's synchronous slots, 128 of them: as many as a domain can have vCPUs."""
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
        if self._lib.xenforeignmemory_unmap_resource(self._handle, resource.handle) != 0:
            raise failure("xenforeignmemory_unmap_resource", self._domid, self._ffi.errno)

    def resource_frames(self, resource: int, resource_id: int) -> int:
        """How many frames a resource (the binding's XENMEM_resource_*) has at most."""
        size = self._ffi.new("size_t *")
        if self._lib.xenforeignmemory_resource_size(self._handle, self._domid, resource, resource_id, size) != 0:
            raise failure("xenforeignmemory_resource_size", self._domid, self._ffi.errno)
        return int(size[0]) // PAGE_SIZE
