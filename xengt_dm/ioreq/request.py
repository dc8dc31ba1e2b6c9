"""One ioreq, as copied out of its slot."""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from xengt_dm._core import ffi, lib


class RequestType(enum.IntEnum):
    """IOREQ_TYPE_*, xen/include/public/hvm/ioreq.h."""

    PIO = lib.XD_IOREQ_PIO
    COPY = lib.XD_IOREQ_COPY
    PCI_CONFIG = lib.XD_IOREQ_PCI_CONFIG
    TIMEOFFSET = lib.XD_IOREQ_TIMEOFFSET
    INVALIDATE = lib.XD_IOREQ_INVALIDATE


_IS_READ: int = lib.XD_BIT_READ
_DATA_IS_PTR: int = lib.XD_BIT_DATA_IS_PTR
_DOWN: int = lib.XD_BIT_DOWN


#: The layout of an ``xd_taken``. Reading the fields through cffi would take three times as long.
_TAKEN: Final = struct.Struct("QQIIIHBBIi")
#: The size of an ``xd_taken`` in bytes.
TAKEN_SIZE: Final = _TAKEN.size
assert ffi.sizeof("xd_taken") == TAKEN_SIZE


class Request(NamedTuple):
    """An access that a vCPU waits for. ``data`` is the value to write, or the gpa of the data if ``data_is_ptr``."""

    vcpu: int
    type: int
    addr: int
    data: int
    size: int
    repeats: int
    is_read: bool
    data_is_ptr: bool
    down: bool

    @classmethod
    def unpack(cls, taken: bytes) -> list[Request]:
        """Returns the requests in an array of ``xd_taken``, the copies that :c:func:`xd_slots_take` made."""
        return [request for request, _ in cls.unpack_tried(taken)]

    @classmethod
    def unpack_tried(cls, taken: bytes) -> list[tuple[Request, int]]:
        """The same, each with its ``outcome``: ``XD_NOT_TRIED``, or what ``xd_guest_store`` returned for it."""
        return [
            (
                cls(
                    vcpu,
                    kind,
                    addr,
                    data,
                    size,
                    count,
                    bits & _IS_READ != 0,
                    bits & _DATA_IS_PTR != 0,
                    bits & _DOWN != 0,
                ),
                outcome,
            )
            for addr, data, count, size, _, _, bits, kind, vcpu, outcome in _TAKEN.iter_unpack(taken)
        ]
