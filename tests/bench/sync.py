"""A submission in relaxed mode with a number of unsynced tables, compared with what libc takes for their pages.

Of clean tables, which the guest has not changed since the last submission, that is memcmp. Of dirty ones, of which it
has changed the last entry, it is memcmp and memcpy. All tables are in one space. They stay unsynced although nothing
changes in them, because the count of submissions that found them unchanged is set to 0 before each one.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.bench import reference
from tests.bench.measure import MICRO, Figure, best, cpu, line_through
from tests.bench.world import Guest
from tests.support.tables import ENTRIES, FRAME
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode

DIRTY_TARGET = 4.0
CLEAN_TARGET = 1.3
SLICE_TARGET = 2.0
#: Exchanges the frames of neighbours.
CHANGE = 1 << 12


def run(quick: bool) -> Iterator[Figure]:
    counts = (1, 8, 32) if quick else (1, 100, 10_000)
    library = reference.load()
    dirty: list[tuple[float, float]] = []
    for count in counts:
        rounds = 2 if quick else max(20, min(300, 20_000 // count))
        tables = _Tables(library, count)
        pages = _Pages(library, tables.guest)
        clean, compared = best(rounds, tables.submit, partial(pages.sync, count, change=0))
        how = f"{clean * MICRO:,.1f} us, memcmp {compared * MICRO:,.2f}"
        yield Figure("sync", f"{count} clean", clean / compared, "x memcmp", how, CLEAN_TARGET if count > 100 else None)
        synced, copied = best(rounds, tables.change_and_submit, partial(pages.sync, count, change=CHANGE))
        dirty.append((float(count), synced))
        how = f"{synced * MICRO:,.1f} us, memcmp and memcpy {copied * MICRO:,.2f}"
        yield Figure("sync", f"{count} dirty", synced / copied, "x memcmp+memcpy", how, DIRTY_TARGET)
    (longest,) = best(2 if quick else 20, tables.longest_slice)
    how = f"of a submission of {counts[-1]:,} clean tables; requests are served after each"
    yield Figure("sync", "the longest slice", longest * 1000, "ms", how, SLICE_TARGET)
    fixed, slope = line_through(dirty)
    yield Figure("sync", "of which fixed", fixed * MICRO, "us", "the line through the first and the last of the dirty")
    yield Figure("sync", "a dirty table more", slope * MICRO, "us", "its slope")


class _Tables:
    """A space of ``count`` leaf tables, all of them unsynced."""

    def __init__(self, library: Any, count: int) -> None:
        self._library = library
        self._count = count
        self.guest = Guest(count)
        self._engine = self.guest.engine(sync=Sync.RELAXED)
        self.guest.create(self._engine)
        self.guest.submit(self._engine)

    def _begin(self) -> None:
        shadow = self._engine.shadow
        assert shadow.unsynced_tables == self._count
        for number in range(1, shadow.used + 1):
            shadow.tables[number].life.unchanged = 0

    def submit(self) -> float:
        self._begin()
        return cpu(partial(self.guest.submit, self._engine))

    def change_and_submit(self) -> float:
        last = reference.FFI.cast("uint64_t *", self.guest.leaf(0) + ENTRIES - 1)
        self._library.touch_pages(last, self._count, ENTRIES, CHANGE)
        return self.submit()

    def longest_slice(self) -> float:
        self._begin()
        before = time.thread_time()
        work = self._engine.submit(Mode.L4, (Guest.ROOT * FRAME,))
        longest = time.thread_time() - before
        while work is not None:
            before = time.thread_time()
            done = next(work, work) is work
            longest = max(longest, time.thread_time() - before)
            if done:
                break
        return longest


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

    def sync(self, count: int, *, change: int) -> float:
        self._library.touch_pages(self._last_word, count, ENTRIES, change)
        return cpu(lambda: self._library.sync_pages(self._copies, self._pages, count))
