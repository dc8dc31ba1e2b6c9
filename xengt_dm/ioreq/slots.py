"""The ioreq page: one slot for each vCPU, in memory that Xen and this process share.

A slot goes through four states. Xen writes a request and makes the slot READY, and the vCPU waits. We copy the request
out once and make the slot INPROCESS; we write the answer and make the slot RESP_READY. Xen takes the answer and makes
the slot NONE, and the vCPU continues. A slot that is NONE still holds its last request, until the vCPU makes the next.

So the page also says which frames the vCPUs are storing to now, or stored to last. That decides which frames may change
their types; see :mod:`xengt_dm.traps.state`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from xengt_dm._core import ffi, lib
from xengt_dm.ioreq.bus import Answer
from xengt_dm.ioreq.request import TAKEN_SIZE, Request, RequestType
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE, CData

#: How long we wait for a vCPU to take its answer. One that gets a CPU needs less.
TAKE_NANOSECONDS = 200_000


class Take(enum.IntEnum):
    """Which requests to take, by the states of their slots."""

    READY = lib.XD_TAKE_READY
    #: Those that somebody began to serve.
    BEGUN = lib.XD_TAKE_BEGUN
    ALL = lib.XD_TAKE_ALL


class LastStores(NamedTuple):
    """Where the last request of each vCPU stores to, if that request is a store: guest-physical addresses.

    ``unfinished``: Xen has not taken the answer to the request. ``finished``: Xen has taken it. But until the next
    barrier, the vCPU may still be in the middle of the instruction that made the request.

    ``in_hand``: those of the unfinished ones that are stored to by requests only that are being handled. ``ready``:
    those whose requests nobody has begun to handle.
    """

    unfinished: set[int]
    finished: set[int]
    in_hand: frozenset[int] = frozenset()
    ready: frozenset[int] = frozenset()

    @property
    def waiting(self) -> set[int]:
        """The unfinished ones without those in hand: nothing that is handled now may wait for the latter."""
        return self.unfinished - self.in_hand

    @property
    def unfinished_frames(self) -> set[int]:
        """The frames that unfinished requests store to."""
        return {gpa >> PAGE_SHIFT for gpa in self.unfinished}

    @property
    def finished_frames(self) -> set[int]:
        """The frames that finished requests store to."""
        return {gpa >> PAGE_SHIFT for gpa in self.finished}


class Slots:
    """The mapped page. ``timing`` is an ``xd_timing *``, which records the time from each request to its answer.

    ``journal``: the ``xd_journal_record *`` of vCPU 0; what it says of a request ends when the vCPU has a new one.
    """

    def __init__(self, address: int, vcpus: int, timing: CData, journal: CData) -> None:
        self.vcpus = vcpus
        self.page: CData = ffi.cast("void *", address)
        self._slots: CData = ffi.cast("xd_ioreq *", address)
        self._taken: CData = ffi.new("xd_taken[]", vcpus)
        self._taken_bytes = ffi.buffer(self._taken)
        self._timing = timing
        self.journal = journal

    # Requests and answers

    def take(self, which: Take = Take.READY) -> list[Request]:
        """Returns the requests in the states that ``which`` names, and makes them INPROCESS."""
        count = lib.xd_slots_take(self.page, self.vcpus, which, self._taken, self._timing, self.journal)
        return self._requests(count)

    def _requests(self, count: int) -> list[Request]:
        return Request.unpack(self._taken_bytes[: count * TAKEN_SIZE]) if count else []

    def answer(self, vcpu: int, answer: Answer) -> None:
        """Writes the answer and makes the slot RESP_READY. The caller must notify the vCPU."""
        data, route = answer
        lib.xd_slot_answer(self.page, vcpu, data, route, self._timing)

    def port_of(self, vcpu: int) -> int:
        """Returns the port of Xen's end of this vCPU's event channel. Xen writes it when the server is enabled."""
        return int(lib.xd_slot_port(self.page, vcpu))

    # States

    def state(self, vcpu: int) -> int:
        """Returns the state of a slot, an ``XD_STATE_...``."""
        return int(lib.xd_slot_state(self.page, vcpu))

    def waiting(self) -> bool:
        """Returns whether any vCPU waits for an answer now."""
        return any(self.state(vcpu) in (lib.XD_STATE_READY, lib.XD_STATE_INPROCESS) for vcpu in range(self.vcpus))

    def waiting_in(self, first: int, last: int) -> list[int]:
        """Returns the vCPUs that wait for an answer to a memory access that begins in gpa ``first``..``last``."""
        return [
            vcpu
            for vcpu in range(self.vcpus)
            if self.state(vcpu) in (lib.XD_STATE_READY, lib.XD_STATE_INPROCESS)
            and self._slots[vcpu].type == RequestType.COPY
            and first <= self._slots[vcpu].addr <= last
        ]

    def answered(self) -> list[int]:
        """Returns the vCPUs whose answers are there, and not taken yet."""
        return [vcpu for vcpu in range(self.vcpus) if self.state(vcpu) == lib.XD_STATE_RESP_READY]

    def all_taken(self) -> bool:
        """Returns whether Xen has taken every answer. The others are lost when the server is destroyed."""
        return all(self.state(vcpu) == lib.XD_STATE_NONE for vcpu in range(self.vcpus))

    def await_taken(self) -> None:
        """Waits until the vCPUs have taken the answers that are there, for up to :data:`TAKE_NANOSECONDS`."""
        lib.xd_slots_await_taken(self.page, self.vcpus, TAKE_NANOSECONDS)

    # Frames

    def frames_in_flight(self) -> set[int]:
        """Returns the frames that the instructions of the requests in flight may still store to.

        These are the frame that the request names and the next one, because a store goes upwards and has 64 bytes at
        most. Requests other than COPY name no frame: the address of an INVALIDATE is 0.
        """
        frames: set[int] = set()
        for vcpu in range(self.vcpus):
            if self.state(vcpu) != lib.XD_STATE_NONE and self._slots[vcpu].type == RequestType.COPY:
                gfn = self._slots[vcpu].addr >> PAGE_SHIFT
                frames.update((gfn, gfn + 1))
        return frames

    def may_straddle(self, gfns: CData, count: int) -> bool:
        """Whether a vCPU's last store may lie in one of these frames and the next one; ``gfns`` is ``uint64_t *``.

        A quick look, which may say yes without a reason: ask :meth:`last_stores` then.
        """
        return bool(lib.xd_slots_may_straddle(self.page, self.vcpus, gfns, count))

    def last_stores(self) -> LastStores:
        """Returns where the vCPUs' last requests store to.

        One of several elements counts as one at the beginning of its page and one at the end.
        """
        stores: list[set[int]] = [set() for _ in range(lib.XD_STATE_MASK + 1)]
        for vcpu in range(self.vcpus):
            slot = self._slots[vcpu]
            if slot.type != RequestType.COPY or slot.bits & lib.XD_BIT_READ:
                continue
            last = PAGE_SIZE - 1
            gpas = (slot.addr,) if slot.count == 1 else (slot.addr & ~last, slot.addr | last)
            stores[self.state(vcpu)].update(gpas)
        ready, in_hand = stores[lib.XD_STATE_READY], stores[lib.XD_STATE_INPROCESS]
        others = ready | stores[lib.XD_STATE_RESP_READY]
        return LastStores(in_hand | others, stores[lib.XD_STATE_NONE], frozenset(in_hand - others), frozenset(ready))
