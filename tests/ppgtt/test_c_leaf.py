"""Leaf tables in C against their twins in tests/support/twins.py: translating, following changes, stores."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import twins
from tests.support.core_bench import CHUNK, CoreBench, page_of
from tests.support.examples import examples
from tests.support.pages import SLOTS, pages, ranges
from tests.support.tables import ENTRIES, FRAME, pte
from xengt_dm._core import ffi, lib
from xengt_dm.units import CData

#: Seven chunks, the last one in part; 2, 4 and 5 are RAM throughout. The leaf table itself is frame 5.
LIMIT = 6 * CHUNK + 100
TABLE = 5
HOLES = (7, 8, 15, 600, 1022, 3 * CHUNK + 1)
IN_RUNS = (2 * CHUNK, 3 * CHUNK - 1, 4 * CHUNK, 5 * CHUNK - 1, 5 * CHUNK, 6 * CHUNK - 1)
AT_RUNS = (2 * CHUNK - 1, 3 * CHUNK, 3 * CHUNK + 1, 4 * CHUNK - 1, 6 * CHUNK)
FRAMES = (0, 1, 6, 7, 8, 15, 16, 511, 512, 600, 1022, *IN_RUNS, *AT_RUNS, LIMIT - 1, LIMIT, 1 << 33, (1 << 34) - 1)
VECTORS = [bits for bits in (128, 256, 512) if not lib.xd_leaf_vectors(bits)]
KINDS = {False: 1, True: 1 | twins.WIDE}
WHOLE = range(ENTRIES)

kinds = st.booleans()
some_pages = pages(FRAMES) | pages(IN_RUNS)


@pytest.fixture(scope="module", autouse=True, params=VECTORS)
def _vectors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test once for each width of vectors that this processor has."""
    assert lib.xd_leaf_vectors(request.param) == 0
    yield
    lib.xd_leaf_vectors(VECTORS[-1])


def make(page: Sequence[int], wide: bool, known: Sequence[int] | None = None) -> tuple[CoreBench, int]:
    """The table's shadow is new, in a page that another one left."""
    bench = CoreBench(LIMIT, holes=HOLES, known=known)
    bench.put(TABLE, page)
    other = bench.add(TABLE + 1, 1)
    bench.set_entries(other, [twins.PENDING, 0x6003] * (ENTRIES // 2))
    lib.xd_remove(bench.shadow, other)
    return bench, bench.add(TABLE, KINDS[wide])


def update(bench: CoreBench, number: int, slots: range = WHOLE) -> int:
    return int(lib.xd_leaf_update(bench.shadow, number, slots.start, slots.stop - 1, bench.need))


def pending(entries: Sequence[int]) -> int:
    return sum(entry == twins.PENDING for entry in entries)


@examples(40)
@given(page=some_pages, wide=kinds)
def test_a_new_table(page: list[int], wide: bool) -> None:
    bench, number = make(page, wide)
    expected = twins.leaf(page, wide, bench.state)
    assert update(bench, number) == 0
    assert bench.entries(number) == expected
    assert bench.table(number).pending == pending(expected)
    assert bench.shadow.pending_tables == (pending(expected) > 0)
    assert bench.counters.invalid_entries == pending(expected)


@examples(40)
@given(before=some_pages, after=some_pages, kept=st.booleans(), wide=kinds, slots=ranges())
def test_following_a_change(before: list[int], after: list[int], kept: bool, wide: bool, slots: range) -> None:
    """What is asked about follows, all else stays; ``kept``: most entries are as they were, as in real life."""
    if kept:
        after = [after[i] if i % 61 == 0 else before[i] for i in range(ENTRIES)]
    bench, number = make(before, wide)
    update(bench, number)
    old = bench.entries(number)
    bench.put(TABLE, after)
    new = twins.leaf(after, wide, bench.state)
    looked_at = twins.group(slots, wide)
    expected = [new[i] if i in looked_at else old[i] for i in range(ENTRIES)]
    counted = bench.counters.invalid_entries
    assert update(bench, number, slots) == 0
    assert bench.entries(number) == expected
    assert bench.table(number).pending == pending(expected)
    fresh = sum(b == twins.PENDING != a for a, b in zip(old, expected, strict=True))
    assert bench.counters.invalid_entries - counted == fresh


@examples(40)
@given(page=some_pages, wide=kinds, known=st.sets(st.sampled_from(range(1, 7))), slots=ranges())
def test_what_is_not_known_is_asked_for(page: list[int], wide: bool, known: set[int], slots: range) -> None:
    """The guest's page itself is known, some of what it names is not: that maps nothing until it is queried."""
    bench, number = make(page, wide, known=sorted({0} | known))
    looked_at = twins.group(slots, wide)
    unknown = twins.unknown_of_leaf(page, looked_at, wide, bench.state)
    expected = twins.leaf(page, wide, bench.state)
    result = update(bench, number, slots)
    assert (result == -errno.EAGAIN) == bool(unknown)
    assert bench.needed() == {frame // CHUNK for frame in unknown}
    assert [bench.entries(number)[i] for i in looked_at] == [expected[i] for i in looked_at]
    for chunk in bench.needed():
        bench.query(chunk)
    bench.need.count = 0
    assert update(bench, number, slots) >= 0
    expected = twins.leaf(page, wide, bench.state)
    assert [bench.entries(number)[i] for i in looked_at] == [expected[i] for i in looked_at]


@examples(40)
@given(page=some_pages, wide=kinds, gone=st.sets(st.sampled_from(FRAMES)), back=st.sets(st.sampled_from(HOLES)))
def test_frames_that_come_and_go(page: list[int], wide: bool, gone: set[int], back: set[int]) -> None:
    """A new epoch: every entry is looked at again, those too that say what they said before."""
    bench, number = make(page, wide)
    update(bench, number)
    bench.holes = (bench.holes | gone) - back - {TABLE}
    lib.xd_frames_invalidate(bench.frames)
    lib.xd_new_epoch(bench.shadow)
    for chunk in range(7):
        bench.query(chunk)
    update(bench, number)
    expected = twins.leaf(page, wide, bench.state)
    assert bench.entries(number) == expected
    assert bench.table(number).pending == pending(expected)
    assert bench.shadow.stale_tables == 0


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("slots", [WHOLE, range(16, 17)], ids=["whole", "one"])
def test_a_table_whose_page_is_gone_maps_nothing(wide: bool, slots: range) -> None:
    bench, number = make([0x6003, 0x7003] * 256, wide)
    update(bench, number)
    bench.holes.add(TABLE)
    bench.query(0)
    assert update(bench, number, slots) == -errno.ENOENT
    assert bench.entries(number) == [0] * ENTRIES
    assert bench.table(number).pending == 0
    assert bench.shadow.pending_tables == 0


def test_a_table_whose_page_was_never_asked_about_is_asked_for() -> None:
    bench, number = make([0x6003] * ENTRIES, False, known=[1])
    assert update(bench, number) == -errno.EAGAIN
    assert bench.needed() == {0}


@examples(60)
@given(
    before=some_pages,
    after=some_pages,
    slots=st.none() | st.sets(st.integers(0, ENTRIES - 1), max_size=3),
    wide=kinds,
    copied=st.booleans(),
    again=st.booleans(),
)
def test_a_sync_says_whether_anything_changed(
    before: list[int], after: list[int], slots: set[int] | None, wide: bool, copied: bool, again: bool
) -> None:
    """``slots``: all that changes, None for everything. ``again``: a new epoch, so that every entry is checked."""
    if slots is not None:
        after = [after[i] if i in slots else before[i] for i in range(ENTRIES)]
    bench, number = make(before, wide)
    update(bench, number)
    old = bench.entries(number)
    bench.put(TABLE, before if copied else after)
    if again:
        lib.xd_new_epoch(bench.shadow)
    page = ffi.new("uint64_t[]", after) if copied else ffi.NULL
    changed = ffi.new("int *", 2)
    assert lib.xd_leaf_sync(bench.shadow, number, page, bench.need, changed) == 0
    assert bench.entries(number) == twins.leaf(after, wide, bench.state)
    assert changed[0] == (bench.entries(number) != old)
    assert bench.shadow.stale_tables == 0


@pytest.mark.parametrize("slot", range(0, ENTRIES, 37))
def test_a_sync_writes_one_changed_entry_of_many(slot: int) -> None:
    bench, number = make([pte(4 * CHUNK + i) for i in range(ENTRIES)], False)
    update(bench, number)
    expected = bench.entries(number)
    expected[slot] ^= 2
    bench.put(TABLE, expected)
    changed = ffi.new("int *")
    for result in (1, 0):
        assert lib.xd_leaf_sync(bench.shadow, number, ffi.NULL, bench.need, changed) == 0
        assert changed[0] == result
        assert bench.entries(number) == expected


def test_a_sync_of_a_page_that_is_gone_has_changed_the_table() -> None:
    bench, number = make([0x6003] * ENTRIES, False)
    update(bench, number)
    bench.holes.add(TABLE)
    bench.query(0)
    changed = ffi.new("int *")
    assert lib.xd_leaf_sync(bench.shadow, number, ffi.NULL, bench.need, changed) == -errno.ENOENT
    assert changed[0] == 1


@examples(40)
@given(some=st.lists(st.tuples(some_pages, kinds), min_size=1, max_size=4), known=st.sets(st.sampled_from(range(1, 7))))
def test_many_tables(some: list[tuple[list[int], bool]], known: set[int]) -> None:
    """Those that need more knowledge come to the front, in order, until all is known; what died is passed over."""
    bench = CoreBench(LIMIT, holes=HOLES, known=sorted({0} | known))
    numbers = []
    for gfn, (page, wide) in enumerate(some, TABLE + 20):
        bench.put(gfn, page)
        numbers.append(bench.add(gfn, KINDS[wide]))
    dead = bench.add(99, 1)
    lib.xd_remove(bench.shadow, dead)
    directory = bench.add(98, 2)
    listed = lib_numbers([dead, *numbers, directory])
    lacking = [
        number
        for number, (page, wide) in zip(numbers, some, strict=True)
        if twins.unknown_of_leaf(page, WHOLE, wide, bench.state)
    ]
    bench.need.count = 0
    left = lib.xd_leaf_update_many(bench.shadow, listed, len(numbers) + 2, bench.need)
    assert list(listed[0:left]) == lacking
    for chunk in bench.needed():
        bench.query(chunk)
    bench.need.count = 0
    assert lib.xd_leaf_update_many(bench.shadow, listed, left, bench.need) == 0
    for number, (page, wide) in zip(numbers, some, strict=True):
        assert bench.entries(number) == twins.leaf(page, wide, bench.state)


def lib_numbers(numbers: list[int]) -> CData:
    return ffi.new("uint32_t[]", numbers)


def test_more_chunks_than_can_be_listed_at_once() -> None:
    """Each entry names another chunk: the list holds 512, and calling again comes to an end."""
    bench = CoreBench(1200 * CHUNK, known=[0])
    numbers = []
    for which in range(2):
        first = 1 + which * ENTRIES
        bench.put(TABLE + which, [pte((first + i) * CHUNK) for i in range(ENTRIES)])
        numbers.append(bench.add(TABLE + which, 1))
    listed = lib_numbers(numbers)
    rounds = 0
    left = 2
    while left:
        bench.need.count = 0
        left = lib.xd_leaf_update_many(bench.shadow, listed, left, bench.need)
        for chunk in bench.needed():
            bench.query(chunk)
        rounds += 1
    assert rounds == 3
    for number in numbers:
        assert all(entry & 1 for entry in bench.entries(number))


# One store of the guest


@st.composite
def stores(draw: st.DrawFn) -> tuple[int, int, int]:
    """(offset, size, value): wherever a CPU's store within the page may lie."""
    size = draw(st.sampled_from([1, 2, 4, 8]))
    offset = draw(st.sampled_from(SLOTS)) * 8 + draw(st.integers(0, 7))
    value = draw(st.sampled_from([0, 0x6003, 0x7003, 0xFFFF_FFFF_FFFF_FFFF, 0x0190_8083]) | st.integers(0, 1 << 64))
    return min(offset, FRAME - size), size, value & (1 << 8 * size) - 1


@examples(40)
@given(page=some_pages, done=st.lists(stores(), min_size=1, max_size=8), roles=st.sets(kinds, min_size=1))
def test_stores(page: list[int], done: list[tuple[int, int, int]], roles: set[bool]) -> None:
    """Memory has the bytes; every shadow of the frame follows, of 4 KiB entries and of 64 KiB ones."""
    bench = CoreBench(LIMIT, holes=HOLES)
    bench.put(TABLE, page)
    numbers = {wide: bench.add(TABLE, KINDS[wide]) for wide in sorted(roles)}
    for number in numbers.values():
        update(bench, number)
    for offset, size, value in done:
        data = bytearray(bench.memory[TABLE * FRAME : (TABLE + 1) * FRAME])
        data[offset : offset + size] = value.to_bytes(size, "little")
        result = lib.xd_guest_store(bench.shadow, TABLE * FRAME + offset, value, size, bench.need)
        assert result == lib.XD_STORE_DONE
        assert bench.memory[TABLE * FRAME : (TABLE + 1) * FRAME] == data
        for wide, number in numbers.items():
            assert bench.entries(number) == twins.leaf(bench.page(TABLE), wide, bench.state)


def test_a_store_to_an_unsynced_table_leaves_its_shadow_behind() -> None:
    bench, number = make([0] * ENTRIES, False)
    update(bench, number)
    lib.xd_set_unsynced(bench.shadow, TABLE, 1)
    assert lib.xd_guest_store(bench.shadow, TABLE * FRAME, 0x6003, 8, bench.need) == lib.XD_STORE_LATE
    assert bench.page(TABLE)[0] == 0x6003
    assert bench.entries(number)[0] == 0


def test_a_store_to_a_frame_without_shadow() -> None:
    bench, _ = make([0] * ENTRIES, False)
    assert lib.xd_guest_store(bench.shadow, 6 * FRAME + 3, 0xABCD, 2, bench.need) == lib.XD_STORE_UNTRACKED
    assert bench.page(6)[0] == 0xABCD << 24


def test_a_store_to_a_directory_is_for_the_caller() -> None:
    bench, leaf = make([0] * ENTRIES, False)
    update(bench, leaf)
    bench.add(TABLE, 2)
    assert lib.xd_guest_store(bench.shadow, TABLE * FRAME, 0x6003, 8, bench.need) == lib.XD_STORE_DIRECTORY
    assert bench.page(TABLE)[0] == 0x6003
    assert bench.entries(leaf)[0] == 0


@pytest.mark.parametrize(
    ("gpa", "size", "error"),
    [
        (7 * FRAME, 8, errno.ENOENT),
        (LIMIT * FRAME, 8, errno.ENOENT),
        ((1 << 64) - 8, 8, errno.ENOENT),
        (CHUNK * FRAME, 8, errno.EAGAIN),
        (TABLE * FRAME + FRAME - 4, 8, errno.EINVAL),
        (TABLE * FRAME, 9, errno.EINVAL),
    ],
)
def test_stores_that_cannot_be_done(gpa: int, size: int, error: int) -> None:
    bench, number = make([0x6003] * ENTRIES, False, known=[0])
    update(bench, number)
    before = bytes(bench.memory)
    assert lib.xd_guest_store(bench.shadow, gpa, 0x4141_4141_4141_4141, size, bench.need) == -error
    assert bytes(bench.memory) == before
    assert bench.entries(number) == [0x6003] * ENTRIES
    assert bench.needed() == ({1} if error == errno.EAGAIN else set())


def test_a_store_that_names_an_unknown_frame_is_performed_and_its_table_unread() -> None:
    bench, number = make(page_of({3: 0x6003}), False, known=[0])
    update(bench, number)
    stored = pte(CHUNK)
    assert lib.xd_guest_store(bench.shadow, TABLE * FRAME + 24, stored, 8, bench.need) == lib.XD_STORE_LEAF
    assert bench.page(TABLE)[3] == stored
    assert bench.entries(number)[3] == 0
    assert bench.table(number).flags & lib.XD_TABLE_UNREAD
    assert bench.shadow.stale_tables == 1
    bench.query(1)
    update(bench, number)
    assert bench.entries(number)[3] == stored
    assert not bench.table(number).flags & lib.XD_TABLE_UNREAD
    assert bench.shadow.stale_tables == 0
