"""What a frame that traps stores can be, and when it may change: the theory, and the table of states.

A *write-protected* frame has a p2m type that makes Xen send the guest's stores to us: its *trapping type*. To unprotect
it is to give it the type ``ram_rw`` back. Protecting is simple: from the return of ``set_mem_type`` on, every new store
traps. Unprotecting is not, because a store may be under way. There are two ways to lose by it.

A late store is dropped
-----------------------
Facts: when a vCPU stores to a frame that traps, Xen looks at the frame's type twice: when its copy to guest memory
refuses (``__hvm_copy``), and again, without a lock, when it chooses who gets the request (``hvmemul_do_io``,
xen/arch/x86/hvm/emulate.c). If the frame has become ``ram_rw`` in between, the second look finds neither the type nor a
range, and Xen drops the store. A store of more than 8 bytes is several requests, one after the other; once the first is
made, Xen never tries the others as memory (``hvm_mmio_cache``).

What follows: a frame must not become writable without a range while a vCPU may be in the middle of a store to it.

What we do: before the type changes, the frame gets a *guard range*: our server claims its 4 KiB as MMIO. A *late
store*, which traps by the old type and is looked at by the new one, then still finds us, and we perform it in memory. A
range means nothing to a frame that is RAM, so a guard range may stay. It may be dropped

* when the frame is protected again, since the second look then finds the type; or
* after a *barrier*. Enabling a server that is enabled changes nothing, but Xen pauses the domain for it, and a paused
  vCPU has left the instruction emulator, unless it waits for us. Its slot then says for which frame. Slots are looked
  at before the barrier and after it, because in between a vCPU may take its answer, or make a request.

Example: vCPU 1 stores 16 bytes to frame 5. Its first 8 bytes wait in the slot when vCPU 0 makes us unprotect 5. We
claim 5, make it RAM, and answer. Xen asks for the other 8 bytes; 5 is RAM, but the address is in our range, so they
come to us. Without the range they would be gone.

Cost: two more hypercalls for each frame, and a pause of the domain for every 64 frames that are unprotected.

A retype in flight is fatal
---------------------------
Facts (emulate.c, hvm.c): once a request is answered, Xen emulates the instruction a second time, without the p2m lock.
If the frame is ``ram_rw`` by then, ``rep stos`` and ``rep movs`` are done on memory and never take the answer. Since
672894a11f (4.20, 4.19.2, 4.18.5) that is so for every store. The next request of that vCPU does not match the answer
that was left, and Xen crashes the domain. Linux clears page tables by ``rep stos``. No request says which instruction
sent it.

What follows: a frame must not become RAM while an instruction that stores to it is under way. While we answer a store,
one always is. So the store that makes a table worth unsyncing can never unsync it.

What we do where the port says ``retype_in_flight_is_fatal`` (every real Xen): a frame that the last request of a vCPU
names stays protected. If Xen has taken the answer already, a barrier tells whether the instruction is over. A request
may come between our look at the slots and the change of the type; it was sent because of the old type. So we look again
after the change, and protect such a frame again before we answer it. What could not be unprotected is tried again: an
unsync after the answer and after the next ones (:class:`~xengt_dm.traps.retry.UnsyncRetries`), a *deferred unprotect*
when there is time.

Example: a guest clears table 5 by ``rep stosq``; each of its 512 elements is one request. In relaxed mode the first one
asks us to unsync 5; we wait. After the answer the slot is NONE. We pause the domain: if the slot is still NONE, the
vCPU is in the guest, between two elements, and will find RAM at its next one. If the slot names 5 again, we answer that
one, too, and look again.

Cost: a pause of the domain where another vCPU was the last to store to a frame that is unprotected. What remains: a
store over the end of a frame, whose first frame becomes *protected* while the second half is answered, ends in the same
way. No driver is known to store like that.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final


class FrameState(enum.IntEnum):
    """What a frame is to us. Whether it has a guard range is another matter: any state may have one."""

    #: RAM to Xen, and of no interest to us. Most frames are; they are not stored.
    PLAIN = 0
    #: Traps stores, because the engine wants it.
    PROTECTED = 1
    #: RAM to Xen until the engine resyncs it: it may be stored to unseen.
    UNSYNCED = 2
    #: Traps stores, though nobody wants that any more: its unprotecting is deferred.
    DEFERRED = 3
    #: Was PROTECTED; then the guest gave the page back or replaced it. The engine still counts on it.
    LOST = 4
    #: Was UNSYNCED; then the guest gave the page back or replaced it. The engine will still resync it.
    LOST_UNSYNCED = 5


class Event(enum.Enum):
    """What happens to a frame: the engine's wish that we follow, or what Xen answered."""

    #: The engine wants it protected, and ``set_mem_type`` gave it the trapping type, or said that it had it.
    PROTECT = enum.auto()
    #: The engine unsyncs it, and ``set_mem_type`` made it RAM.
    UNSYNC = enum.auto()
    #: The engine has no more use for it. No hypercall; if it traps, an attempt to FREE it follows.
    FORGET = enum.auto()
    #: ``set_mem_type`` made it RAM, and it is to stay that.
    FREE = enum.auto()
    #: ``set_mem_type`` to RAM said EINVAL: it is not RAM that traps any more, so the guest gave it back or replaced it.
    LOSE = enum.auto()
    #: A predecessor left it with the trapping type.
    LEFT_PROTECTED = enum.auto()


_PLAIN, _PROTECTED, _UNSYNCED, _DEFERRED, _LOST, _LOST_UNSYNCED = FrameState
_NEVER = None

#: The state after each event, by the state before it. NEVER: this event cannot happen in this state.
# fmt: off
TRANSITIONS: Final[Mapping[Event, tuple[FrameState | None, ...]]] = {
    # before:              PLAIN       PROTECTED   UNSYNCED         DEFERRED    LOST        LOST_UNSYNCED
    Event.PROTECT:        (_PROTECTED, _PROTECTED, _PROTECTED,      _PROTECTED, _PROTECTED, _PROTECTED),
    Event.UNSYNC:         (_NEVER,     _UNSYNCED,  _NEVER,          _NEVER,     _NEVER,     _NEVER),
    Event.FORGET:         (_PLAIN,     _DEFERRED,  _PLAIN,          _NEVER,     _PLAIN,     _PLAIN),
    Event.FREE:           (_NEVER,     _PLAIN,     _NEVER,          _PLAIN,     _NEVER,     _NEVER),
    Event.LOSE:           (_NEVER,     _LOST,      _LOST_UNSYNCED,  _PLAIN,     _NEVER,     _NEVER),
    Event.LEFT_PROTECTED: (_DEFERRED,  _NEVER,     _NEVER,          _NEVER,     _NEVER,     _NEVER),
}
# fmt: on

#: The states in which a frame has the trapping type.
TRAPPING: Final = frozenset({FrameState.PROTECTED, FrameState.DEFERRED})


class Frames:
    """The state of every frame of one domain."""

    def __init__(self) -> None:
        self._states: dict[int, FrameState] = {}
        #: How many frames are in each state, so that nobody searches for a state that none is in. PLAIN's is no count.
        self._counts = [0] * len(FrameState)

    def __getitem__(self, gfn: int) -> FrameState:
        return self._states.get(gfn, FrameState.PLAIN)

    def apply(self, event: Event, gfns: Iterable[int]) -> None:
        """Follow an event that happened to each of these frames."""
        after, states, counts = TRANSITIONS[event], self._states, self._counts
        for gfn in gfns:
            before = states.get(gfn, FrameState.PLAIN)
            state = after[before]
            assert state is not None, f"{event.name} of frame {gfn}, which is {before.name}"
            counts[before] -= 1
            counts[state] += 1
            if state:
                states[gfn] = state
            else:
                states.pop(gfn, None)

    def those(self, *wanted: FrameState) -> list[int]:
        """The frames in any of these states, which are not PLAIN, ascending."""
        if not any(self._counts[state] for state in wanted):
            return []
        return sorted(gfn for gfn, state in self._states.items() if state in wanted)

    def trapping(self) -> list[int]:
        """The frames that have the trapping type, ascending."""
        return self.those(*TRAPPING)

    def check(self) -> None:
        """Raises AssertionError if this contradicts itself; for tests."""
        for state in list(FrameState)[1:]:
            assert self._counts[state] == sum(each == state for each in self._states.values())
        assert FrameState.PLAIN not in self._states.values()
