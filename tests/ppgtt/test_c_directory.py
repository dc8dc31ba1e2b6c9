"""Directories in C against their twins: which tables an entry names, linking them, and what dies of it."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import twins
from tests.support.arena import CHUNK, ENTRIES, Arena, page_of
from tests.support.examples import examples
from tests.support.pages import pages, ranges
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
    """One directory in an arena, and what a caller does to keep its shadow in sync."""

    def __init__(
        self,
        level: int,
        ips: bool,
        max_tables: int = 2 * ENTRIES,
        known: Sequence[int] = KNOWN,
        page: Sequence[int] = (),
    ) -> None:
        self.arena = Arena(LIMIT, holes=HOLES, max_tables=max_tables, known=known)
        self.arena.shadow.has_64k = ips
        self.level, self.ips = level, ips
        self.number = self.arena.add(TABLE, level)
        self.words: list[int] = [0] * ENTRIES
        self.wanted = ffi.new("xd_missing_table[]", ENTRIES)
        self.splits = ffi.new("uint32_t *")
        if page:
            self.read(page)

    def read(self, page: Sequence[int]) -> None:
        self.arena.put(TABLE, page)
        entries = ffi.new("uint64_t[]", ENTRIES)
        assert lib.xd_directory_read(self.arena.shadow, self.number, entries) == 0
        self.words = list(entries)

    def want(self, slots: range) -> int:
        shadow, words = self.arena.shadow, ffi.new("uint64_t[]", self.words)
        return int(
            lib.xd_directory_missing(
                shadow, self.number, words, slots.start, slots.stop - 1, self.wanted, self.splits, self.arena.need
            )
        )

    def listed(self, count: int) -> list[twins.Child]:
        return [twins.Child(one.gfn, one.kind) for one in self.wanted[0:count]]

    def adopt(self, count: int) -> list[int]:
        """The frames that are to be protected."""
        numbers, gfns = ffi.new("uint32_t[]", ENTRIES), ffi.new("uint64_t[]", ENTRIES)
        fresh = lib.xd_create_tables(self.arena.shadow, self.wanted, count, numbers, gfns)
        assert list(numbers[0:count]) == [one.number for one in self.wanted[0:count]]
        return list(gfns[0:fresh])

    def link(self, slots: range) -> int:
        words = ffi.new("uint64_t[]", self.words)
        return int(
            lib.xd_directory_link(self.arena.shadow, self.number, words, slots.start, slots.stop - 1, self.arena.need)
        )

    def follow(self, slots: range = range(ENTRIES)) -> set[int]:
        """All steps; the frames that no shadow has any more."""
        count = self.want(slots)
        self.adopt(count)
        self.link(slots)
        lib.xd_unref_tables(self.arena.shadow, self.wanted, count)
        return self.free()

    def free(self) -> set[int]:
        gfns = ffi.new("uint64_t[]", ENTRIES)
        freed: set[int] = set()
        while self.arena.shadow.first_unreferenced:
            freed |= set(gfns[0 : lib.xd_free_unreferenced(self.arena.shadow, gfns, ENTRIES)])
        return freed

    def number_of(self, child: twins.Child) -> int:
        return int(lib.xd_find(self.arena.shadow, child.gfn, child.kind))

    def frames(self) -> set[int]:
        """Of all shadows that stand for a guest table."""
        tables = [self.arena.table(number) for number in self.arena.numbers_in_use()]
        return {table.gfn for table in tables if not table.kind & twins.SPLIT}

    def check(self, slots: range, before: Sequence[int]) -> None:
        """The shadow is the twin's where it was asked about, and as before elsewhere; references balance."""
        arena = self.arena
        expected = twins.directory(self.words, self.level, self.ips, arena.state, self.number_of)
        actual = arena.entries(self.number)
        for slot in range(ENTRIES):
            want = expected[slot] if slot in slots else before[slot]
            if isinstance(want, twins.Large):
                split = arena.table(actual[slot] >> 12)
                assert (split.gfn, split.kind) == (want.gfn, 1 | twins.SPLIT)
                assert arena.entries(actual[slot] >> 12) == twins.parts(want, arena.state)
            else:
                assert actual[slot] == want, f"slot {slot}: {actual[slot]:#x}, not {want:#x}"
        assert arena.recount(roots=[self.number]) == arena.references()


@examples(40)
@given(page=some_pages, level=levels, ips=st.booleans(), slots=ranges())
def test_the_tables_that_entries_name(page: list[int], level: int, ips: bool, slots: range) -> None:
    directory = Directory(level, ips, page=page)
    arena = directory.arena
    there = twins.Child(CHUNK + 1, level - 1)
    arena.add(*there)
    looked_at = page[slots.start : slots.stop]
    found = directory.listed(directory.want(slots))
    assert len(found) == len(set(found))
    assert set(found) == twins.wanted(looked_at, level, ips, arena.state, lambda child: child == there)
    assert directory.splits[0] == twins.splits(looked_at, level, ips, arena.state)


@examples(40)
@given(page=some_pages, level=levels, ips=st.booleans(), slots=ranges(), known=st.sets(st.sampled_from(KNOWN[1:])))
def test_what_is_not_known_is_asked_for(page: list[int], level: int, ips: bool, slots: range, known: set[int]) -> None:
    directory = Directory(level, ips, page=page, known=[0, *sorted(known)])
    arena = directory.arena
    looked_at = page[slots.start : slots.stop]
    unknown = twins.unknown_of_directory(looked_at, level, ips, arena.state)
    assert (directory.want(slots) == -errno.EAGAIN) == bool(unknown)
    assert arena.needed() == {frame // CHUNK for frame in unknown}
    for chunk in arena.needed():
        arena.query(chunk)
    arena.need.count = 0
    found = directory.listed(directory.want(slots))
    assert set(found) == twins.wanted(looked_at, level, ips, arena.state, lambda child: child.gfn < 0)


@examples(30)
@given(done=st.lists(st.tuples(some_pages, ranges()), min_size=1, max_size=4), level=levels, ips=st.booleans())
def test_linking(done: list[tuple[list[int], range]], level: int, ips: bool) -> None:
    directory = Directory(level, ips)
    arena = directory.arena
    for page, slots in done:
        directory.read(page)
        before, frames = arena.entries(directory.number), directory.frames()
        freed = directory.follow(slots)
        directory.check(slots, before)
        assert freed - directory.frames() == freed
        assert frames - directory.frames() <= freed
        assert directory.follow(slots) == set()
        directory.check(slots, before)
        pending = sum(
            isinstance(what, twins.Large) or what == twins.PENDING for what in twin_now(directory, before, slots)
        )
        assert arena.table(directory.number).pending == pending
    directory.read([0] * ENTRIES)
    gone = directory.frames() - {TABLE}
    assert directory.follow() == gone
    assert arena.shadow.live == 1


def twin_now(directory: Directory, before: Sequence[int], slots: range) -> list[int | twins.Large]:
    """What the twin says of the slots that were asked about; of the others what there is, with splits as such."""
    arena = directory.arena
    expected = twins.directory(directory.words, directory.level, directory.ips, arena.state, directory.number_of)
    return [expected[slot] if slot in slots else as_large(arena, before[slot]) for slot in range(ENTRIES)]


def as_large(arena: Arena, entry: int) -> int | twins.Large:
    if entry & 0x81 == 1 and arena.table(entry >> 12).kind & twins.SPLIT:
        return twins.Large(arena.table(entry >> 12).gfn, 0)
    return entry


@examples(40)
@given(page=some_pages, level=levels, ips=st.booleans(), quota=st.integers(1, 9))
def test_a_quota(page: list[int], level: int, ips: bool, quota: int) -> None:
    """What does not fit is pending; what fits is right; nothing is mapped that should not be."""
    directory = Directory(level, ips, max_tables=quota, page=page)
    arena = directory.arena
    directory.follow()
    assert arena.shadow.live <= quota
    assert arena.recount(roots=[directory.number]) == arena.references()
    expected = twins.directory(page, level, ips, arena.state, directory.number_of)
    for slot, entry in enumerate(arena.entries(directory.number)):
        want = expected[slot]
        if isinstance(want, twins.Large):
            if entry != twins.PENDING:
                assert arena.entries(entry >> 12) == twins.parts(want, arena.state)
        else:
            assert entry == want
    asked = set(expected) - {0, twins.REFUSED}
    assert arena.shadow.live == quota or twins.PENDING not in asked or arena.counters.invalid_entries


@examples(40)
@given(page=some_pages, level=levels, ips=st.booleans(), gone=st.sets(st.sampled_from(FRAMES)))
def test_frames_that_leave(page: list[int], level: int, ips: bool, gone: set[int]) -> None:
    directory = Directory(level, ips, page=page)
    directory.follow()
    arena = directory.arena
    arena.holes = (arena.holes | gone) - {TABLE}
    lib.xd_frames_invalidate(arena.frames)
    lib.xd_new_epoch(arena.shadow)
    for chunk in KNOWN:
        arena.query(chunk)
    directory.follow()
    directory.check(range(ENTRIES), [])


@pytest.mark.parametrize(
    ("level", "page", "invalid", "unsupported"),
    [
        (2, page_of({0: 0x7003, 1: 2 * CHUNK << 12 | 3, 2: 0x83, 3: CHUNK << 12 | 0x83}), 3, 0),  # a table each, a page
        (2, [0x7003] * ENTRIES, ENTRIES, 0),
        (2, [0x83] * 7 + [0] * 505, 7, 0),
        (3, page_of({9: 0x83}), 0, 1),
        (3, [0x83] * ENTRIES, 0, ENTRIES),
        (4, page_of({9: 0x83}), 0, 0),
    ],
)
def test_what_cannot_be_honoured_is_counted_once(level: int, page: list[int], invalid: int, unsupported: int) -> None:
    directory = Directory(level, False, page=page)
    counters = directory.arena.counters
    for _ in range(2):
        directory.follow()
        assert (counters.invalid_entries, counters.unsupported_entries) == (invalid, unsupported)


def test_frames_to_protect_are_those_without_a_shadow_until_now() -> None:
    directory = Directory(2, True, page=page_of({0: 0x1003, 1: 0x1803, 2: 0x2003, 3: 0x3803}))
    directory.arena.add(2, 3)
    count = directory.want(range(ENTRIES))
    assert count == 4
    assert sorted(directory.adopt(count)) == [1, 3]


def test_replacing_a_subtree_by_its_part_keeps_the_part() -> None:
    """Adding comes before removing: what the old entry held and the new one names does not die in between."""
    directory = Directory(3, False, page=page_of({0: 0x1003}))
    directory.follow()
    arena = directory.arena
    inner = lib.xd_find(arena.shadow, 1, 2)
    leaf = lib.xd_add(arena.shadow, 2, 1)
    arena.set_entries(inner, page_of({0: leaf << 12 | 3}))
    lib.xd_ref(arena.shadow, leaf)
    directory.read(page_of({0: 0x1003, 1: 0x1003}))
    assert directory.follow() == set()
    directory.read(page_of({1: 0x1003}))
    assert directory.follow() == set()
    assert arena.entries(directory.number)[1] >> 12 == inner
    directory.read([0] * ENTRIES)
    assert directory.follow() == {1, 2}


def test_a_leaf_that_was_never_filled_maps_nothing_once_it_is_linked() -> None:
    """If a hypercall fails between a leaf's coming and its first update, it says what a table before it said."""
    directory = Directory(2, False, page=page_of({0: 0x1003}))
    arena = directory.arena
    before = arena.add(9, 1)
    arena.set_entries(before, [0x6003] * ENTRIES)
    lib.xd_remove(arena.shadow, before)
    leaf = lib.xd_add(arena.shadow, 1, 1)
    assert leaf == before
    directory.follow()
    assert arena.entries(directory.number)[0] >> 12 == leaf
    assert arena.entries(leaf) == [0] * ENTRIES


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_directory_whose_page_is_gone(level: int) -> None:
    directory = Directory(level, False, page=[0x1003, 0x2003, 2 * CHUNK << 12 | 3, 0] * 128)
    directory.follow()
    arena = directory.arena
    arena.holes.add(TABLE)
    arena.query(0)
    words = ffi.new("uint64_t[]", ENTRIES)
    assert lib.xd_directory_read(arena.shadow, directory.number, words) == -errno.ENOENT
    lib.xd_directory_clear(arena.shadow, directory.number)
    assert directory.free() == {1, 2}
    assert arena.entries(directory.number) == [0] * ENTRIES
    assert arena.shadow.pending_tables == 0


def test_512_references_to_one_table_want_it_once() -> None:
    directory = Directory(4, False, page=[0x1003] * ENTRIES)
    assert directory.want(range(ENTRIES)) == 1
    directory.follow()
    assert directory.arena.shadow.live == 2
    assert directory.arena.references()[lib.xd_find(directory.arena.shadow, 1, 3)] == ENTRIES
