"""The ioreq page: one slot for each vCPU, in memory that Xen and this process share.

A slot goes round in four states. Xen writes a request and makes it READY, and the vCPU stops. We copy the request out
once and make the slot INPROCESS; we write the answer and make it RESP_READY. Xen takes the answer, makes the slot NONE,
and the vCPU goes on. After NONE the slot still holds the request that it held last, until the vCPU makes another one.

So the page says more than what to answer: it says which frames the vCPUs are storing to at this moment, or stored to
last. Whoever changes the type of a frame has to know that; see :mod:`xengt_dm.traps.state`.
"""

from __future__ import annotations

from typing import NamedTuple

from xengt_dm._core import ffi, lib
from xengt_dm.ioreq.bus import Answer
from xengt_dm.ioreq.request import TAKEN_SIZE, Request, RequestType
from xengt_dm.units import PAGE_SHIFT, CData

#: What a vCPU takes at most to wake up and take its answer, if it gets a CPU.
TAKE_NANOSECONDS = 200_000


class LastStores(NamedTuple):
    """The frames that the last request of each vCPU stores to, if that request is a store.

    ``unfinished``: Xen has not taken the answer. ``finished``: Xen has taken it; but until the domain has been paused,
    the vCPU may still be in the middle of the instruction that made the request.
    """

    unfinished: set[int]
    finished: set[int]


class Slots:
    """The mapped page. ``timing`` is an ``xd_timing *``, which gets the time from each request to its answer."""

    def __init__(self, address: int, vcpus: int, timing: CData) -> None:
        self.vcpus = vcpus
        self._page: CData = ffi.cast("void *", address)
        self._slots: CData = ffi.cast("xd_ioreq *", address)
        self._taken: CData = ffi.new("xd_taken[]", vcpus)
        self._taken_bytes = ffi.buffer(self._taken)
        self._timing = timing

    # Requests and answers

    def take(self, *, begun: bool = False) -> list[Request]:
        """The requests that are READY, which become INPROCESS; with ``begun`` also those that are INPROCESS already."""
        return self._requests(lib.xd_slots_take(self._page, self.vcpus, begun, self._taken, self._timing))

    def await_(self, nanoseconds: int) -> list[Request]:
        """As :meth:`take`; if there are none, looks for up to ``nanoseconds`` whether one comes."""
        return self._requests(lib.xd_slots_await(self._page, self.vcpus, nanoseconds, self._taken, self._timing))

    def _requests(self, count: int) -> list[Request]:
        return Request.unpack(self._taken_bytes[: count * TAKEN_SIZE]) if count else []

    def answer(self, vcpu: int, answer: Answer) -> None:
        """Write the answer, and make the slot RESP_READY. The caller must notify the vCPU."""
        data, route = answer
        lib.xd_slot_answer(self._page, vcpu, data, route, self._timing)

    def port_of(self, vcpu: int) -> int:
        """The number of the domain's end of this vCPU's event channel; Xen writes it when the server is enabled."""
        return int(lib.xd_slot_port(self._page, vcpu))

    # States

    def state(self, vcpu: int) -> int:
        """An ``XD_STATE_...``."""
        return int(lib.xd_slot_state(self._page, vcpu))

    def waiting(self) -> bool:
        """Whether a vCPU waits for an answer now."""
        return any(self.state(vcpu) in (lib.XD_STATE_READY, lib.XD_STATE_INPROCESS) for vcpu in range(self.vcpus))

    def waiting_in(self, first: int, last: int) -> list[int]:
        """The vCPUs that wait for an answer to a memory access that begins in gpa ``first``..``last``."""
        return [
            vcpu
            for vcpu in range(self.vcpus)
            if self.state(vcpu) in (lib.XD_STATE_READY, lib.XD_STATE_INPROCESS)
            and self._slots[vcpu].type == RequestType.COPY
            and first <= self._slots[vcpu].addr <= last
        ]

    def all_taken(self) -> bool:
        """Whether Xen has taken every answer. It forgets those that it has not when the server is destroyed."""
        return all(self.state(vcpu) == lib.XD_STATE_NONE for vcpu in range(self.vcpus))

    def await_taken(self) -> None:
        """Give the vCPUs up to :data:`TAKE_NANOSECONDS` to take the answers that are there."""
        lib.xd_slots_await_taken(self._page, self.vcpus, TAKE_NANOSECONDS)

    # Frames

    def pending_frames(self) -> set[int]:
        """The frames that a vCPU may still store to before the instruction that it waits in is over.

        These are the frame that its request names and the next one, because a store goes upwards and has 64 bytes at
        most. Requests other than COPY name no frame: INVALIDATE has 0 for an address.
        """
        frames: set[int] = set()
        for vcpu in range(self.vcpus):
            if self.state(vcpu) != lib.XD_STATE_NONE and self._slots[vcpu].type == RequestType.COPY:
                gfn = self._slots[vcpu].addr >> PAGE_SHIFT
                frames.update((gfn, gfn + 1))
        return frames

    def last_stores(self) -> LastStores:
        """The frames that the vCPUs' last requests store to."""
        frames = LastStores(set(), set())
        for vcpu in range(self.vcpus):
            finished = self.state(vcpu) == lib.XD_STATE_NONE
            slot = self._slots[vcpu]
            if slot.type == RequestType.COPY and not slot.bits & lib.XD_BIT_READ:
                frames[finished].add(slot.addr >> PAGE_SHIFT)
        return frames
