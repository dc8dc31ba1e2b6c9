"""From an ioreq to what it means: a register of the device, or a store to guest memory.

The guest decides every field of a request. So nothing here raises for what is in one: a request that makes no sense is
counted and answered, reads with all ones, and the guest goes on.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from xengt_dm._core import lib
from xengt_dm.ioreq.request import Request, RequestType
from xengt_dm.units import CData

ALL_ONES = (1 << 64) - 1
_FRAME = 4096
#: Xen cuts a repeated access at the page's end (xen/arch/x86/hvm/emulate.c, XSA-112); so no honest one is longer.
_MOST_BYTES = _FRAME


class Answer(NamedTuple):
    """``data``: what a read reads; nobody looks at it for a write. ``route``: what became of the request, an
    ``xd_route``; the time to the answer is counted by it.
    """

    data: int
    route: int


#: Of a request that makes no sense, or of a kind that nobody serves.
REFUSED = Answer(ALL_ONES, lib.XD_ROUTE_REFUSED)
_REGISTER_READ: int = lib.XD_ROUTE_REGISTER_READ
_REGISTER_WRITTEN = Answer(0, lib.XD_ROUTE_REGISTER_WRITE)
_INVALIDATED = Answer(0, lib.XD_ROUTE_INVALIDATE)
#: By route: the answers to a store.
_STORED = tuple(Answer(0, route) for route in range(lib.XD_ROUTES))


class RegisterFile(Protocol):
    """A device behind a BAR: accesses of 1, 2, 4 or 8 bytes at offsets within it."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class GuestMemory(Protocol):
    """The guest's memory with its page tables in it; :class:`xengt_dm.ppgtt.engine.Engine` is one."""

    def store(self, gpa: int, size: int, value: int) -> int:
        """Returns the store's route, an ``xd_route``."""

    def load(self, gpa: int, size: int) -> int: ...

    def frames_changed(self) -> None: ...


class Tap(Protocol):
    """Sees what the guest does, before it is done; for recording."""

    def store(self, vcpu: int, gpa: int, size: int, value: int) -> None: ...

    def mmio(self, vcpu: int, offset: int, size: int, value: int) -> None: ...


class Bus:
    """Routes the requests of one domain: BAR0 at gpa ``bar0`` of ``bar0_size`` bytes, guest memory everywhere else."""

    def __init__(self, device: RegisterFile, memory: GuestMemory, counters: CData, bar0: int, bar0_size: int) -> None:
        self._device = device
        self._memory = memory
        self._counters = counters
        self._bar0 = bar0
        self._bar0_size = bar0_size
        self.tap: Tap | None = None

    def handle(self, request: Request) -> Answer:
        """Do what the request asks."""
        counters = self._counters
        if request.type == RequestType.INVALIDATE:
            counters.invalidate_requests += 1
            self._memory.frames_changed()
            return _INVALIDATED
        if request.type != RequestType.COPY:
            counters.unknown_requests += 1
            return REFUSED
        size, repeats = request.size, request.repeats
        if size not in (1, 2, 4, 8) or not 0 < repeats * size <= _MOST_BYTES:
            counters.malformed_requests += 1
            return REFUSED
        if repeats == 1 and not request.data_is_ptr:
            return self._access(request.vcpu, request.addr, size, request.data, request.is_read)
        step = -size if request.down else size
        answer = REFUSED
        for i in range(repeats):
            answer = self._access_item(request, request.addr + i * step & ALL_ONES, request.data + i * step)
        return answer

    def _access_item(self, request: Request, addr: int, data: int) -> Answer:
        """One repetition; with ``data_is_ptr`` the other side of the move is guest memory at ``data``."""
        size = request.size
        if not request.data_is_ptr:
            return self._access(request.vcpu, addr, size, request.data, request.is_read)
        if request.is_read:
            value = self._access(request.vcpu, addr, size, 0, is_read=True).data
            if self.tap is not None:
                self.tap.store(request.vcpu, data & ALL_ONES, size, value & (1 << 8 * size) - 1)
            return Answer(value, self._store(data, size, value))
        return self._access(request.vcpu, addr, size, self._load(data, size), is_read=False)

    def _access(self, vcpu: int, addr: int, size: int, data: int, is_read: bool) -> Answer:
        offset = addr - self._bar0
        if 0 <= offset <= self._bar0_size - size:
            self._counters.mmio_traps += 1
            if is_read:
                return Answer(self._device.read(offset, size), _REGISTER_READ)
            data &= (1 << 8 * size) - 1
            if self.tap is not None:
                self.tap.mmio(vcpu, offset, size, data)
            self._device.write(offset, size, data)
            return _REGISTER_WRITTEN
        if is_read:  # half of a read-modify-write, where a page that traps is no RAM to Xen's emulator (4.6)
            return Answer(self._load(addr, size), lib.XD_ROUTE_REFUSED)
        self._counters.store_traps += 1
        data &= (1 << 8 * size) - 1
        if self.tap is not None:
            self.tap.store(vcpu, addr, size, data)
        return _STORED[self._store(addr, size, data)]

    def _store(self, gpa: int, size: int, value: int) -> int:
        """A store that may lie in two frames: Xen sends none such, a repeated move may."""
        gpa &= ALL_ONES
        low = _FRAME - gpa % _FRAME
        if size <= low:
            return self._memory.store(gpa, size, value & (1 << 8 * size) - 1)
        for i in range(size):
            route = self._memory.store((gpa + i) & ALL_ONES, 1, value >> 8 * i & 0xFF)
        return route

    def _load(self, gpa: int, size: int) -> int:
        gpa &= ALL_ONES
        if size <= _FRAME - gpa % _FRAME:
            return self._memory.load(gpa, size)
        return sum(self._memory.load((gpa + i) & ALL_ONES, 1) << 8 * i for i in range(size))
