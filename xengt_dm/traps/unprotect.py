"""Decides whether a write-protected frame may become plain RAM now, and changes its type. For both kinds of traps.

Why no frame may become RAM while a store to it is in flight is in :mod:`xengt_dm.traps.state`, under "A retype in
flight is fatal". The decision has two parts. Before the type changes, :func:`may_become_ram` leaves out the frames that
an instruction may be storing to. After it, :func:`make_ram` protects those again for which a request came meanwhile.
Between the two, the caller gives each frame its guard range.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from xengt_dm.hypervisor.port import DomainPort, MemType
from xengt_dm.ioreq.slots import Slots
from xengt_dm.traps.guard_ranges import barrier
from xengt_dm.traps.retry import set_types

#: Frames that are unprotected together, with one look at the slots before and one after.
BATCH: Final = 64


class MadeRam(NamedTuple):
    """What became of frames that were to become RAM. Those in neither set trap, as before.

    ``plain``: they are RAM now. ``lost``: the guest gave them back or replaced them, so they do not trap, either.
    """

    plain: set[int]
    lost: set[int]


def may_become_ram(gfns: Sequence[int], port: DomainPort, server: int, slots: Slots) -> list[int]:
    """Returns those of the frames to which no store is in flight. Raises DomainGoneError.

    All of them, where a retype in flight is not fatal.
    """
    if not port.retype_in_flight_is_fatal:
        return list(gfns)
    last = slots.last_stores()
    in_flight = set(last.unfinished)
    if last.finished.intersection(gfns) - in_flight:
        # Xen has taken the answers to these stores. Only a barrier tells whether the instructions are over, too.
        if barrier(port, server):
            in_flight.update(slots.last_stores().unfinished)
        else:  # nothing tells, so each of them counts as in flight
            in_flight.update(last.finished)
    return [gfn for gfn in gfns if gfn not in in_flight]


def make_ram(gfns: Sequence[int], port: DomainPort, slots: Slots, trap: MemType) -> MadeRam:
    """Turns trapping frames into plain RAM, except those that get a request meanwhile. Raises DomainGoneError.

    ``trap`` is the trapping type. The frames must be those of :func:`may_become_ram`.
    """
    made = set_ram(gfns, port)
    if port.retype_in_flight_is_fatal:
        made.plain.difference_update(_protect_again(made.plain, port, slots, trap))
    return made


def set_ram(gfns: Sequence[int], port: DomainPort) -> MadeRam:
    """Turns trapping frames into plain RAM, whatever is in flight. Raises DomainGoneError."""
    errors = dict(zip(gfns, set_types(port, MemType.RAM_RW, gfns), strict=True))
    # Xen does not answer EINVAL for a frame that has the trapping type or is RAM.
    return MadeRam(
        plain={gfn for gfn, error in errors.items() if not error},
        lost={gfn for gfn, error in errors.items() if error == errno.EINVAL},
    )


def _protect_again(gfns: Iterable[int], port: DomainPort, slots: Slots, trap: MemType) -> set[int]:
    """Gives the type back to frames that a request names, which was sent because of it. Returns those that have it."""
    named = sorted(slots.last_stores().unfinished.intersection(gfns))
    return {gfn for gfn, error in zip(named, set_types(port, trap, named), strict=True) if not error}


def batches(gfns: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yields the frames in portions of at most :data:`BATCH`."""
    for i in range(0, len(gfns), BATCH):
        yield gfns[i : i + BATCH]
