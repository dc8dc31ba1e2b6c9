"""What a shadow table costs: anonymous memory of the process, which is all but the guest's and files'."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Figure, line_through
from tests.bench.world import Guest

TARGET = 4400.0


def run(quick: bool) -> Iterator[Figure]:
    points = [(float(count), _growth(count)) for count in ((100, 400) if quick else (2_000, 20_000))]
    fixed, slope = line_through(points)
    count, grown = points[-1]
    how = f"{grown / 1e6:.1f} MB for {count:,.0f}, {points[0][1] / 1e6:.2f} for {points[0][0]:,.0f}"
    yield Figure("memory", "a shadow table", slope, "B", how, TARGET)
    yield Figure("memory", "fixed", fixed / 1024, "KiB", "what is left of that for no table at all")


def _growth(leaves: int) -> float:
    """Bytes that came with an engine and its shadow of a space of this many leaf tables."""
    guest = Guest(leaves)
    gc.collect()
    before = _anonymous()
    engine = guest.engine()
    guest.create(engine)
    grown = _anonymous() - before
    engine.close()
    return grown


def _anonymous() -> float:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Anonymous":
            return 1024.0 * int(value.split()[0])
    raise OSError("/proc/self/smaps_rollup says nothing of anonymous memory")
