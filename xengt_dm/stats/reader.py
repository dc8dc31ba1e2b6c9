"""The stats pages of all daemons of a host, as values by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Final

from xengt_dm import __version__
from xengt_dm._core import ffi, lib
from xengt_dm.errors import HostError
from xengt_dm.printable import printable
from xengt_dm.run_dir.directory import instance_directory, instance_domids
from xengt_dm.stats.counters import read_counters
from xengt_dm.stats.page import PageError, PageProblem, read_page
from xengt_dm.units import CData

NANOSECOND: Final = 1e-9
#: Upper limits of a histogram's buckets, in seconds. The last bucket has no limit and is not listed.
LIMITS: Final = tuple(float(f"{1 << lib.XD_HISTOGRAM_FIRST + i}e-9") for i in range(lib.XD_HISTOGRAM_BUCKETS - 1))
#: The names of ``xd_route`` without their prefix and in lower case, by number.
ROUTES: Final = {
    number: name.removeprefix("XD_ROUTE_").lower()
    for number, name in ffi.typeof("xd_route").elements.items()
    if number != lib.XD_ROUTES
}
_HEADER: Final = (
    "predecessors",
    "wakeups",
    "bursts",
    "burst_requests",
    "handed_requests",
    "vcpus",
    "max_tables",
    "relaxed",
    "quiesced",
)
#: Problems for which ``xengt_up`` is 0. A daemon that stopped in order, or has not written a page yet, has no series.
_DOWN: Final = {PageProblem.STALE, PageProblem.FOREIGN, PageProblem.TRUNCATED, PageProblem.UNREADABLE}


@dataclass(frozen=True)
class Histogram:
    """A cumulative histogram.

    ``counts`` has, for each of :data:`LIMITS`, the number of observations up to that limit; its last element is the
    number of all observations. ``sum`` is in seconds.
    """

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class Reading:
    """The values of one stats page, or of the host if ``domid`` is None. Times are in seconds."""

    domid: int | None
    values: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def read_host(base: Path) -> list[Reading]:
    """Returns a reading of the host, followed by one reading for each daemon that has a page, sorted by domain id.

    ``base`` is the directory of the run directories; if it does not exist there are no daemons. The first reading
    counts the pages that cannot be used. Raises HostError if ``base`` cannot be listed.
    """
    started = lib.xd_now()
    left_out: Counter[PageProblem] = Counter()
    readings = []
    for domid in _domids(base):
        try:
            readings.append(_of_page(domid, read_page(instance_directory(base, domid), domid)))
        except PageError as error:
            left_out[error.reason] += 1
            if error.reason in _DOWN:
                readings.append(Reading(domid, {"up": 0}))
    values: dict[str, float] = {"one": 1, "read_time": (lib.xd_now() - started) * NANOSECOND}
    values.update({f"left_out_{reason.value}": left_out[reason] for reason in PageProblem})
    return [Reading(None, values, texts={"version": __version__}), *readings]


def _domids(base: Path) -> list[int]:
    try:
        return instance_domids(base)
    except OSError as error:
        raise HostError(f"list {base}", None, error.errno or 0) from error


def _of_page(domid: int, page: CData) -> Reading:
    counters = page.counters
    timing = counters.timing
    now = lib.xd_now()
    waiting = [since for since in timing.taken_ns if since]
    times = {f"{name}_times": _histogram(timing.answers[number]) for number, name in ROUTES.items()}
    return Reading(
        domid,
        {
            "one": 1,
            "up": 1,
            "start_time": page.start_time,
            "heartbeat_age": _age(page.heartbeat_ns, now),
            "pending": len(waiting),
            "oldest_pending": _age(min(waiting), now) if waiting else 0,
            **{name: getattr(page, name) for name in _HEADER},
            **read_counters(counters),
            **{f"{name}_answers": times[f"{name}_times"].counts[-1] for name in ROUTES.values()},
        },
        {"sync_times": _histogram(timing.syncs), **times},
        {"version": _text(page.program), "generation": str(page.generation)},
    )


def _age(since: int, now: int) -> float:
    return max(now - since, 0) * NANOSECOND


def _histogram(histogram: CData) -> Histogram:
    return Histogram(tuple(accumulate(histogram.counts)), histogram.sum_ns * NANOSECOND)


def _text(characters: CData) -> str:
    """Returns text that a daemon wrote. Bytes that are not ASCII are escaped, so that it can be a label."""
    return printable(bytes(ffi.string(characters)).decode("ascii", "backslashreplace"))
