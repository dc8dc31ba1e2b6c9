"""Traces made up from a seed, in the manners of different guests. The same kind, seed and scale give the same trace."""

from __future__ import annotations

import random
from collections.abc import Callable

from .generate_hostile import Hostile
from .generate_linux import LinuxDriver
from .generate_reuse import TableReuser
from .machine import Trace
from .pen import Pen


def generate(kind: str, seed: int, scale: int = 1) -> Trace:
    """A trace of one of KINDS; with ``scale`` 1 it has a few hundred events, and more in proportion."""
    return KINDS[kind](random.Random(f"{kind} {seed}"), scale)


def linux_like(rng: random.Random, scale: int) -> Trace:
    """As i915 does it: a scratch hierarchy that spaces share, tables complete before they are linked, notifications."""
    pen = Pen(rng, rng.choice([256, 512, 2048]) * scale, holes=rng.random() < 0.2)
    driver = LinuxDriver(pen, pen.take(60 * scale))
    return _run(pen, [driver], rng.randint(30, 90) * scale)


def table_reuse(rng: random.Random, scale: int) -> Trace:
    """A driver that writes plain data to its table pages before it says that they are none any more."""
    pen = Pen(rng, rng.choice([64, 128, 512]) * scale, holes=rng.random() < 0.2)
    driver = TableReuser(pen, pen.take(24 * scale))
    return _run(pen, [driver], rng.randint(40, 120) * scale)


def hostile(rng: random.Random, scale: int) -> Trace:
    """Anything the format can say, on so few frames that everything meets everything."""
    pen = Pen(rng, rng.choice([8, 16, 40, 600, 1100]), holes=rng.random() < 0.5)
    driver = Hostile(pen, pen.take(rng.choice([3, 6, 12, 20])))
    return _run(pen, [driver], rng.randint(60, 260) * scale)


def mixed(rng: random.Random, scale: int) -> Trace:
    """All of them in one guest, the hostile one on frames of the others as well."""
    pen = Pen(rng, rng.choice([256, 1100]) * scale, holes=rng.random() < 0.4)
    theirs = pen.take(40 * scale)
    reused = pen.take(16 * scale)
    driver = LinuxDriver(pen, list(theirs), most_scratch=1)
    meddler = Hostile(pen, rng.sample(theirs, 6) + rng.sample(reused, 4) + pen.take(4))
    weights = [driver] * 5 + [TableReuser(pen, list(reused))] * 3 + [meddler] * rng.choice([1, 2, 4])
    return _run(pen, weights, rng.randint(60, 150) * scale)


KINDS: dict[str, Callable[[random.Random, int], Trace]] = {
    "linux_like": linux_like,
    "table_reuse": table_reuse,
    "hostile": hostile,
    "mixed": mixed,
}


def _run(pen: Pen, drivers: list[LinuxDriver | TableReuser | Hostile], steps: int) -> Trace:
    for _ in range(steps):
        pen.rng.choice(drivers).step()
        if pen.rng.random() < 0.04:
            pen.dump()
    pen.dump()
    return pen.trace
