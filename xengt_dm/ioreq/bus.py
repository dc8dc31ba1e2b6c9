"""The bus of one domain: routes each request to a device or to guest memory, and returns the answer.

Theory of operation
-------------------
Devices have ranges of addresses in three spaces (:class:`Kind`): guest physical memory, I/O ports, and PCI
configuration space. An access that lies wholly in a range goes to the device, by its offset in the range. Every other
access by guest physical address is one to guest memory, which traps because a page table is there. Every other port and
configuration register reads as all ones and ignores writes.

The guest decides every field of a request, and Xen may deliver one for a range that is not ours any more. So no field
of a request makes this module raise. An invalid request is counted and answered (a read returns all ones), and the
guest continues.

What may take long is returned as steps (:mod:`xengt_dm.steps`); the request is answered at their end.

A request may stand for several accesses (``rep``). The address of a memory access moves on by one element each
time; a port and a configuration register stay the same. With ``data_is_ptr`` the data of each access is in guest
memory.

A process may be killed at any time, and its successor does the request again. So every step that must not be done
twice is recorded in the journal (:mod:`xengt_dm.ioreq.journal`): each copy of an element, and how many elements are
done whenever other requests are served. A plain store to memory or to a register is not recorded, unless other
requests are served between the store and its answer: then it is recorded as done, since another vCPU may store to the
same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple, Protocol

from xengt_dm._core import lib
from xengt_dm.ioreq.devices import BusDevice, DeviceRange, Devices, Kind
from xengt_dm.ioreq.journal import Journal, Progress
from xengt_dm.ioreq.request import Request, RequestType
from xengt_dm.steps import Slices, Steps
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE, CData

ALL_ONES: Final = (1 << 64) - 1
#: Xen cuts a repeated access at the page's end (xen/arch/x86/hvm/emulate.c, XSA-112); so no honest one is longer.
_MOST_BYTES: Final = PAGE_SIZE
#: Accesses of one request that are made in a slice.
_ITEMS: Final = 64
#: Directories that were stored to and are to be updated; by frame, their first and last entry.
Postponed = dict[int, tuple[int, int]]


#: A plain int, which compares faster with a request's type.
_MEMORY: Final = int(Kind.MEMORY)


class Answer(NamedTuple):
    """``data``: the value of a read; ignored for a write. ``route``: what became of the request, an ``xd_route``;
    the time to the answer is counted by it.
    """

    data: int
    route: int


#: Of a request that makes no sense, or of a kind that nobody serves.
REFUSED: Final = Answer(ALL_ONES, lib.XD_ROUTE_REFUSED)
_UNROUTED: Final[int] = lib.XD_ROUTE_REFUSED
_REGISTER_READ: Final[int] = lib.XD_ROUTE_REGISTER_READ
_REGISTER_WRITTEN: Final = Answer(0, lib.XD_ROUTE_REGISTER_WRITE)
_INVALIDATED: Final = Answer(0, lib.XD_ROUTE_INVALIDATE)
#: Of a request that nobody began to handle.
_NONE: Final = Progress()
#: By route: the answers to a store.
_STORED: Final = tuple(Answer(0, route) for route in range(lib.XD_ROUTES))


class GuestMemory(Protocol):
    """The guest's memory with its page tables in it; :class:`xengt_dm.ppgtt.stores.TableStores`."""

    def store(self, gpa: int, size: int, value: int, performed: Callable[[], None]) -> int | Steps[int]:
        """Returns the store's route, an ``xd_route``, or steps that end with it.

        ``performed`` is called if there are steps, once the store must not be done again.
        """

    def follow(self, result: int, gpa: int, size: int, value: int, performed: Callable[[], None]) -> int | Steps[int]:
        """What is left of a store for which C's ``xd_guest_store`` returned ``result``; as :meth:`store`."""

    def store_of_many(
        self, gpa: int, size: int, value: int, postponed: Postponed, performed: Callable[[], None]
    ) -> int | Steps[int]:
        """As :meth:`store`, but directories are only noted in ``postponed``, for :meth:`update_directories`."""

    def pause_stores(self, postponed: Postponed) -> None:
        """Other requests are served before the directories are updated."""

    def update_directories(self, postponed: Postponed) -> Steps[None]:
        """Update the directories that were stored to."""

    def look_again(self, gpa: int) -> None:
        """The guest is about to use this address. Whether there is memory may have changed since that was found out."""

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


_Ranges = tuple[DeviceRange, ...]


class Bus:
    """Routes the requests of one domain. ``memory`` gets every memory access that is in no range."""

    def __init__(self, memory: GuestMemory, counters: CData, journal: Journal) -> None:
        self._memory = memory
        self._journal = journal
        self._counters = counters
        self._observer: Observer | None = None
        self.devices: Final = Devices()
        self._ranges: Final = self.devices.ranges
        #: By vCPU: a range that was removed while the vCPU waited for its answer to an access of it.
        self._late: dict[int, DeviceRange] = {}

    @property
    def is_simple(self) -> bool:
        """Whether C knows where each access to memory goes, and nobody observes."""
        return self._observer is None and not self._late and self.devices.known_to_c

    @property
    def observer(self) -> Observer | None:
        return self._observer

    def observe(self, observer: Observer | None) -> None:
        """Have ``observer`` see all accesses from here on; None for nobody."""
        self._observer = observer

    def insert(self, kind: Kind, first: int, size: int, device: BusDevice, registers: CData | None = None) -> None:
        """Give ``device`` the addresses ``first``..``first + size - 1``. Raises RangeError if one of them is taken.

        ``registers``: the ``xd_registers *`` by which C may serve what is plain of a device in memory.
        """
        self.devices.insert(kind, first, size, device, registers)

    def remove(self, kind: Kind, first: int, late: Iterable[int] = ()) -> None:
        """Take away the range that begins at ``first``. Raises RangeError if there is none.

        ``late``: vCPUs that wait for an answer to an access of this range; the device still gets these accesses.
        """
        self._late.update(dict.fromkeys(late, self.devices.remove(kind, first)))

    def give_up(self) -> Answer:
        """Returns the answer to a request that too many processes began and none finished. Counts it."""
        self._counters.given_up_requests += 1
        return REFUSED

    def handle_begun(self, request: Request) -> Answer | Steps[Answer]:
        """As :meth:`handle`, for a request that somebody began to handle. Does what is left of it."""
        return self.handle(request, self._journal.progress(request.vcpu))

    def follow(self, request: Request, result: int) -> Answer | Steps[Answer]:
        """What is left of a store to guest memory that C tried, with ``result``; as :meth:`handle`."""
        self._counters.store_traps += 1
        size, value = request.size, request.data & (1 << 8 * request.size) - 1
        route = self._memory.follow(result, request.addr, size, value, partial(self._journal.done, request.vcpu, 1))
        return _STORED[route] if isinstance(route, int) else _stored(route)

    def finish_write(self, request: Request, rest: Steps[None]) -> Steps[Answer]:
        """The answer to a write to a device that C began, with ``rest`` left of it."""
        return self._written(rest, request.vcpu, 0)

    def handle(self, request: Request, progress: Progress = _NONE) -> Answer | Steps[Answer]:
        """Do what the request asks. Returns the answer, or steps that end with it if that takes longer."""
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
            if progress.done:  # a write that changed the device's state
                return _REGISTER_WRITTEN
            return self._access(ranges, request, addr, request.data)
        return self._repeat(ranges, request, progress)

    def _repeat(self, ranges: _Ranges, request: Request, progress: Progress) -> Steps[Answer]:
        """A request for several accesses, or for one whose other side is guest memory.

        Facts: it may be 4096 stores to a page, each of which may link or unlink thousands of tables. What we do: all
        stores are performed in guest memory, and directories are updated once, at the end.

        ``progress``: how far a predecessor got. It also says what the element copies that the predecessor died in; if
        memory holds another value than the old one, the copy was made, and a later store may have replaced it.
        """
        memory, journal = self._memory, self._journal
        copied = progress.copied
        size = request.size
        step = -size if request.down else size
        along = step if request.type == _MEMORY else 0
        answer: Answer = _STORED[lib.XD_ROUTE_UNTRACKED_STORE]
        postponed: Postponed = {}
        first = progress.done
        for i in range(first, request.repeats):
            if i and i % _ITEMS == 0:
                journal.done(request.vcpu, i)
                memory.pause_stores(postponed)
                yield
            addr = request.addr + i * along & ALL_ONES
            data = request.data + i * step & ALL_ONES
            if request.data_is_ptr:
                if i == first or data >> PAGE_SHIFT != data - step >> PAGE_SHIFT:
                    memory.look_again(data)  # nobody tells us of a frame that becomes RAM
                outcome = self._copy(ranges, request, i, (addr, data), copied, postponed)
                copied = None
            else:
                outcome = self._access(ranges, request, addr, request.data, postponed, i)
            if not isinstance(outcome, Answer):  # other requests will be served
                if not request.data_is_ptr and journal.progress(request.vcpu).done < i:
                    journal.done(request.vcpu, i)
                memory.pause_stores(postponed)
                outcome = yield from outcome
            answer = outcome
        journal.done(request.vcpu, request.repeats)
        yield from memory.update_directories(postponed)
        return answer

    def _copy(
        self,
        ranges: _Ranges,
        request: Request,
        element: int,
        addresses: tuple[int, int],
        copied: tuple[int, int] | None,
        postponed: Postponed,
    ) -> Answer | Steps[Answer]:
        """Copies an element between the address that traps and guest memory; ``addresses`` are these two.

        ``copied``: as in :class:`~xengt_dm.ioreq.journal.Progress`, if a predecessor copied this element.
        """
        trapping, other = addresses
        size, vcpu = request.size, request.vcpu
        to = other if request.is_read else trapping
        to_device = not request.is_read and any(there.holds(trapping, size) for there in ranges)
        if copied is None:
            value = self._read(ranges, request, trapping) if request.is_read else self._load(other, size)
            self._journal.copies(vcpu, element, value, 0 if to_device else self._load(to, size))
        elif to_device:
            value = copied[0]
        else:
            return self._finish_copy(to, size, *copied, vcpu, postponed, element)
        if request.is_read:
            return self._store(to, size, value, vcpu, postponed, element)
        return self._access(ranges, request, to, value, postponed, element)

    def _finish_copy(
        self, gpa: int, size: int, value: int, old: int, vcpu: int, postponed: Postponed, element: int
    ) -> Steps[Answer]:
        """Stores what a predecessor may have stored already, where memory still holds ``old``."""
        part = size if size <= PAGE_SIZE - gpa % PAGE_SIZE else 1  # what lies in two frames is stored byte by byte
        bits = (1 << 8 * part) - 1
        answer: Answer = _STORED[lib.XD_ROUTE_UNTRACKED_STORE]
        for at in range(0, size, part):
            to = gpa + at & ALL_ONES
            if self._load(to, part) == old >> 8 * at & bits:
                last = element if at + part == size else None
                outcome = self._store(to, part, value >> 8 * at & bits, vcpu, postponed, last)
                answer = outcome if isinstance(outcome, Answer) else (yield from outcome)
        return answer

    def _read(self, ranges: _Ranges, request: Request, addr: int) -> int:
        """What an element of a repeated read reads."""
        read = self._access(ranges, request, addr, 0)
        assert isinstance(read, Answer)
        return read.data & (1 << 8 * request.size) - 1

    def _access(
        self,
        ranges: _Ranges,
        request: Request,
        addr: int,
        data: int,
        postponed: Postponed | None = None,
        element: int = 0,
    ) -> Answer | Steps[Answer]:
        """One access, which is this element of the request.

        ``postponed``: where updates of directories are noted that are to be made later.
        """
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
                self._journal.in_hand(request.vcpu, element)
                try:
                    rest = device.write(offset, size, data)
                finally:
                    self._journal.put_down()
                return _REGISTER_WRITTEN if rest is None else self._written(rest, request.vcpu, element)
        if request.type != _MEMORY:
            return REFUSED
        if request.is_read:  # half of a read-modify-write, where a page that traps is no RAM to Xen's emulator (4.6)
            return Answer(self._load(addr, size), _UNROUTED)
        self._counters.store_traps += 1
        return self._store(addr, size, data & (1 << 8 * size) - 1, request.vcpu, postponed, element)

    def _store(
        self, gpa: int, size: int, value: int, vcpu: int, postponed: Postponed | None, element: int | None
    ) -> Answer | Steps[Answer]:
        """A store to guest memory. ``element``: what of the request is done with it, None if that is less than one."""
        if self._observer is not None:
            self._observer.store(vcpu, gpa, size, value)
        performed = _nothing if element is None else partial(self._journal.done, vcpu, element + 1)
        if size > PAGE_SIZE - gpa % PAGE_SIZE:
            return self._store_bytes(gpa, size, value, postponed, performed)
        if postponed is None:
            route = self._memory.store(gpa, size, value, performed)
        else:
            route = self._memory.store_of_many(gpa, size, value, postponed, performed)
        return _STORED[route] if isinstance(route, int) else _stored(route)

    def _store_bytes(
        self, gpa: int, size: int, value: int, postponed: Postponed | None, performed: Callable[[], None]
    ) -> Steps[Answer]:
        """A store that lies in two frames: Xen sends none such, a repeated move may."""
        whole: Postponed = {} if postponed is None else postponed
        answer = REFUSED
        for i in range(size):
            with_it = performed if i == size - 1 else _nothing
            route = self._memory.store_of_many(gpa + i & ALL_ONES, 1, value >> 8 * i & 0xFF, whole, with_it)
            answer = _STORED[route] if isinstance(route, int) else (yield from _stored(route))
        if postponed is None:
            performed()
            yield from self._memory.update_directories(whole)
        return answer

    def _written(self, rest: Steps[None], vcpu: int, element: int) -> Steps[Answer]:
        """What is left of a write to a device."""
        slices = iter(Slices(rest))
        try:
            while True:
                self._journal.in_hand(vcpu, element)
                if next(slices, slices) is slices:
                    return _REGISTER_WRITTEN
                self._journal.put_down()
                yield
        finally:
            self._journal.put_down()
            rest.close()

    def _load(self, gpa: int, size: int) -> int:
        if size <= PAGE_SIZE - gpa % PAGE_SIZE:
            return self._memory.load(gpa, size)
        return sum(self._memory.load(gpa + i & ALL_ONES, 1) << 8 * i for i in range(size))


def _nothing() -> None:
    """Part of an element is in guest memory. What is left of it must be done, and this part with it."""


def _stored(rest: Steps[int]) -> Steps[Answer]:
    return _STORED[(yield from rest)]
