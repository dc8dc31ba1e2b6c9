"""The devices on a bus: which addresses are whose, for Python and for C."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

from xengt_dm._core import ffi, lib
from xengt_dm.ioreq.request import RequestType
from xengt_dm.steps import Steps
from xengt_dm.units import CData


class Kind(enum.IntEnum):
    """An address space with devices in it, by the type of the requests for it."""

    #: By guest physical address. The default is guest memory.
    MEMORY = RequestType.COPY
    #: By port number, 16 bits.
    PORT = RequestType.PIO
    #: By segment, bus, device and function << 32, plus the offset in that function's configuration space.
    PCI_CONFIG = RequestType.PCI_CONFIG


class BusDevice(Protocol):
    """A device with a range on the bus: accesses of 1, 2, 4 or 8 bytes at offsets wholly within the range."""

    def read(self, offset: int, size: int) -> int:
        """Returns a value of ``size`` bytes."""

    def write(self, offset: int, size: int, value: int) -> Steps[None] | None:
        """``value`` fits ``size``. Returns None, or steps that do what is left."""


class RangeError(ValueError):
    """A range that overlaps another, or that is not there."""


class DeviceRange(NamedTuple):
    """A range of addresses that is a device's. The bus compares with its first three fields, which are plain."""

    first: int
    size: int
    device: BusDevice

    def holds(self, addr: int, size: int) -> bool:
        """Whether an access lies wholly in the range."""
        return 0 <= addr - self.first <= self.size - size

    def __str__(self) -> str:
        return f"{self.first:#x}..{self.first + self.size - 1:#x}"


class Devices:
    """The ranges of all devices. A device has few, so they are searched from the first to the last."""

    def __init__(self) -> None:
        #: By kind.
        self.ranges: dict[int, tuple[DeviceRange, ...]] = dict.fromkeys(map(int, Kind), ())
        #: Those in memory for C, an ``xd_ranges *``.
        self.pointer: CData = ffi.new("xd_ranges *")
        #: The ``xd_registers *`` of the devices in memory that have one, by the beginnings of their ranges.
        self._registers: dict[int, CData] = {}

    @property
    def known_to_c(self) -> bool:
        """Whether :attr:`pointer` has all ranges in memory."""
        return len(self.ranges[Kind.MEMORY]) <= int(lib.XD_MOST_RANGES)

    def insert(self, kind: Kind, first: int, size: int, device: BusDevice, registers: CData | None) -> None:
        """As :meth:`xengt_dm.ioreq.bus.Bus.insert`."""
        new = DeviceRange(first, size, device)
        for there in self.ranges[kind]:
            if first < there.first + there.size and there.first < first + size:
                raise RangeError(f"{kind.name} {new} overlaps {there}")
        self.ranges[kind] += (new,)
        if kind is Kind.MEMORY:
            self._registers[first] = registers or ffi.NULL
            self._tell_c()

    def remove(self, kind: Kind, first: int) -> DeviceRange:
        """Returns the range that begins at ``first``, which is gone then. Raises RangeError if there is none."""
        gone = next((there for there in self.ranges[kind] if there.first == first), None)
        if gone is None:
            raise RangeError(f"no {kind.name} range begins at {first:#x}")
        self.ranges[kind] = tuple(there for there in self.ranges[kind] if there is not gone)
        if kind is Kind.MEMORY:
            del self._registers[first]
            self._tell_c()
        return gone

    def _tell_c(self) -> None:
        known = self.ranges[Kind.MEMORY][: lib.XD_MOST_RANGES]
        self.pointer.count = len(known)
        for row, each in zip(self.pointer.ranges, known, strict=False):
            row.first, row.size, row.registers = each.first, each.size, self._registers[each.first]
