"""A guest for tests of slices: it counts what each slice of work changes, and has a space that takes many slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.engine_bench import EngineBench
from tests.support.tables import ENTRIES, pte
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.leaves import SLICE
from xengt_dm.steps import Steps


@dataclasses.dataclass
class Slice:
    types: int = 0
    mapped: int = 0


class CountingGuest(EngineBench):
    """Counts the changes of types and the mapped frames of each slice."""

    def __init__(self, frames: int, **options: Any) -> None:
        super().__init__(frames, **options)
        self.slice = Slice()

    def map_frames(self, first_gfn: int, count: int, errors: object, address: int = 0) -> int:
        self.slice.mapped += count
        return super().map_frames(first_gfn, count, errors, address)

    def protect(self, gfns, count, errors):  # type: ignore[no-untyped-def]
        self.slice.types += count
        return super().protect(gfns, count, errors)

    def unprotect(self, gfns, count):  # type: ignore[no-untyped-def]
        self.slice.types += count
        return super().unprotect(gfns, count)

    def unsync(self, gfns, count, errors):  # type: ignore[no-untyped-def]
        self.slice.types += count
        return super().unsync(gfns, count, errors)

    def verify(self, gfns, count):  # type: ignore[no-untyped-def]
        self.slice.types += count
        super().verify(gfns, count)

    def slices_of(self, begin: Callable[[], Steps[object] | object]) -> list[Slice]:
        """Begin some work, and run it to its end. What is done when it begins belongs to its first slice."""
        self.slice = Slice()
        slices = [self.slice]
        work = begin()
        if isinstance(work, Iterator):
            for _ in work:
                self.slice = Slice()
                slices.append(self.slice)
        return slices


#: A space of 3 directories and 1500 leaf tables, and a leaf that names 512 chunks.
FIRST_LEAF = 8
LEAVES = 1500
SCATTERED = FIRST_LEAF + LEAVES


def large(sync: Sync = Sync.STRICT) -> tuple[CountingGuest, Any]:
    guest = CountingGuest(600 * 512, backed=SCATTERED + 1)
    guest.put(1, 0, pte(2))
    for n in range(3):
        guest.put(2, n, pte(3 + n))
        for slot in range(500):
            guest.put(3 + n, slot, pte(FIRST_LEAF + 500 * n + slot))
    for slot in range(ENTRIES):
        guest.put(SCATTERED, slot, pte(512 * (slot + 10)))
    return guest, guest.make_engine(sync=sync, max_tables=4096).steps


def assert_bounded(slices: list[Slice]) -> None:
    for each in slices:
        assert each.types <= SLICE
        assert each.mapped <= 512
        assert not (each.types and each.mapped)
