"""Leaf tables in C against their twins in tests/support/twins.py: translating, following changes, stores."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import twins
from tests.support.arena import CHUNK, ENTRIES, FRAME, Arena, page_of
from tests.support.examples import examples
from tests.support.pages import SLOTS, pages, ranges
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


def make(page: Sequence[int], wide: bool, known: Sequence[int] | None = None) -> tuple[Arena, int]:
    """The table's shadow is new, in a page that another one left."""
    arena = Arena(LIMIT, holes=HOLES, known=known)
    arena.put(TABLE, page)
    other = arena.add(TABLE + 1, 1)
    arena.set_entries(other, [twins.PENDING, 0x6003] * (ENTRIES // 2))
    lib.xd_remove(arena.shadow, other)
    return arena, arena.add(TABLE, KINDS[wide])


def update(arena: Arena, number: int, slots: range = WHOLE) -> int:
    return int(lib.xd_leaf_update(arena.shadow, number, slots.start, slots.stop - 1, arena.need))


def pending(entries: Sequence[int]) -> int:
    return sum(entry == twins.PENDING for entry in entries)


@examples(40)
@given(page=some_pages, wide=kinds)
def test_a_new_table(page: list[int], wide: bool) -> None:
    arena, number = make(page, wide)
    expected = twins.leaf(page, wide, arena.state)
    assert update(arena, number) == 0
    assert arena.entries(number) == expected
    assert arena.table(number).pending == pending(expected)
    assert arena.shadow.pending_tables == (pending(expected) > 0)
    assert arena.counters.invalid_entries == pending(expected)


@examples(40)
@given(before=some_pages, after=some_pages, kept=st.booleans(), wide=kinds, slots=ranges())
def test_following_a_change(before: list[int], after: list[int], kept: bool, wide: bool, slots: range) -> None:
    """What is asked about follows, all else stays; ``kept``: most entries are as they were, as in real life."""
    if kept:
        after = [after[i] if i % 61 == 0 else before[i] for i in range(ENTRIES)]
    arena, number = make(before, wide)
    update(arena, number)
    old = arena.entries(number)
    arena.put(TABLE, after)
    new = twins.leaf(after, wide, arena.state)
    looked_at = twins.group(slots, wide)
    expected = [new[i] if i in looked_at else old[i] for i in range(ENTRIES)]
    counted = arena.counters.invalid_entries
    assert update(arena, number, slots) == 0
    assert arena.entries(number) == expected
    assert arena.table(number).pending == pending(expected)
    fresh = sum(b == twins.PENDING != a for a, b in zip(old, expected, strict=True))
    assert arena.counters.invalid_entries - counted == fresh


@examples(40)
@given(page=some_pages, wide=kinds, known=st.sets(st.sampled_from(range(1, 7))), slots=ranges())
def test_what_is_not_known_is_asked_for(page: list[int], wide: bool, known: set[int], slots: range) -> None:
    """The guest's page itself is known, some of what it names is not: that maps nothing until it is queried."""
    arena, number = make(page, wide, known=sorted({0} | known))
    looked_at = twins.group(slots, wide)
    unknown = twins.unknown_of_leaf(page, looked_at, wide, arena.state)
    expected = twins.leaf(page, wide, arena.state)
    result = update(arena, number, slots)
    assert (result == -errno.EAGAIN) == bool(unknown)
    assert arena.needed() == {frame // CHUNK for frame in unknown}
    assert [arena.entries(number)[i] for i in looked_at] == [expected[i] for i in looked_at]
    for chunk in arena.needed():
        arena.query(chunk)
    arena.need.count = 0
    assert update(arena, number, slots) >= 0
    expected = twins.leaf(page, wide, arena.state)
    assert [arena.entries(number)[i] for i in looked_at] == [expected[i] for i in looked_at]


@examples(40)
@given(page=some_pages, wide=kinds, gone=st.sets(st.sampled_from(FRAMES)), back=st.sets(st.sampled_from(HOLES)))
def test_frames_that_come_and_go(page: list[int], wide: bool, gone: set[int], back: set[int]) -> None:
    """A new epoch: every entry is looked at again, those too that say what they said before."""
    arena, number = make(page, wide)
    update(arena, number)
    arena.holes = (arena.holes | gone) - back - {TABLE}
    lib.xd_frames_invalidate(arena.frames)
    lib.xd_new_epoch(arena.shadow)
    for chunk in range(7):
        arena.query(chunk)
    update(arena, number)
    expected = twins.leaf(page, wide, arena.state)
    assert arena.entries(number) == expected
    assert arena.table(number).pending == pending(expected)
    assert arena.shadow.stale_tables == 0


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("slots", [WHOLE, range(16, 17)], ids=["whole", "one"])
def test_a_table_whose_page_is_gone_maps_nothing(wide: bool, slots: range) -> None:
    arena, number = make([0x6003, 0x7003] * 256, wide)
    update(arena, number)
    arena.holes.add(TABLE)
    arena.query(0)
    assert update(arena, number, slots) == -errno.ENOENT
    assert arena.entries(number) == [0] * ENTRIES
    assert arena.table(number).pending == 0
    assert arena.shadow.pending_tables == 0


def test_a_table_whose_page_was_never_asked_about_is_asked_for() -> None:
    arena, number = make([0x6003] * ENTRIES, False, known=[1])
    assert update(arena, number) == -errno.EAGAIN
    assert arena.needed() == {0}


@examples(40)
@given(some=st.lists(st.tuples(some_pages, kinds), min_size=1, max_size=4), known=st.sets(st.sampled_from(range(1, 7))))
def test_many_tables(some: list[tuple[list[int], bool]], known: set[int]) -> None:
    """Those that need more knowledge come to the front, in order, until all is known; what died is passed over."""
    arena = Arena(LIMIT, holes=HOLES, known=sorted({0} | known))
    numbers = []
    for gfn, (page, wide) in enumerate(some, TABLE + 20):
        arena.put(gfn, page)
        numbers.append(arena.add(gfn, KINDS[wide]))
    dead = arena.add(99, 1)
    lib.xd_remove(arena.shadow, dead)
    directory = arena.add(98, 2)
    listed = lib_numbers([dead, *numbers, directory])
    lacking = [
        number
        for number, (page, wide) in zip(numbers, some, strict=True)
        if twins.unknown_of_leaf(page, WHOLE, wide, arena.state)
    ]
    arena.need.count = 0
    left = lib.xd_leaf_update_many(arena.shadow, listed, len(numbers) + 2, arena.need)
    assert list(listed[0:left]) == lacking
    for chunk in arena.needed():
        arena.query(chunk)
    arena.need.count = 0
    assert lib.xd_leaf_update_many(arena.shadow, listed, left, arena.need) == 0
    for number, (page, wide) in zip(numbers, some, strict=True):
        assert arena.entries(number) == twins.leaf(page, wide, arena.state)


def lib_numbers(numbers: list[int]) -> CData:
    return ffi.new("uint32_t[]", numbers)


def test_more_chunks_than_can_be_listed_at_once() -> None:
    """Each entry names another chunk: the list holds 512, and calling again comes to an end."""
    arena = Arena(1200 * CHUNK, known=[0])
    numbers = []
    for which in range(2):
        first = 1 + which * ENTRIES
        arena.put(TABLE + which, [(first + i) * CHUNK << 12 | 3 for i in range(ENTRIES)])
        numbers.append(arena.add(TABLE + which, 1))
    listed = lib_numbers(numbers)
    rounds = 0
    left = 2
    while left:
        arena.need.count = 0
        left = lib.xd_leaf_update_many(arena.shadow, listed, left, arena.need)
        for chunk in arena.needed():
            arena.query(chunk)
        rounds += 1
    assert rounds == 3
    for number in numbers:
        assert all(entry & 1 for entry in arena.entries(number))


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
    arena = Arena(LIMIT, holes=HOLES)
    arena.put(TABLE, page)
    numbers = {wide: arena.add(TABLE, KINDS[wide]) for wide in sorted(roles)}
    for number in numbers.values():
        update(arena, number)
    for offset, size, value in done:
        data = bytearray(arena.memory[TABLE * FRAME : (TABLE + 1) * FRAME])
        data[offset : offset + size] = value.to_bytes(size, "little")
        result = lib.xd_guest_store(arena.shadow, TABLE * FRAME + offset, value, size, arena.need)
        assert result == lib.XD_STORE_DONE
        assert arena.memory[TABLE * FRAME : (TABLE + 1) * FRAME] == data
        for wide, number in numbers.items():
            assert arena.entries(number) == twins.leaf(arena.page(TABLE), wide, arena.state)


def test_a_store_to_an_unsynced_table_leaves_its_shadow_behind() -> None:
    arena, number = make([0] * ENTRIES, False)
    update(arena, number)
    lib.xd_set_unsynced(arena.shadow, TABLE, 1)
    assert lib.xd_guest_store(arena.shadow, TABLE * FRAME, 0x6003, 8, arena.need) == lib.XD_STORE_DONE
    assert arena.page(TABLE)[0] == 0x6003
    assert arena.entries(number)[0] == 0


def test_a_store_to_a_frame_without_shadow() -> None:
    arena, _ = make([0] * ENTRIES, False)
    assert lib.xd_guest_store(arena.shadow, 6 * FRAME + 3, 0xABCD, 2, arena.need) == lib.XD_STORE_UNTRACKED
    assert arena.page(6)[0] == 0xABCD << 24


def test_a_store_to_a_directory_is_for_the_caller() -> None:
    arena, leaf = make([0] * ENTRIES, False)
    update(arena, leaf)
    arena.add(TABLE, 2)
    assert lib.xd_guest_store(arena.shadow, TABLE * FRAME, 0x6003, 8, arena.need) == lib.XD_STORE_DIRECTORY
    assert arena.page(TABLE)[0] == 0x6003
    assert arena.entries(leaf)[0] == 0


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
    arena, number = make([0x6003] * ENTRIES, False, known=[0])
    update(arena, number)
    before = bytes(arena.memory)
    assert lib.xd_guest_store(arena.shadow, gpa, 0x4141_4141_4141_4141, size, arena.need) == -error
    assert bytes(arena.memory) == before
    assert arena.entries(number) == [0x6003] * ENTRIES
    assert arena.needed() == ({1} if error == errno.EAGAIN else set())


def test_a_store_may_be_repeated_after_learning_what_it_names() -> None:
    arena, number = make(page_of({3: 0x6003}), False, known=[0])
    update(arena, number)
    stored = CHUNK << 12 | 3
    assert lib.xd_guest_store(arena.shadow, TABLE * FRAME + 24, stored, 8, arena.need) == -errno.EAGAIN
    assert arena.page(TABLE)[3] == stored
    assert arena.entries(number)[3] == 0
    arena.query(1)
    assert lib.xd_guest_store(arena.shadow, TABLE * FRAME + 24, stored, 8, arena.need) == lib.XD_STORE_DONE
    assert arena.entries(number)[3] == stored
