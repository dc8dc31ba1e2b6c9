"""All stats pages of a host, as values by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Final

from xengt_dm import __version__
from xengt_dm._core import ffi, lib
from xengt_dm.errors import HostError
from xengt_dm.run_dir.directory import instance_directory, read_counters
from xengt_dm.stats.page import PageError, read_page
from xengt_dm.stats.table import LeftOut
from xengt_dm.units import CData

#: DOMID_FIRST_RESERVED, xen/include/public/xen.h: no domain has an id from here on.
DOMID_LIMIT: Final = 0x7FF0
NANOSECOND: Final = 1e-9
#: Upper limits of a histogram's buckets, in seconds; the last bucket has none.
LIMITS: Final = tuple(float(f"{1 << lib.XD_HISTOGRAM_FIRST + i}e-9") for i in range(lib.XD_HISTOGRAM_BUCKETS - 1))
#: Names of the ``xd_route`` in lower case, by number.
ROUTES: Final = {
    number: name.removeprefix("XD_ROUTE_").lower()
    for number, name in ffi.typeof("xd_route").elements.items()
    if number != lib.XD_ROUTES
}
_HEADER: Final = ("predecessors", "wakeups", "vcpus", "max_tables", "relaxed", "quiesced")
#: A daemon that is not there is worth a 0; one that ended in order, or has not begun, is none.
_DOWN: Final = {LeftOut.STALE, LeftOut.FOREIGN, LeftOut.TRUNCATED, LeftOut.UNREADABLE}


@dataclass(frozen=True)
class Histogram:
    """``counts``: for each of :data:`LIMITS` the observations up to it, then all of them. ``sum`` in seconds."""

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class Reading:
    """What one stats page, or the host (``domid`` None), says. Times are in seconds."""

    domid: int | None
    values: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def read_host(base: Path) -> list[Reading]:
    """A reading of the host, then one of each daemon with a page, by domid. ``base`` holds the run directories.

    Pages that are of no use are counted in the first. A ``base`` that is not there has no daemons. Raises HostError if
    it cannot be listed.
    """
    started = lib.xd_now()
    left_out: Counter[LeftOut] = Counter()
    readings = []
    for domid in _domids(base):
        try:
            readings.append(_of_page(domid, read_page(instance_directory(base, domid), domid)))
        except PageError as error:
            left_out[error.reason] += 1
            if error.reason in _DOWN:
                readings.append(Reading(domid, {"up": 0}))
    values: dict[str, float] = {"one": 1, "read_time": (lib.xd_now() - started) * NANOSECOND}
    values.update({f"left_out_{reason.value}": left_out[reason] for reason in LeftOut})
    return [Reading(None, values, texts={"version": __version__}), *readings]


def _domids(base: Path) -> list[int]:
    try:
        names = [entry.name for entry in base.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"list {base}", None, error.errno or 0) from error
    numbers = (int(name) for name in names if name.isascii() and name.isdecimal() and len(name) <= 5)
    return sorted({number for number in numbers if number < DOMID_LIMIT})


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
    """Text that a daemon wrote; whatever it is, it makes a label."""
    return bytes(ffi.string(characters)).decode("ascii", "backslashreplace")
