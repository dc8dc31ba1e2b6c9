"""One ioreq, as copied out of its slot."""

from __future__ import annotations

import enum
from typing import NamedTuple

from xengt_dm._core import lib
from xengt_dm.units import CData


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


class Request(NamedTuple):
    """What a vCPU waits for. ``data`` is the value to write, or the gpa of the data if ``data_is_ptr``."""

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
    def from_taken(cls, taken: CData) -> Request:
        """From an ``xd_taken``, the snapshot that :c:func:`xd_slots_take` made."""
        req = taken.req
        bits = req.bits
        return cls(
            taken.vcpu,
            req.type,
            req.addr,
            req.data,
            req.size,
            req.count,
            bits & _IS_READ != 0,
            bits & _DATA_IS_PTR != 0,
            bits & _DOWN != 0,
        )
