"""The bus of one domain: which device or memory a request is for, and what it makes of it.

Theory of operation
-------------------
Devices have ranges of addresses in three spaces (:class:`Kind`): guest physical memory, I/O ports, and PCI
configuration space. An access that lies wholly in a range goes to the device, by its offset in the range. Every other
access by guest physical address is one to guest memory, which traps because a page table is there. Every other port and
configuration register reads as all ones and ignores writes.

The guest decides every field of a request, and Xen may deliver one for a range that is not ours any more. So nothing
here raises for what is in a request: one that makes no sense is counted and answered, a read of it with all ones, and
the guest goes on.

A request may stand for several accesses (``rep``). Each has the next address in memory; a port and a register in
configuration space stay what they are. With ``data_is_ptr`` the other side of each access is guest memory.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from xengt_dm._core import lib
from xengt_dm.ioreq.request import Request, RequestType
from xengt_dm.units import PAGE_SIZE, CData

ALL_ONES: Final = (1 << 64) - 1
#: Xen cuts a repeated access at the page's end (xen/arch/x86/hvm/emulate.c, XSA-112); so no honest one is longer.
_MOST_BYTES: Final = PAGE_SIZE


class Kind(enum.IntEnum):
    """An address space with devices in it, by the type of the requests for it."""

    #: By guest physical address. The default is guest memory.
    MEMORY = RequestType.COPY
    #: By port number, 16 bits.
    PORT = RequestType.PIO
    #: By segment, bus, device and function << 32, plus the offset in that function's configuration space.
    PCI_CONFIG = RequestType.PCI_CONFIG


#: A plain int, which compares faster with a request's type.
_MEMORY: Final = int(Kind.MEMORY)


class Answer(NamedTuple):
    """``data``: what a read reads; nobody looks at it for a write. ``route``: what became of the request, an
    ``xd_route``; the time to the answer is counted by it.
    """

    data: int
    route: int


#: Of a request that makes no sense, or of a kind that nobody serves.
REFUSED: Final = Answer(ALL_ONES, lib.XD_ROUTE_REFUSED)
_UNROUTED: Final[int] = lib.XD_ROUTE_REFUSED
_REGISTER_READ: Final[int] = lib.XD_ROUTE_REGISTER_READ
_REGISTER_WRITTEN: Final = Answer(0, lib.XD_ROUTE_REGISTER_WRITE)
_INVALIDATED: Final = Answer(0, lib.XD_ROUTE_INVALIDATE)
#: By route: the answers to a store.
_STORED: Final = tuple(Answer(0, route) for route in range(lib.XD_ROUTES))


class BusDevice(Protocol):
    """A device with a range on the bus: accesses of 1, 2, 4 or 8 bytes at offsets wholly within the range."""

    def read(self, offset: int, size: int) -> int:
        """Returns a value of ``size`` bytes."""

    def write(self, offset: int, size: int, value: int) -> None:
        """``value`` fits ``size``."""


class GuestMemory(Protocol):
    """The guest's memory with its page tables in it; :class:`xengt_dm.ppgtt.engine.Engine` is one."""

    def store(self, gpa: int, size: int, value: int) -> int:
        """Returns the store's route, an ``xd_route``."""

    def load(self, gpa: int, size: int) -> int:
        """Returns ``size`` bytes within one frame; all ones where there is no memory."""

    def frames_changed(self) -> None:
        """The guest gave frames back."""


class Observer(Protocol):
    """Sees the guest's writes by guest physical address, each before it is done; for recording."""

    def store(self, vcpu: int, gpa: int, size: int, value: int) -> None:
        """A store to guest memory."""

    def mmio(self, vcpu: int, offset: int, size: int, value: int) -> None:
        """A write to a device, ``offset`` bytes from the start of its range."""


class RangeError(ValueError):
    """A range that overlaps another, or that is not there."""


class _Range(NamedTuple):
    first: int
    size: int
    device: BusDevice

    def holds(self, addr: int, size: int) -> bool:
        """Whether an access lies wholly in the range."""
        return 0 <= addr - self.first <= self.size - size

    def __str__(self) -> str:
        return f"{self.first:#x}..{self.first + self.size - 1:#x}"


_Ranges = tuple[_Range, ...]


class Bus:
    """Routes the requests of one domain. ``memory`` gets every memory access that is in no range."""

    def __init__(self, memory: GuestMemory, counters: CData) -> None:
        self._memory = memory
        self._counters = counters
        self._observer: Observer | None = None
        #: By kind. A device has few ranges, so they are searched from the first to the last.
        self._ranges: dict[int, _Ranges] = dict.fromkeys(map(int, Kind), ())
        #: By vCPU: a range that was removed while the vCPU waited for its answer to an access of it.
        self._late: dict[int, _Range] = {}

    @property
    def observer(self) -> Observer | None:
        return self._observer

    def observe(self, observer: Observer | None) -> None:
        """Have ``observer`` see all accesses from here on; None for nobody."""
        self._observer = observer

    def insert(self, kind: Kind, first: int, size: int, device: BusDevice) -> None:
        """Give ``device`` the addresses ``first``..``first + size - 1``. Raises RangeError if one of them is taken."""
        new = _Range(first, size, device)
        for there in self._ranges[kind]:
            if first < there.first + there.size and there.first < first + size:
                raise RangeError(f"{kind.name} {new} overlaps {there}")
        self._ranges[kind] += (new,)

    def remove(self, kind: Kind, first: int, late: Iterable[int] = ()) -> None:
        """Take away the range that begins at ``first``. Raises RangeError if there is none.

        ``late``: vCPUs that wait for an answer to an access of this range; the device still gets these accesses.
        """
        gone = next((there for there in self._ranges[kind] if there.first == first), None)
        if gone is None:
            raise RangeError(f"no {kind.name} range begins at {first:#x}")
        self._ranges[kind] = tuple(there for there in self._ranges[kind] if there is not gone)
        self._late.update(dict.fromkeys(late, gone))

    def handle(self, request: Request) -> Answer:
        """Do what the request asks."""
        counters = self._counters
        kind = request.type
        ranges = self._ranges.get(kind)
        if ranges is None:
            if kind != RequestType.INVALIDATE:
                counters.unknown_requests += 1
                return REFUSED
            counters.invalidate_requests += 1
            self._memory.frames_changed()
            return _INVALIDATED
        if self._late and (late := self._late.pop(request.vcpu, None)):
            ranges = (*ranges, late)
        addr, size, repeats = request.addr, request.size, request.repeats
        if size not in (1, 2, 4, 8) or not 0 < repeats * size <= _MOST_BYTES or (size == 8 and kind != _MEMORY):
            counters.malformed_requests += 1
            return REFUSED
        if kind != _MEMORY and not any(there.holds(addr, size) for there in ranges):
            counters.unknown_requests += 1
        if repeats == 1 and not request.data_is_ptr:
            return self._access(ranges, request, addr, request.data)
        step = -size if request.down else size
        along = step if kind == _MEMORY else 0
        answer = REFUSED
        for i in range(repeats):
            answer = self._item(ranges, request, addr + i * along & ALL_ONES, request.data + i * step)
        return answer

    def _item(self, ranges: _Ranges, request: Request, addr: int, data: int) -> Answer:
        """One access of several; with ``data_is_ptr`` its other side is guest memory at ``data``."""
        size = request.size
        if not request.data_is_ptr:
            return self._access(ranges, request, addr, request.data)
        if request.is_read:
            value = self._access(ranges, request, addr, 0).data & (1 << 8 * size) - 1
            if self._observer is not None:
                self._observer.store(request.vcpu, data & ALL_ONES, size, value)
            return Answer(value, self._store(data, size, value))
        return self._access(ranges, request, addr, self._load(data, size))

    def _access(self, ranges: _Ranges, request: Request, addr: int, data: int) -> Answer:
        size = request.size
        for first, length, device in ranges:
            offset = addr - first
            if 0 <= offset <= length - size:
                self._counters.mmio_traps += 1
                if request.is_read:
                    return Answer(device.read(offset, size), _REGISTER_READ)
                data &= (1 << 8 * size) - 1
                if self._observer is not None and request.type == _MEMORY:
                    self._observer.mmio(request.vcpu, offset, size, data)
                device.write(offset, size, data)
                return _REGISTER_WRITTEN
        if request.type != _MEMORY:
            return REFUSED
        if request.is_read:  # half of a read-modify-write, where a page that traps is no RAM to Xen's emulator (4.6)
            return Answer(self._load(addr, size), _UNROUTED)
        self._counters.store_traps += 1
        data &= (1 << 8 * size) - 1
        if self._observer is not None:
            self._observer.store(request.vcpu, addr, size, data)
        return _STORED[self._store(addr, size, data)]

    def _store(self, gpa: int, size: int, value: int) -> int:
        """A store that may lie in two frames: Xen sends none such, a repeated move may."""
        gpa &= ALL_ONES
        low = PAGE_SIZE - gpa % PAGE_SIZE
        if size <= low:
            return self._memory.store(gpa, size, value)
        for i in range(size):
            route = self._memory.store((gpa + i) & ALL_ONES, 1, value >> 8 * i & 0xFF)
        return route

    def _load(self, gpa: int, size: int) -> int:
        gpa &= ALL_ONES
        if size <= PAGE_SIZE - gpa % PAGE_SIZE:
            return self._memory.load(gpa, size)
        return sum(self._memory.load((gpa + i) & ALL_ONES, 1) << 8 * i for i in range(size))
