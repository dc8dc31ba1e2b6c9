"""What spinning costs where it cannot pay: sixteen guests that store without end, each with a daemon of its own, on the
processors of this machine. The processor time of all of them with spinning, against the same without.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import trio

from tests.bench.measure import MICRO, Figure
from tests.bench.stores import RAM_FRAMES, _make_tables, _serve, _stores
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import open_instance
from xengt_dm.settings import Settings

GUESTS = 16


def run(quick: bool) -> Iterator[Figure]:
    guests, stores, rounds = (2, 200, 1) if quick else (GUESTS, 20_000, 5)
    spinning, waiting = [], []
    for _ in range(rounds):
        spinning.append(_seconds(guests, stores, spins=True))
        waiting.append(_seconds(guests, stores, spins=False))
    ours, theirs = min(spinning), min(waiting)
    each = MICRO / guests / stores
    how = f"{ours * each:.2f} us of processor time a store, without spinning {theirs * each:.2f}"
    what = f"{guests} guests on {os.cpu_count()} processors"
    yield Figure("crowd", what, ours / theirs, "x waiting", how, target=1.1)


def _seconds(guests: int, stores: int, *, spins: bool) -> float:
    """The processor seconds that ``guests`` processes take, of which each serves a guest with so many stores."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = [_fork(stores, spins) for _ in range(guests)]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert not any(statuses), statuses
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _fork(stores: int, spins: bool) -> int:
    child = os.fork()
    if child:
        return child
    try:
        with EmbeddedDomain(RAM_FRAMES, 1) as domain, open_instance(domain.port(), Settings()) as instance:
            instance.loop.burst.spins = spins
            _make_tables(domain, instance)
            trio.run(_serve, domain, instance, _stores(stores), stores)
        os._exit(0)
    finally:
        os._exit(1)
