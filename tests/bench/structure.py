"""Linking and unlinking one leaf table by a store to its directory, with so many tables live."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.measure import MICRO, Figure, best, cpu
from tests.bench.world import Guest

#: Leaf tables that take turns, from everywhere in the space.
TURNS = 50


def run(quick: bool) -> Iterator[Figure]:
    counts = (TURNS, 2 * TURNS, 3 * TURNS) if quick else (100, 10_000, 60_000)
    changes = [_Changes(count) for count in counts]
    seconds = best(2 if quick else 40, *(each.all for each in changes))
    for count, each in zip(counts, seconds, strict=True):
        how = f"{each / TURNS * MICRO:.1f} us for a link and an unlink"
        yield Figure("structure", f"{count} tables", each / seconds[0], f"x that of {counts[0]}", how)


class _Changes:
    def __init__(self, count: int) -> None:
        guest = self._guest = Guest(count)
        self._engine = guest.engine()
        guest.create(self._engine)
        self._entries = [guest.directory_entry(i * count // TURNS) for i in range(TURNS)]

    def all(self) -> float:
        return cpu(self._change)

    def _change(self) -> None:
        for gpa, entry in self._entries:
            self._guest.store(self._engine, gpa, 0)
            self._guest.store(self._engine, gpa, entry)
