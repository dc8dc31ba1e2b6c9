"""Pointers into memory that Python owns, for C to keep."""

from __future__ import annotations

from xengt_dm._core import ffi
from xengt_dm.units import CData


def pointer_into(kind: str, memory: memoryview) -> CData:
    """Returns a pointer of the C type ``kind`` to the start of writable memory, which the caller keeps.

    Facts: before CPython 3.13, the process crashes when the garbage collector frees a memoryview and an array of
    ``ffi.from_buffer`` that refers to it in one cycle. So no such array is kept.
    """
    array = ffi.from_buffer(memory, require_writable=True)
    pointer = ffi.cast(kind, array)
    ffi.release(array)
    return pointer


def address(pointer: CData) -> int:
    """Returns the address that a pointer of ``_core`` holds."""
    return int(ffi.cast("uintptr_t", pointer))
