"""The states of a frame that may trap stores, and why its type may change only at certain times.

A *write-protected* frame has a p2m type that makes Xen send the guest's stores to us: its *trapping type*. To unprotect
it is to give it the type ``ram_rw`` back. From the return of ``set_mem_type`` on, every new store traps, or does not.
But a store may be in flight. Two things can go wrong then; each has a section below.

A late store is dropped
-----------------------
Facts: when a vCPU stores to a frame that traps, Xen looks at the frame's type twice: when its copy to guest memory
refuses (``__hvm_copy``), and again, without a lock, when it chooses who gets the request (``hvmemul_do_io``,
xen/arch/x86/hvm/emulate.c). If the frame has become ``ram_rw`` in between, the second look finds neither the type nor a
range, and Xen drops the store. A store of more than 8 bytes is several requests, one after the other; once the first is
made, Xen never tries the others as memory (``hvm_mmio_cache``).

What follows: a frame must not become writable without a range while a vCPU may be in the middle of a store to it.

What we do: before the type changes, the frame gets a *guard range*: our server claims its 4 KiB as MMIO. A *late
store*, which trapped because of the old type and meets the new one at Xen's second look, then still comes to us, and we
perform it in memory. Xen does not look at ranges for a store to RAM, so a guard range may stay. It may be dropped

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

What follows: a frame must not become RAM while an instruction that stores to it is in flight. While we answer a store,
one always is. So a table can never be unsynced during the store that is the reason to unsync it.

What we do where the port says ``retype_in_flight_is_fatal`` (every real Xen), in :mod:`xengt_dm.traps.unprotect`: a
frame that the last request of a vCPU names stays protected. If Xen has taken the answer already, a barrier tells
whether the instruction is over. A request may come between our look at the slots and the change of the type; it was
sent because of the old type. So we look again after the change, and protect such a frame again before we answer it.
What could not be unprotected is tried again: a candidate
at the next submission, a *deferred unprotect* after the next answers, at the next submission, and when there is time.

Example: a guest clears table 5 by ``rep stosq``; each of its 512 elements is one request. In relaxed mode the first one
makes 5 a candidate. The vCPU then submits, so its last request is another one, and 5 becomes RAM. If another vCPU is
still clearing 5, its slot names 5, or did so last; then 5 stays protected until a later submission.

Cost: a pause of the domain where another vCPU was the last to store to a frame that is unprotected.

A store over the end of a frame whose first frame becomes *protected* while its second half is answered is fatal, too.
What we do: see "R9" and "R10" in docs/relaxed.md, and :mod:`xengt_dm.traps.holds`.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from xengt_dm._core import ffi
from xengt_dm.traps.protected import NoProtectedRecord, ProtectedRecord
from xengt_dm.units import CData


class FrameState(enum.IntEnum):
    """What a frame is to us. A frame in any state may have a guard range."""

    #: RAM to Xen, also if it is an unsynced table. Most frames are PLAIN; no record is kept of them.
    PLAIN = 0
    #: Traps stores, because the engine wants it.
    PROTECTED = 1
    #: Traps stores, although the engine does not want that any more: its unprotecting is deferred.
    DEFERRED = 2
    #: Was PROTECTED until the guest gave the page back or replaced it. The engine still uses it as a table.
    LOST = 3
    #: A predecessor may have left it with the trapping type. The engine may protect it again before it is unprotected.
    ADOPTED = 4


class Event(enum.Enum):
    """What happens to a frame: the engine asks for something, or Xen answers."""

    #: The engine wants it protected, and ``set_mem_type`` gave it the trapping type, or answered that it has it.
    PROTECT = enum.auto()
    #: The engine unsyncs it, and ``set_mem_type`` made it RAM.
    UNSYNC = enum.auto()
    #: The engine does not use it any more. No hypercall; if it traps, an attempt to FREE it follows.
    FORGET = enum.auto()
    #: ``set_mem_type`` made it RAM, and it stays RAM.
    FREE = enum.auto()
    #: ``set_mem_type`` to RAM answered EINVAL: the guest gave the frame back or replaced it, so it traps no more.
    LOSE = enum.auto()
    #: A predecessor may have left it with the trapping type, or this process gave it the type for a store in flight.
    LEFT_PROTECTED = enum.auto()
    #: The engine will not protect it again, now that it has created the tables of all live spaces.
    DEFER = enum.auto()
    #: A late store to it is about to be answered, and ``set_mem_type`` gave it the trapping type for that.
    TRAP_LATE = enum.auto()


_PLAIN, _PROTECTED, _DEFERRED, _LOST, _ADOPTED = FrameState
_NEVER = None

#: The state after each event, by the state before it. NEVER: this event cannot happen in this state.
# fmt: off
TRANSITIONS: Final[Mapping[Event, tuple[FrameState | None, ...]]] = {
    # before:              PLAIN       PROTECTED   DEFERRED    LOST        ADOPTED
    Event.PROTECT:        (_PROTECTED, _PROTECTED, _PROTECTED, _PROTECTED, _PROTECTED),
    Event.UNSYNC:         (_NEVER,     _PLAIN,     _NEVER,     _NEVER,     _NEVER),
    Event.FORGET:         (_PLAIN,     _DEFERRED,  _NEVER,     _PLAIN,     _NEVER),
    Event.FREE:           (_NEVER,     _PLAIN,     _PLAIN,     _NEVER,     _PLAIN),
    Event.LOSE:           (_NEVER,     _LOST,      _PLAIN,     _NEVER,     _PLAIN),
    Event.LEFT_PROTECTED: (_ADOPTED,   _NEVER,     _NEVER,     _NEVER,     _ADOPTED),
    Event.DEFER:          (_NEVER,     _NEVER,     _NEVER,     _NEVER,     _DEFERRED),
    Event.TRAP_LATE:      (_DEFERRED,  _NEVER,     _NEVER,     _NEVER,     _NEVER),
}
# fmt: on

#: The states in which a frame has the trapping type, or may have it.
TRAPPING: Final = frozenset({FrameState.PROTECTED, FrameState.DEFERRED, FrameState.ADOPTED})
#: The events after which a frame does not have the trapping type, although it had it before.
_NO_LONGER: Final = frozenset({Event.UNSYNC, Event.FREE, Event.LOSE})


#: Facts: a dictionary that grows is copied as a whole, which takes 2.4 ms at 45,000 frames, and the vCPUs wait. What we
#: do: so many dictionaries, by the low bits of the frame, so that each stays small. Cost: some kilobytes.
_PARTS: Final = 512


class Frames:
    """The state of every frame of one domain. ``record`` has the frames that trap (:mod:`xengt_dm.traps.protected`)."""

    def __init__(self, record: ProtectedRecord | None = None) -> None:
        self._record = record or NoProtectedRecord()
        #: The frames that are just being protected, on the record of those that trap.
        self.in_hand: Final = self._record.in_hand
        self._states: list[dict[int, FrameState]] = [{} for _ in range(_PARTS)]
        #: The frames that are ADOPTED, which are not in ``_states``. A successor adopts all of them before it answers
        #: anybody, and a set is made of a list twenty times as fast as the dictionaries are.
        self._adopted: set[int] = set()
        #: The frames that are DEFERRED, which are in ``_states``, too. They are tried after each answer, which must not
        #: take longer the more frames are protected.
        self._deferred: dict[int, None] = {}
        #: How many frames are in each state, so that no search is made for a state that no frame is in. The elements of
        #: PLAIN and ADOPTED mean nothing.
        self._counts = [0] * len(FrameState)

    def __getitem__(self, gfn: int) -> FrameState:
        state = self._states[gfn % _PARTS].get(gfn, FrameState.PLAIN)
        return FrameState.ADOPTED if not state and gfn in self._adopted else state

    def begin_protect(self, gfns: CData, count: int) -> None:
        """Records frames that are about to get the trapping type. ``gfns`` is ``uint64_t *``."""
        self._record.add(gfns, count)

    def end_protect(self, gfns: Collection[int]) -> None:
        """Removes those frames from the record that did not get the trapping type, unless they had it before."""
        if refused := [gfn for gfn in gfns if self[gfn] not in TRAPPING]:
            self._record.remove(refused)

    def adopt(self, gfns: Collection[int]) -> None:
        """Records frames as ADOPTED. None of them may be in a state in which that can never happen."""
        self._record.add(ffi.new("uint64_t[]", list(gfns)), len(gfns))
        if any(self._states):
            self.apply(Event.LEFT_PROTECTED, gfns)
        else:  # the same for frames that are PLAIN or ADOPTED, and many times as fast
            self._adopted.update(gfns)

    def defer(self, gfns: Iterable[int]) -> list[int]:
        """Has those of these frames that are ADOPTED become DEFERRED. Returns them."""
        adopted = [gfn for gfn in gfns if self[gfn] is FrameState.ADOPTED]
        self.apply(Event.DEFER, adopted)
        return adopted

    def all_plain(self) -> None:
        """Every frame that had the trapping type is RAM."""
        self.apply(Event.FREE, self.trapping())
        self._record.clear()

    def apply(self, event: Event, gfns: Collection[int]) -> None:
        """Changes the state of each of these frames, to which the event happened."""
        after, parts, counts = TRANSITIONS[event], self._states, self._counts
        adopted, deferred = self._adopted, self._deferred
        for gfn in gfns:
            states = parts[gfn % _PARTS]
            before = states.get(gfn, FrameState.PLAIN)
            if not before and gfn in adopted:
                before = FrameState.ADOPTED
                adopted.remove(gfn)
            state = after[before]
            assert state is not None, f"{event.name} of frame {gfn}, which is {before.name}"
            counts[before] -= 1
            counts[state] += 1
            if before is FrameState.DEFERRED:
                del deferred[gfn]
            if state is FrameState.DEFERRED:
                deferred[gfn] = None
            if state is FrameState.ADOPTED:
                adopted.add(gfn)
            elif state:
                states[gfn] = state
            else:
                states.pop(gfn, None)
        if gfns and event in _NO_LONGER:
            self._record.remove(gfns)

    def some_in(self, *wanted: FrameState) -> bool:
        """Whether any frame is in one of these states. PLAIN may not be among them."""
        return any(self._adopted if state is FrameState.ADOPTED else self._counts[state] for state in wanted)

    def count(self, state: FrameState) -> int:
        """How many frames are in this state, which is neither PLAIN nor ADOPTED."""
        return self._counts[state]

    def next_deferred(self, most: int) -> list[int]:
        """Returns up to ``most`` of the frames that are DEFERRED, ascending: those that this returned longest ago."""
        deferred = self._deferred
        frames = list(itertools.islice(deferred, most))
        for gfn in frames:
            del deferred[gfn]
            deferred[gfn] = None
        return sorted(frames)

    def in_state(self, *wanted: FrameState) -> list[int]:
        """Returns the frames that are in one of these states, ascending. PLAIN may not be among the states."""
        frames: Collection[int] = self._adopted if FrameState.ADOPTED in wanted else ()
        if any(self._counts[state] for state in wanted if state is not FrameState.ADOPTED):
            frames = [*frames, *(gfn for states in self._states for gfn, state in states.items() if state in wanted)]
        return sorted(frames)

    def trapping(self) -> list[int]:
        """The frames that have the trapping type, or may have it, ascending."""
        return self.in_state(*TRAPPING)

    def still_trapping(self, gfns: Iterable[int]) -> list[int]:
        """Returns those of these frames that have the trapping type, or may have it."""
        return [gfn for gfn in gfns if self[gfn] in TRAPPING]

    def check(self) -> None:
        """Raises AssertionError if this contradicts itself; for tests."""
        for state in set(FrameState) - {FrameState.PLAIN, FrameState.ADOPTED}:
            assert self._counts[state] == sum(each == state for part in self._states for each in part.values())
        assert sorted(self._deferred) == self.in_state(FrameState.DEFERRED)
        for part in self._states:
            assert not {FrameState.PLAIN, FrameState.ADOPTED}.intersection(part.values())
            assert self._adopted.isdisjoint(part)
