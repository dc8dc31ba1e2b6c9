"""libxenforeignmemory and libxendevicemodel through ctypes: the lab's own way to Xen, apart from the code under test.

Signatures: xenforeignmemory.h and xendevicemodel.h of Xen 4.17; constants: public/hvm/hvm_op.h and dm_op.h.
"""

import ctypes
import errno
import mmap
from ctypes import POINTER, c_int, c_size_t, c_uint, c_uint16, c_uint32, c_uint64, c_ulong, c_void_p

PAGE_SIZE = 4096
HVMMEM_IOREQ_SERVER = 4
MEM_ACCESS_WRITE = 2
MAX_IOREQ_SERVERS = 8
BUFIOREQ_OFF = 0
_WRITTEN_TOGETHER = 256 * PAGE_SIZE


class ForeignMemory:
    """A domain's memory, read and written page by page; use as a context."""

    def __init__(self, domid: int) -> None:
        self._domid = domid
        self._lib = ctypes.CDLL("libxenforeignmemory.so.1", use_errno=True)
        self._lib.xenforeignmemory_open.argtypes = [c_void_p, c_uint]
        self._lib.xenforeignmemory_open.restype = c_void_p
        self._lib.xenforeignmemory_map.argtypes = [
            c_void_p, c_uint32, c_int, c_size_t, POINTER(c_ulong), POINTER(c_int)
        ]  # fmt: skip
        self._lib.xenforeignmemory_map.restype = c_void_p
        self._lib.xenforeignmemory_unmap.argtypes = [c_void_p, c_void_p, c_size_t]
        self._lib.xenforeignmemory_close.argtypes = [c_void_p]
        self._handle = self._lib.xenforeignmemory_open(None, 0)
        if not self._handle:
            raise OSError(ctypes.get_errno(), "xenforeignmemory_open")

    def close(self) -> None:
        """Give the handle back."""
        self._lib.xenforeignmemory_close(self._handle)

    def map(self, gfn: int, pages: int) -> int:
        """Map consecutive frames for reading and writing; the address. Raises OSError if any is not there."""
        frames = (c_ulong * pages)(*range(gfn, gfn + pages))
        address = self._lib.xenforeignmemory_map(
            self._handle, self._domid, mmap.PROT_READ | mmap.PROT_WRITE, pages, frames, None
        )
        if not address:
            raise OSError(ctypes.get_errno(), f"mapping frame {gfn:#x} of domain {self._domid}")
        return int(address)

    def unmap(self, address: int, pages: int) -> None:
        """Undo `map`."""
        self._lib.xenforeignmemory_unmap(self._handle, address, pages)

    def read(self, gpa: int, length: int) -> bytes:
        """A copy of guest memory."""
        first = gpa // PAGE_SIZE
        pages = (gpa + length + PAGE_SIZE - 1) // PAGE_SIZE - first
        address = self.map(first, pages)
        try:
            return ctypes.string_at(address + gpa % PAGE_SIZE, length)
        finally:
            self.unmap(address, pages)

    def write(self, gpa: int, data: bytes) -> None:
        """Store to guest memory from the beginning of a page."""
        for start in range(0, len(data), _WRITTEN_TOGETHER):
            part = data[start : start + _WRITTEN_TOGETHER]
            pages = (len(part) + PAGE_SIZE - 1) // PAGE_SIZE
            address = self.map((gpa + start) // PAGE_SIZE, pages)
            ctypes.memmove(address, part, len(part))
            self.unmap(address, pages)


class DeviceModel:
    """What a scenario asks Xen about the ioreq servers of a domain."""

    def __init__(self, domid: int) -> None:
        self._domid = domid
        self._lib = ctypes.CDLL("libxendevicemodel.so.1", use_errno=True)
        self._lib.xendevicemodel_open.argtypes = [c_void_p, c_uint]
        self._lib.xendevicemodel_open.restype = c_void_p
        self._lib.xendevicemodel_close.argtypes = [c_void_p]
        self._lib.xendevicemodel_get_ioreq_server_info.argtypes = [
            c_void_p, c_uint16, c_uint16, POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint32)
        ]  # fmt: skip
        self._lib.xendevicemodel_create_ioreq_server.argtypes = [c_void_p, c_uint16, c_int, POINTER(c_uint16)]
        self._lib.xendevicemodel_destroy_ioreq_server.argtypes = [c_void_p, c_uint16, c_uint16]
        self._lib.xendevicemodel_map_mem_type_to_ioreq_server.argtypes = [
            c_void_p, c_uint16, c_uint16, c_uint16, c_uint32
        ]  # fmt: skip
        self._handle = self._lib.xendevicemodel_open(None, 0)
        if not self._handle:
            raise OSError(ctypes.get_errno(), "xendevicemodel_open")

    def close(self) -> None:
        """Give the handle back."""
        self._lib.xendevicemodel_close(self._handle)

    def servers(self) -> list[int]:
        """The ids of the domain's ioreq servers."""
        found = []
        for server in range(MAX_IOREQ_SERVERS):
            port = c_uint32()
            if (
                self._lib.xendevicemodel_get_ioreq_server_info(
                    self._handle, self._domid, server, None, None, ctypes.byref(port)
                )
                == 0
            ):
                found.append(server)
            elif ctypes.get_errno() != errno.ENOENT:
                raise OSError(ctypes.get_errno(), f"asking for ioreq server {server}")
        return found

    def claim_and_release(self) -> None:
        """Claim the write-protected type for a server of our own and release it again.

        Raises OSError: EBUSY means that another server has it, or that pages of that type are left over.
        """
        server = c_uint16()
        self._call("create_ioreq_server", BUFIOREQ_OFF, ctypes.byref(server))
        try:
            self._call("map_mem_type_to_ioreq_server", server, HVMMEM_IOREQ_SERVER, MEM_ACCESS_WRITE)
            self._call("map_mem_type_to_ioreq_server", server, HVMMEM_IOREQ_SERVER, 0)
        finally:
            self._call("destroy_ioreq_server", server)

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._lib, f"xendevicemodel_{name}")(self._handle, self._domid, *arguments) != 0:
            raise OSError(ctypes.get_errno(), name)
