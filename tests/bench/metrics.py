"""What being watched costs: the time that the hot path keeps, and a scrape."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.measure import Figure, best, cpu
from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.stats import exporter
from xengt_dm.stats.page import StatsPage
from xengt_dm.stats.reader import read_host

NANO = 1e9
MILLI = 1e3


def run(quick: bool) -> Iterator[Figure]:
    yield from _slots(100 if quick else 100_000, 2 if quick else 20)
    for daemons in (1, 2) if quick else (1, 20):
        yield from _scrape(daemons, 1 if quick else 10)


def _slots(count: int, rounds: int) -> Iterator[Figure]:
    plain, timed, clock, call = best(
        rounds,
        *(lambda work=work: cpu(work) for work in (_requests(count, False), _requests(count, True))),
        *(lambda work=work: cpu(work) for work in (_calls(count, lib.xd_now), _calls(count, lib.xd_guard_install))),
    )
    how = f"taking and answering it from Python takes {plain / count * NANO:.0f} ns without"
    yield Figure("metrics", "the time of a request", (timed - plain) / count * NANO, "ns", how)
    yield Figure("metrics", "reading the clock", (clock - call) / count * NANO, "ns", "without the call from Python")


def _requests(count: int, timed: bool) -> Callable[[], None]:
    """Take and answer requests of one vCPU, as the daemon does."""
    page = ffi.new("xd_ioreq[]", 128)
    taken = ffi.new("xd_taken[]", 1)
    counters = ffi.new("xd_counters *")
    timing = ffi.addressof(counters, "timing") if timed else ffi.NULL
    embedded.xd_slot_post(page, 0, ffi.new("xd_ioreq *", {"type": lib.XD_IOREQ_COPY, "size": 8}))

    def work(counters: object = counters) -> None:  # it owns what `timing` points to
        again, take, answer, ready = (
            embedded.xd_slot_set_state,
            lib.xd_slots_take,
            lib.xd_slot_answer,
            lib.XD_STATE_READY,
        )
        for _ in range(count):
            again(page, 0, ready)
            take(page, 1, 0, taken, timing, ffi.NULL)
            answer(page, 0, 0, 0, timing)

    return work


def _calls(count: int, function: Callable[[], int]) -> Callable[[], None]:
    def work() -> None:
        for _ in range(count):
            function()

    return work


def _scrape(daemons: int, rounds: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        pages = []
        for domid in range(1, daemons + 1):
            (base / str(domid)).mkdir()
            pages.append(StatsPage(base / str(domid), domid))
        reading, whole = best(rounds, lambda: cpu(lambda: read_host(base)), lambda: cpu(lambda: exporter.text(base)))
        how = f"{len(exporter.text(base)) / 1000:.0f} kB; reading the pages takes {reading * MILLI:.2f} ms of it"
        yield Figure("metrics", f"a scrape, {len(pages)} daemons", whole * MILLI, "ms", how)
