"""The address ranges whose accesses Xen sends to our ioreq server."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple, Protocol


class RangeKind(enum.IntEnum):
    """What a range consists of. All but GUARD are as XEN_DMOP_IO_RANGE_*, xen/include/public/hvm/dm_op.h."""

    PORT = 0
    MEMORY = 1
    PCI = 2
    #: To Xen this is MEMORY: one frame of guest RAM, see :mod:`xengt_dm.traps.guard_ranges`.
    GUARD = 3


class Range(NamedTuple):
    """Addresses ``first`` to ``last``, both included: ports or guest physical addresses, by ``kind``.

    A PCI range is the configuration space of one function: both numbers are that of :func:`xengt_dm.units.sbdf`.
    """

    kind: RangeKind
    first: int
    last: int


class RangeRecord(Protocol):
    """The record of the server's ranges for a successor.

    A range is recorded before Xen gets it and removed from the record after Xen has removed it. So if the process dies
    at any moment, the record has all ranges, and at most one more that Xen does not have. Methods that write raise
    OSError.
    """

    def read(self) -> list[Range] | None:
        """Returns what a predecessor recorded; None if there is no record, or none that can be trusted."""

    def start(self, ranges: Iterable[Range]) -> None:
        """Replaces the record, in one step, by one of these ranges. Must precede :meth:`add` and :meth:`remove`."""

    def add(self, added: Range) -> bool:
        """Records a range. Returns whether it was not there. Raises HostError with ENOSPC if the record is full."""

    def remove(self, removed: Range) -> None:
        """Removes a range from the record. Does nothing if it is not there."""

    def clear(self) -> None:
        """Removes the record, after the server was destroyed."""


class NoRangeRecord:
    """A :class:`RangeRecord` that records nothing, for a server that no successor will adopt."""

    def read(self) -> list[Range] | None:
        return None

    def start(self, ranges: Iterable[Range]) -> None: ...

    def add(self, added: Range) -> bool:
        return True

    def remove(self, removed: Range) -> None: ...

    def clear(self) -> None: ...
