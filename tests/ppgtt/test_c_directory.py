"""Directories in C against their twins: which tables an entry names, linking them, and what dies of it."""

from __future__ import annotations

import errno
import functools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import twins
from tests.support.core_bench import CHUNK, CoreBench, page_of
from tests.support.examples import examples
from tests.support.pages import pages, ranges
from tests.support.tables import ENTRIES, pte
from xengt_dm._core import ffi, lib

#: Chunk 0 has a hole, chunk 1 is all RAM, chunk 2 all holes, chunk 3 ends with the RAM.
LIMIT = 3 * CHUNK + 100
TABLE = 5
HOLES = (7, *range(2 * CHUNK, 3 * CHUNK))
FRAMES = (0, 1, 2, 3, TABLE, 7, 511, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK, LIMIT - 1, LIMIT, (1 << 34) - 1)
KNOWN = (0, 1, 2, 3)

levels = st.sampled_from([2, 3, 4])
some_pages = pages(FRAMES)


class Directory:
    """One directory on a bench, and what a caller does to keep its shadow in sync."""

    def __init__(
        self,
        level: int,
        ips: bool,
        max_tables: int = 2 * ENTRIES,
        known: Sequence[int] = KNOWN,
        page: Sequence[int] = (),
    ) -> None:
        self.bench = CoreBench(LIMIT, holes=HOLES, max_tables=max_tables, known=known)
        self.bench.shadow.has_64k = ips
        self.level, self.ips = level, ips
        self.number = self.bench.add(TABLE, level)
        self.words: list[int] = [0] * ENTRIES
        self.wanted = ffi.new("xd_missing_table[]", ENTRIES)
        self.splits = ffi.new("uint32_t *")
        self.shared = ffi.new("uint32_t *")
        self.missing = 0
        if page:
            self.read(page)

    def read(self, page: Sequence[int]) -> None:
        self.bench.put(TABLE, page)
        entries = ffi.new("uint64_t[]", ENTRIES)
        assert lib.xd_directory_read(self.bench.shadow, self.number, entries) == 0
        self.words = list(entries)

    def want(self, slots: range) -> int:
        shadow, words, first, last = self.bench.shadow, ffi.new("uint64_t[]", self.words), slots.start, slots.stop - 1
        count = lib.xd_directory_missing(
            shadow, self.number, words, first, last, self.wanted, self.splits, self.shared, self.bench.need
        )
        self.missing = max(count, 0)
        return int(count)

    def listed(self, count: int) -> list[twins.Child]:
        return [twins.Child(one.gfn, one.kind) for one in self.wanted[0:count]]

    def adopt(self, count: int) -> list[int]:
        """The frames that are to be protected."""
        numbers, gfns = ffi.new("uint32_t[]", ENTRIES), ffi.new("uint64_t[]", ENTRIES)
        fresh = lib.xd_create_tables(self.bench.shadow, self.wanted, count, numbers, gfns)
        assert list(numbers[0:count]) == [one.number for one in self.wanted[0:count]]
        return list(gfns[0:fresh])

    def link(self, slots: range) -> int:
        shadow, words, first, last = self.bench.shadow, ffi.new("uint64_t[]", self.words), slots.start, slots.stop - 1
        missing, count, need = self.wanted, self.missing, self.bench.need
        return int(lib.xd_directory_link(shadow, self.number, words, first, last, missing, count, need))

    def follow(self, slots: range = range(ENTRIES)) -> set[int]:
        """All steps; the frames that no shadow has any more."""
        count = self.want(slots)
        self.adopt(count)
        self.link(slots)
        lib.xd_unref_tables(self.bench.shadow, self.wanted, count)
        return self.free()

    def free(self) -> set[int]:
        gfns = ffi.new("uint64_t[]", ENTRIES)
        freed: set[int] = set()
        while self.bench.shadow.first_unreferenced:
            freed |= set(gfns[0 : lib.xd_free_unreferenced(self.bench.shadow, gfns, ENTRIES)])
        return freed

    def number_of(self, child: twins.Child) -> int:
        return int(lib.xd_find(self.bench.shadow, child.gfn, child.kind))

    def frames(self) -> set[int]:
        """Of all shadows that stand for a guest table."""
        tables = [self.bench.table(number) for number in self.bench.numbers_in_use()]
        return {table.gfn for table in tables if not table.kind & twins.SPLIT}

    def check(self, slots: range, before: Sequence[int]) -> None:
        """The shadow is the twin's where it was asked about, and as before elsewhere; references balance."""
        bench = self.bench
        state = functools.cache(bench.state)  # each of the 512 frames of a large page is asked about again and again
        expected = twins.directory(self.words, self.level, self.ips, state, self.number_of)
        actual = bench.entries(self.number)
        for slot in range(ENTRIES):
            want = expected[slot] if slot in slots else before[slot]
            if isinstance(want, twins.Large):
                split = bench.table(actual[slot] >> 12)
                assert (split.gfn, split.kind) == (want.gfn, 1 | twins.SPLIT)
                assert bench.entries(actual[slot] >> 12) == twins.parts(want, state)
            else:
                assert actual[slot] == want, f"slot {slot}: {actual[slot]:#x}, not {want:#x}"
        assert bench.recount(roots=[self.number]) == bench.references()


@examples(40)
@given(page=some_pages, level=levels, ips=st.booleans(), slots=ranges())
def test_the_tables_that_entries_name(page: list[int], level: int, ips: bool, slots: range) -> None:
    directory = Directory(level, ips, page=page)
    bench = directory.bench
    there = twins.Child(CHUNK + 1, level - 1)
    bench.add(*there)
    looked_at = page[slots.start : slots.stop]
    found = directory.listed(directory.want(slots))
    assert len(found) == len(set(found))
    assert set(found) == twins.wanted(looked_at, level, ips, bench.state, lambda child: child == there)
    assert directory.splits[0] == twins.splits(looked_at, level, ips, bench.state)


@examples(40)
@given(page=some_pages, level=levels, ips=st.booleans(), slots=ranges(), known=st.sets(st.sampled_from(KNOWN[1:])))
def test_what_is_not_known_is_asked_for(page: list[int], level: int, ips: bool, slots: range, known: set[int]) -> None:
    directory = Directory(level, ips, page=page, known=[0, *sorted(known)])
    bench = directory.bench
    looked_at = page[slots.start : slots.stop]
    unknown = twins.unknown_of_directory(looked_at, level, ips, bench.state)
    assert (directory.want(slots) == -errno.EAGAIN) == bool(unknown)
    assert bench.needed() == {frame // CHUNK for frame in unknown}
    for chunk in bench.needed():
        bench.query(chunk)
    bench.need.count = 0
    found = directory.listed(directory.want(slots))
    assert set(found) == twins.wanted(looked_at, level, ips, bench.state, lambda child: child.gfn < 0)


@examples(30)
@given(done=st.lists(st.tuples(some_pages, ranges()), min_size=1, max_size=4), level=levels, ips=st.booleans())
def test_linking(done: list[tuple[list[int], range]], level: int, ips: bool) -> None:
    directory = Directory(level, ips)
    bench = directory.bench
    for page, slots in done:
        directory.read(page)
        before, frames = bench.entries(directory.number), directory.frames()
        freed = directory.follow(slots)
        directory.check(slots, before)
        assert freed - directory.frames() == freed
        assert frames - directory.frames() <= freed
        assert directory.follow(slots) == set()
        directory.check(slots, before)
        pending = sum(
            isinstance(what, twins.Large) or what == twins.PENDING for what in twin_now(directory, before, slots)
        )
        assert bench.table(directory.number).pending == pending
    directory.read([0] * ENTRIES)
    gone = directory.frames() - {TABLE}
    assert directory.follow() == gone
    assert bench.shadow.live == 1


def twin_now(directory: Directory, before: Sequence[int], slots: range) -> list[int | twins.Large]:
    """What the twin says of the slots that were asked about; of the others what there is, with splits as such."""
    bench = directory.bench
    expected = twins.directory(directory.words, directory.level, directory.ips, bench.state, directory.number_of)
    return [expected[slot] if slot in slots else as_large(bench, before[slot]) for slot in range(ENTRIES)]


def as_large(bench: CoreBench, entry: int) -> int | twins.Large:
    if entry & 0x81 == 1 and bench.table(entry >> 12).kind & twins.SPLIT:
        return twins.Large(bench.table(entry >> 12).gfn, 0)
    return entry


@examples(40)
@given(page=some_pages, level=levels, ips=st.booleans(), quota=st.integers(1, 9))
def test_a_quota(page: list[int], level: int, ips: bool, quota: int) -> None:
    """What does not fit is pending; what fits is right; nothing is mapped that should not be."""
    directory = Directory(level, ips, max_tables=quota, page=page)
    bench = directory.bench
    directory.follow()
    assert bench.shadow.live <= quota
    assert bench.recount(roots=[directory.number]) == bench.references()
    expected = twins.directory(page, level, ips, bench.state, directory.number_of)
    for slot, entry in enumerate(bench.entries(directory.number)):
        want = expected[slot]
        if isinstance(want, twins.Large):
            if entry != twins.PENDING:
                assert bench.entries(entry >> 12) == twins.parts(want, bench.state)
        else:
            assert entry == want
    asked = set(expected) - {0, twins.REFUSED}
    assert bench.shadow.live == quota or twins.PENDING not in asked or bench.counters.invalid_entries


@examples(40)
@given(page=some_pages, level=levels, ips=st.booleans(), gone=st.sets(st.sampled_from(FRAMES)))
def test_frames_that_leave(page: list[int], level: int, ips: bool, gone: set[int]) -> None:
    directory = Directory(level, ips, page=page)
    directory.follow()
    bench = directory.bench
    bench.holes = (bench.holes | gone) - {TABLE}
    lib.xd_frames_invalidate(bench.frames)
    lib.xd_new_epoch(bench.shadow)
    for chunk in KNOWN:
        bench.query(chunk)
    directory.follow()
    directory.check(range(ENTRIES), [])


@pytest.mark.parametrize(
    ("level", "page", "invalid", "unsupported"),
    [
        (2, page_of({0: 0x7003, 1: pte(2 * CHUNK), 2: 0x83, 3: pte(CHUNK, 0x83)}), 3, 0),  # a table each, a page
        (2, [0x7003] * ENTRIES, ENTRIES, 0),
        (2, [0x83] * 7 + [0] * 505, 7, 0),
        (3, page_of({9: 0x83}), 0, 1),
        (3, [0x83] * ENTRIES, 0, ENTRIES),
        (4, page_of({9: 0x83}), 0, 0),
    ],
)
def test_what_cannot_be_honoured_is_counted_once(level: int, page: list[int], invalid: int, unsupported: int) -> None:
    directory = Directory(level, False, page=page)
    counters = directory.bench.counters
    for _ in range(2):
        directory.follow()
        assert (counters.invalid_entries, counters.unsupported_entries) == (invalid, unsupported)


def test_frames_to_protect_are_those_without_a_shadow_until_now() -> None:
    directory = Directory(2, True, page=page_of({0: 0x1003, 1: 0x1803, 2: 0x2003, 3: 0x3803}))
    directory.bench.add(2, 3)
    count = directory.want(range(ENTRIES))
    assert count == 4
    assert sorted(directory.adopt(count)) == [1, 3]


def test_replacing_a_subtree_by_its_part_keeps_the_part() -> None:
    """Adding comes before removing: what the old entry held and the new one names does not die in between."""
    directory = Directory(3, False, page=page_of({0: 0x1003}))
    directory.follow()
    bench = directory.bench
    inner = lib.xd_find(bench.shadow, 1, 2)
    leaf = lib.xd_add(bench.shadow, 2, 1)
    bench.set_entries(inner, page_of({0: pte(leaf)}))
    lib.xd_ref(bench.shadow, leaf)
    directory.read(page_of({0: 0x1003, 1: 0x1003}))
    assert directory.follow() == set()
    directory.read(page_of({1: 0x1003}))
    assert directory.follow() == set()
    assert bench.entries(directory.number)[1] >> 12 == inner
    directory.read([0] * ENTRIES)
    assert directory.follow() == {1, 2}


def test_a_leaf_that_was_never_filled_maps_nothing_once_it_is_linked() -> None:
    """If a hypercall fails between a leaf's coming and its first update, it says what a table before it said."""
    directory = Directory(2, False, page=page_of({0: 0x1003}))
    bench = directory.bench
    before = bench.add(9, 1)
    bench.set_entries(before, [0x6003] * ENTRIES)
    lib.xd_remove(bench.shadow, before)
    leaf = lib.xd_add(bench.shadow, 1, 1)
    assert leaf == before
    directory.follow()
    assert bench.entries(directory.number)[0] >> 12 == leaf
    assert bench.entries(leaf) == [0] * ENTRIES


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_directory_whose_page_is_gone(level: int) -> None:
    directory = Directory(level, False, page=[0x1003, 0x2003, pte(2 * CHUNK), 0] * 128)
    directory.follow()
    bench = directory.bench
    bench.holes.add(TABLE)
    bench.query(0)
    words = ffi.new("uint64_t[]", ENTRIES)
    assert lib.xd_directory_read(bench.shadow, directory.number, words) == -errno.ENOENT
    lib.xd_directory_clear(bench.shadow, directory.number)
    assert directory.free() == {1, 2}
    assert bench.entries(directory.number) == [0] * ENTRIES
    assert bench.shadow.pending_tables == 0


def test_512_references_to_one_table_want_it_once() -> None:
    directory = Directory(4, False, page=[0x1003] * ENTRIES)
    assert directory.want(range(ENTRIES)) == 1
    directory.follow()
    assert directory.bench.shadow.live == 2
    assert directory.bench.references()[lib.xd_find(directory.bench.shadow, 1, 3)] == ENTRIES
