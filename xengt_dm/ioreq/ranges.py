"""The address ranges whose accesses Xen sends to our ioreq server."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple, Protocol


class RangeKind(enum.IntEnum):
    """What a range is of. All but GUARD are as XEN_DMOP_IO_RANGE_*, xen/include/public/hvm/dm_op.h."""

    PORT = 0
    MEMORY = 1
    PCI = 2
    #: To Xen this is MEMORY: one frame of guest RAM, see :mod:`xengt_dm.traps.guard_ranges`.
    GUARD = 3


class Range(NamedTuple):
    """Addresses ``first`` to ``last``, both included: ports, guest physical addresses or PCI functions, by ``kind``."""

    kind: RangeKind
    first: int
    last: int


class RangeRecord(Protocol):
    """Where the ranges of the server are on record for a successor.

    A range is recorded before Xen is asked for it, and until Xen has taken it back. So of a process that dies at any
    moment the record has all ranges, and perhaps one that Xen does not have. Methods that write raise OSError.
    """

    def read(self) -> list[Range] | None:
        """What a predecessor recorded; None if it recorded nothing, or nothing that can be trusted."""

    def start(self, ranges: Iterable[Range]) -> None:
        """Replace the record by a new one of these ranges, in one step. Comes before :meth:`add` and :meth:`remove`."""

    def add(self, added: Range) -> None:
        """Raises HostError with ENOSPC if the record is full."""

    def remove(self, removed: Range) -> None:
        """Does nothing if the range is not on record."""

    def clear(self) -> None:
        """The server is destroyed; there is nothing left to record."""


class NoRangeRecord:
    """A :class:`RangeRecord` of a server that nobody will adopt."""

    def read(self) -> list[Range] | None:
        return None

    def start(self, ranges: Iterable[Range]) -> None: ...

    def add(self, added: Range) -> None: ...

    def remove(self, removed: Range) -> None: ...

    def clear(self) -> None: ...
