"""Mappings of files at chosen addresses, which the mmap module cannot make."""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

from xengt_dm.errors import HostError

_PROT_NONE: Final = 0
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000
_FAILED: Final = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_munmap = _libc.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def _map(address: int, size: int, protection: int, flags: int, fd: int, offset: int) -> int:
    at = _mmap(address or None, size, protection, flags, fd, offset)
    if at is None or at == _FAILED:
        raise HostError("mmap", None, ctypes.get_errno())
    return int(at)


def reserve(size: int) -> int:
    """Returns the address of ``size`` bytes of address space that nothing else will get. Raises HostError."""
    return _map(0, size, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE, -1, 0)


def map_file(fd: int, offset: int, size: int, address: int = 0) -> int:
    """Map a part of a file for reading and writing, at ``address`` (replacing what is there) or anywhere if that is 0.

    Returns the address. Raises HostError.
    """
    flags = mmap.MAP_SHARED | _MAP_NORESERVE | (_MAP_FIXED if address else 0)
    return _map(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, offset)


def unmap(address: int, size: int) -> None:
    """Raises HostError."""
    if _munmap(address, size):
        raise HostError("munmap", None, ctypes.get_errno())
