"""Taking times on a machine that others use, too, and saying what they mean.

Other load only ever adds: it takes the CPU away, and it empties caches. So what is compared runs in turns, each many
times, and the best of each counts. Where one thread does all the work its CPU time is taken, which does not count the
time that others had the CPU.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

#: Does its work once and returns how long the part that counts took, in seconds.
Timed = Callable[[], float]

MICRO = 1e6


@dataclass(frozen=True)
class Figure:
    """One line of the report. ``value`` is in ``unit``; ``how`` says what it is made of.

    ``target`` is the most that it may be, or the least if ``at_least``; None if nobody asked for one.
    """

    bench: str
    what: str
    value: float
    unit: str
    how: str
    target: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}

    def row(self) -> tuple[str, ...]:
        """For :func:`table`."""
        target = "" if self.target is None else f"{'>=' if self.at_least else '<='} {self.target:,g}"
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        return self.bench, self.what, f"{_short(self.value)} {self.unit}", target, verdict, self.how


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as they must be; the last one is free."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds that this thread spends on ``work``."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def wall(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes, for work that several threads share."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best(rounds: int, *works: Timed) -> list[float]:
    """The least that each took, in ``rounds`` turns."""
    least = [float("inf")] * len(works)
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for i, work in enumerate(works):
                least[i] = min(least[i], work())
    finally:
        if enabled:
            gc.enable()
    return least


def line_through(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Where the straight line through the first and the last point meets x = 0, and its slope."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    slope = (y1 - y0) / (x1 - x0)
    return y0 - slope * x0, slope
