"""Decides whether a frame may change its type now, and makes it RAM. For both kinds of traps.

Why no frame may become RAM while a store to it is in flight is in :mod:`xengt_dm.traps.state`. The decision
has two parts. Before the type changes, :func:`may_become_ram` leaves out the frames that an instruction may be storing
to. After it, :func:`make_ram` protects those again for which a request came meanwhile. Between the two, the caller
gives each frame its guard range.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from xengt_dm._core import lib
from xengt_dm.hypervisor.port import DomainPort, MemType
from xengt_dm.ioreq.slots import Slots
from xengt_dm.steps import Steps
from xengt_dm.traps.guard_ranges import barrier
from xengt_dm.traps.retype import set_types
from xengt_dm.traps.state import Frames, FrameState
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE

#: Frames that are unprotected together, with one look at the slots before and one after.
BATCH: Final = 64
#: An instruction's other bytes are no further than this from those of a request.
REACH: Final[int] = lib.XD_STORE_REACH
#: Of so many submissions in a row, one may make a barrier in order to unsync tables.
SUBMISSIONS_A_BARRIER: Final = 4


class Barriers:
    """The barriers of one server. Those that are made only to save traps are rationed."""

    def __init__(self, port: DomainPort, server: int) -> None:
        self._port = port
        self._server = server
        #: Submissions left before one may make a barrier.
        self._wait = 0

    def make(self) -> bool:
        """Makes a barrier, as :func:`~xengt_dm.traps.guard_ranges.barrier`."""
        return barrier(self._port, self._server)

    def submission(self) -> None:
        """A submission is about to unsync tables."""
        self._wait = max(self._wait - 1, 0)

    def make_if_due(self) -> bool:
        """Makes a barrier if none was made for some submissions; else, and if Xen refuses, returns False."""
        if self._wait:
            return False
        self._wait = SUBMISSIONS_A_BARRIER
        return self.make()


class MadeRam(NamedTuple):
    """What became of frames that were to become RAM. Those in neither ``plain`` nor ``lost`` trap, as before.

    ``plain``: they are RAM now. ``lost``: the guest gave them back or replaced them, so they do not trap, either.
    ``again``: they were RAM for a moment and trap again.
    """

    plain: set[int]
    lost: set[int]
    again: set[int]


def before(gpas: Iterable[int]) -> set[int]:
    """The frames that an instruction may have stored to before it came to one of these addresses in the next frame."""
    return {(gpa >> PAGE_SHIFT) - 1 for gpa in gpas if gpa % PAGE_SIZE < REACH}


def may_become_ram(gfns: Sequence[int], port: DomainPort, slots: Slots, make_barrier: Callable[[], bool]) -> list[int]:
    """Returns those of the frames to which no store is in flight. Raises DomainGoneError.

    All of them, where a retype in flight is not fatal.
    """
    if not port.retype_in_flight_is_fatal:
        return list(gfns)
    last = slots.last_stores()
    in_flight, over = last.unfinished_frames, last.finished_frames
    if over.intersection(gfns) - in_flight:
        # Xen has taken the answers to these stores. Only a barrier tells whether the instructions are over, too.
        if make_barrier():
            in_flight.update(slots.last_stores().unfinished_frames)
        else:  # nothing tells, so each of them counts as in flight
            in_flight.update(over)
    return [gfn for gfn in gfns if gfn not in in_flight]


def may_unsync(gfns: Iterable[int], frames: Frames, port: DomainPort, slots: Slots, barriers: Barriers) -> list[int]:
    """Returns those of the frames, in ``frames``, that may become RAM at the end of a submission, which this notes in
    ``barriers``. Raises DomainGoneError.
    """
    barriers.submission()
    protected = [gfn for gfn in gfns if frames[gfn] is FrameState.PROTECTED]
    return may_become_ram(protected, port, slots, barriers.make_if_due)


def make_ram(gfns: Sequence[int], port: DomainPort, slots: Slots, trap: MemType) -> MadeRam:
    """Turns trapping frames into plain RAM, except those that get a request meanwhile. Raises DomainGoneError.

    ``trap`` is the trapping type. The frames must be those of :func:`may_become_ram`.
    """
    made = set_ram(gfns, port)
    if port.retype_in_flight_is_fatal:
        made.again.update(_protect_again(made.plain, port, slots, trap))
        made.plain.difference_update(made.again)
    return made


def set_ram(gfns: Sequence[int], port: DomainPort) -> MadeRam:
    """Turns trapping frames into plain RAM, whatever is in flight. Raises DomainGoneError."""
    errors = dict(zip(gfns, set_types(port, MemType.RAM_RW, gfns), strict=True))
    # Xen does not answer EINVAL for a frame that has the trapping type or is RAM.
    return MadeRam(
        plain={gfn for gfn, error in errors.items() if not error},
        lost={gfn for gfn, error in errors.items() if error == errno.EINVAL},
        again=set(),
    )


def _protect_again(gfns: Iterable[int], port: DomainPort, slots: Slots, trap: MemType) -> set[int]:
    """Gives the type back to frames that a request names, which was sent because of it. Returns those that have it."""
    named = sorted(slots.last_stores().unfinished_frames.intersection(gfns))
    return {gfn for gfn, error in zip(named, set_types(port, trap, named), strict=True) if not error}


def straddled(
    gfns: Collection[int], port: DomainPort, slots: Slots, make_barrier: Callable[[], bool] | None
) -> set[int]:
    """Returns those of these plain frames that a store may lie in whose other half, in the next frame, is in flight.

    ``make_barrier``: finds out whether stores are over whose answers Xen has taken, for a change that somebody waits
    for: then stores in hand do not count, because one of them is what the change is made for. None to take all of them
    for in flight.
    """
    if not port.retype_in_flight_is_fatal:
        return set()
    last = slots.last_stores()
    found = before(last.unfinished if make_barrier is None else last.waiting).intersection(gfns)
    unsure = before(last.finished).intersection(gfns) - found
    if unsure and make_barrier is not None and make_barrier():
        return found | before(slots.last_stores().waiting).intersection(gfns)
    return found | unsure


def unprotect_adopted(frames: Frames, free: Callable[[Sequence[int]], object]) -> Steps[None]:
    """Unprotects the frames that a predecessor may have left protected. ``free`` unprotects a batch. Raises as it does.

    One that must wait is unprotected later.
    """
    for batch in batches(frames.in_state(FrameState.ADOPTED)):
        free(frames.defer(batch))
        yield


def unprotect_all(frames: Frames, free: Callable[[Sequence[int]], object]) -> Steps[bool]:
    """Unprotects every frame that traps. Returns whether none is left. ``free``: as of :func:`unprotect_adopted`."""
    for batch in batches(frames.trapping()):
        free(frames.still_trapping(batch))  # a store may have freed some since the list was made
        yield
    return not frames.trapping()


def batches(gfns: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yields the frames in portions of at most :data:`BATCH`."""
    for i in range(0, len(gfns), BATCH):
        yield gfns[i : i + BATCH]
