"""A submission in relaxed mode with a number of unsynced tables, compared with memcmp and memcpy of their pages.

Each table was unsynced by one trapped store. Then the guest changed its last entry. All tables are in one space.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.bench import reference
from tests.bench.measure import MICRO, Figure, best, cpu, line_through
from tests.bench.world import Guest
from tests.support.tables import ENTRIES, FRAME
from xengt_dm.ppgtt.engine import Sync

TARGET = 4.0
#: Exchanges the frames of neighbours.
CHANGE = 1 << 12


def run(quick: bool) -> Iterator[Figure]:
    counts = (1, 8, 32) if quick else (1, 100, 10_000)
    library = reference.load()
    guest = Guest(counts[-1])
    engine = guest.engine(sync=Sync.RELAXED)
    guest.create(engine)
    pages = _Pages(library, guest)

    def submit(count: int) -> float:
        for i in range(count):
            guest.store(engine, (guest.first_leaf + i) * FRAME, int(guest.leaf(i)[0]))
        library.touch_pages(reference.FFI.cast("uint64_t *", guest.leaf(0) + ENTRIES - 1), count, ENTRIES, CHANGE)
        seconds = cpu(partial(guest.submit, engine))
        assert not engine.shadow.unsynced_tables
        return seconds

    submit(counts[-1])
    (idle,) = best(3 if quick else 500, partial(submit, 0))
    yield Figure("sync", "nothing dirty", idle * MICRO, "us", f"a submission of a space of {guest.leaves} tables")
    points = []
    for count in counts:
        rounds = 2 if quick else max(20, min(300, 20_000 // count))
        synced, compared = best(rounds, partial(submit, count), partial(pages.sync, count))
        points.append((float(count), synced))
        how = f"{synced * MICRO:,.1f} us, memcmp and memcpy {compared * MICRO:,.2f}"
        yield Figure("sync", f"{count} dirty", synced / compared, "x memcmp+memcpy", how, TARGET)
    fixed, slope = line_through(points)
    yield Figure("sync", "of which fixed", fixed * MICRO, "us", "the line through the first and the last of these")
    yield Figure("sync", "a dirty table more", slope * MICRO, "us", "its slope")


class _Pages:
    """The reference's own pages, and its copies of them."""

    def __init__(self, library: Any, guest: Guest) -> None:
        self._library = library
        ffi = reference.FFI
        size = guest.leaves * FRAME
        self._memory = [mmap.mmap(-1, size), mmap.mmap(-1, size)]
        self._pages, self._copies = (ffi.cast("char *", ffi.from_buffer(memory)) for memory in self._memory)
        self._last_word = ffi.cast("uint64_t *", self._pages + FRAME - 8)
        for memory in self._pages, self._copies:
            ffi.memmove(memory, ffi.cast("char *", int(reference.FFI.cast("uintptr_t", guest.leaf(0)))), size)

    def sync(self, count: int) -> float:
        self._library.touch_pages(self._last_word, count, ENTRIES, CHANGE)
        return cpu(lambda: self._library.sync_pages(self._copies, self._pages, count))
