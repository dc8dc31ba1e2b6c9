"""Reading shadows in C, run by run and page by page, against a twin that takes every page in its hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import twins
from tests.support.core_bench import CoreBench, page_of
from tests.support.examples import examples
from tests.support.pages import slots
from tests.support.tables import ENTRIES, pte
from xengt_dm._core import ffi, lib

LEAF_FLAGS = (0x001, 0x003, 0x009, 0x013, 0x083, 0x09B)
LARGE_FLAGS = (0x081, 0x083, 0x1083, 0x009B)
#: Few frames and in a row, so that runs go on over table ends by chance.
leaf_entries = st.builds(lambda frame, flags: frame << 12 | flags, st.integers(0, 4), st.sampled_from(LEAF_FLAGS))
large_entries = st.builds(lambda frame, flags: frame << 21 | flags, st.integers(0, 2), st.sampled_from(LARGE_FLAGS))


@st.composite
def leaf_pages(draw: st.DrawFn) -> list[int]:
    style = draw(st.sampled_from(["empty", "counting", "constant", "runs"]))
    page = [0] * ENTRIES
    if style == "counting":
        first = draw(st.sampled_from([0, 512, 1024])) << 12 | draw(st.sampled_from(LEAF_FLAGS))
        page = [first + (i << 12) for i in range(ENTRIES)]
    elif style == "constant":
        page = [draw(leaf_entries)] * ENTRIES
    elif style == "runs":
        rng = random.Random(draw(st.integers(0, 1 << 32)))
        for i in range(1, ENTRIES):
            page[i] = rng.choice([0, page[i - 1] + 0x1000 if page[i - 1] else 0x5003] if i % 64 else [0x9003, 0])
    for slot, entry in draw(st.dictionaries(slots, leaf_entries | st.sampled_from([0, 2]), max_size=5)).items():
        page[slot] = entry
    return page


@st.composite
def spaces(draw: st.DrawFn, level: int) -> tuple[CoreBench, list[int]]:
    """A bench with tables that share tables, and the roots of a space in it. Few links, so that a twin can follow."""
    bench = CoreBench(1)
    below = [bench.add(100 + i, 1) for i in range(draw(st.integers(1, 3)))]
    for number in below:
        bench.set_entries(number, draw(leaf_pages()))
    for at in range(2, level + 1):
        tables = [bench.add(100 * at + i, at) for i in range(draw(st.integers(1, 2)))]
        links = st.sampled_from(below).map(lambda number: pte(number))
        other = st.sampled_from([0, 2, 4]) if at > 2 else large_entries | st.just(2)
        for number in tables:
            page = page_of(draw(st.dictionaries(slots, links, max_size=3)))
            if draw(st.booleans()):
                page[3:6] = [draw(links)] * 3
            for slot, entry in draw(st.dictionaries(slots, other, max_size=3)).items():
                page[slot] = entry
            bench.set_entries(number, page)
        below = tables
    return bench, [draw(st.sampled_from([0, *below])) for _ in range(1 if level == 4 else 4)]


@contextmanager
def walk(bench: CoreBench, roots: list[int], level: int) -> Iterator[Any]:
    walker = lib.xd_walk_new(bench.shadow, ffi.new("uint32_t[4]", roots), level)
    try:
        yield walker
    finally:
        lib.xd_walk_free(walker)


def counted(walker: Any, looks: int = 1 << 20) -> int:
    runs = ffi.new("uint64_t *")
    while not lib.xd_walk_count(walker, looks, runs):
        pass
    return int(runs[0])


def count_runs(bench: CoreBench, roots: list[int], level: int) -> int:
    with walk(bench, roots, level) as walker:
        return counted(walker)


def listed(
    bench: CoreBench, roots: list[int], level: int, looks: int = 1 << 20, capacity: int = 1 << 12
) -> list[twins.Run]:
    """What a walk lists that goes on by so many entries, or runs, at a time."""
    found = []
    ended = ffi.new("int *")
    runs = ffi.new("xd_run[]", capacity + 1)
    runs[capacity].va = 0xDEAD
    with walk(bench, roots, level) as walker:
        count = counted(walker, looks)
        while not ended[0]:
            found += [as_run(run) for run in runs[0 : lib.xd_walk_list(walker, looks, runs, capacity, ended)]]
    assert runs[capacity].va == 0xDEAD
    assert len(found) == count
    return found


def as_run(run) -> twins.Run:  # type: ignore[no-untyped-def]
    return twins.Run(run.va, run.length, run.gpa, run.writable, run.cache)


def all_pages(bench: CoreBench, roots: list[int], level: int) -> list[twins.Run]:
    span = 1 << 12 + 9 * level
    return [
        page
        for which, root in enumerate(roots)
        if root
        for page in twins.pages(bench.entries, root, level, which * span)
    ]


@pytest.mark.parametrize("level", [2, 4])
@examples(20)
@given(data=st.data())
def test_runs(level: int, data: st.DataObject) -> None:
    bench, roots = data.draw(spaces(level))
    pages = all_pages(bench, roots, level)
    assert listed(bench, roots, level) == twins.runs(iter(pages))
    assert listed(bench, roots, level, looks=100, capacity=3) == twins.runs(iter(pages))


@pytest.mark.parametrize("level", [2, 4])
@examples(20)
@given(data=st.data())
def test_one_address(level: int, data: st.DataObject) -> None:
    bench, roots = data.draw(spaces(level))
    pages = {page.va: page for page in all_pages(bench, roots, level)}
    numbers = ffi.new("uint32_t[4]", roots)
    some = data.draw(st.lists(st.sampled_from(sorted(pages) or [0]), max_size=4))
    near = [va + step for va in some for step in (-0x1000, 0, 0x1000, 0x200000)]
    beyond = [(1 << 48) - 1, 1 << 48, (1 << 64) - 1, 1 << 32]
    for va in (va for va in [*near, *beyond] if va >= 0):
        inside = va + data.draw(st.sampled_from([0, 1, 0xFFF])) if va % 0x1000 == 0 else va
        found = lib.xd_resolve(bench.shadow, numbers, level, inside)
        page = pages.get(inside & ~0xFFF)
        assert (as_run(found) if found.length else None) == page


def test_an_empty_space() -> None:
    bench = CoreBench(1)
    assert listed(bench, [0], 4) == []
    assert listed(bench, [0, 0, 0, 0], 2) == []
    assert lib.xd_resolve(bench.shadow, ffi.new("uint32_t[4]"), 4, 0x1000).length == 0


def chain(bench: CoreBench, leaf: list[int]) -> list[int]:
    """Four tables, each full of links to the next."""
    numbers = [bench.add(10 + level, level) for level in (1, 2, 3, 4)]
    bench.set_entries(numbers[0], leaf)
    for below, above in itertools.pairwise(numbers):
        bench.set_entries(above, [pte(below)] * ENTRIES)
    return numbers


def test_four_tables_that_map_two_to_the_36_pages() -> None:
    """A scratch page everywhere: counted in no time, because each table is looked at once."""
    bench = CoreBench(1)
    root = chain(bench, [0x7003] * ENTRIES)[-1]
    assert count_runs(bench, [root], 4) == 1 << 36
    page = lib.xd_resolve(bench.shadow, ffi.new("uint32_t[4]", [root]), 4, 0x7FFF_1234_5678)
    assert as_run(page) == twins.Run(0x7FFF_1234_5000, 0x1000, 0x7000, 1, 0)


@pytest.mark.parametrize(
    ("leaf", "alone", "seam"),
    [
        ([pte(i) for i in range(ENTRIES)], 1, 0),
        (page_of({0: 0x1003, 511: 0x0003}), 2, 1),  # the last page of a table and the first of the next are one run
        (page_of({0: 0x5003, 511: 0x0003}), 2, 0),
        (page_of({0: 0x1003, 511: 0x0001}), 2, 0),
        (page_of({511: 0x0003}), 1, 0),
    ],
)
def test_runs_over_the_ends_of_tables(leaf: list[int], alone: int, seam: int) -> None:
    """One leaf table at every place: ``alone`` runs in it, ``seam`` of them going on in the next."""
    bench = CoreBench(1)
    numbers = chain(bench, leaf)
    for tables, level in ((ENTRIES, 2), (ENTRIES**3, 4)):
        assert count_runs(bench, [numbers[level - 1]], level) == alone * tables - seam * (tables - 1)
    assert listed(bench, [numbers[1], 0, 0, 0], 2) == twins.runs(iter(all_pages(bench, [numbers[1], 0, 0, 0], 2)))


def test_every_second_page_everywhere() -> None:
    """2^35 runs, none of them joined."""
    bench = CoreBench(1)
    assert count_runs(bench, [chain(bench, [0x7003, 0] * (ENTRIES // 2))[-1]], 4) == 1 << 35


def test_tables_that_are_cleared_after_they_were_counted() -> None:
    """2^27 ways lead to a leaf of two runs when it is listed, which is empty from the second look on."""
    bench = CoreBench(1)
    numbers = chain(bench, page_of({3: 0x1003, 5: 0x7003}))
    bench.set_entries(numbers[3], page_of({0: pte(numbers[2])}))
    bench.set_entries(numbers[2], page_of({0: pte(numbers[1])}))
    runs, ended = ffi.new("xd_run[]", 8), ffi.new("int *")
    with walk(bench, [numbers[3]], 4) as walker:
        assert counted(walker) == 2 * ENTRIES
        for number in (2, 3):
            bench.set_entries(numbers[number], [pte(numbers[number - 1])] * ENTRIES)
        assert lib.xd_walk_list(walker, 1 << 20, runs, 8, ended) == 8
        bench.set_entries(numbers[0], [0] * ENTRIES)
        assert lib.xd_walk_list(walker, 1 << 16, runs, 8, ended) <= 2
        assert ended[0]


def test_a_table_whose_number_was_given_to_another_one() -> None:
    """What was summarised of the old one does not count, and the walk does not go on in the new one."""
    bench = CoreBench(1)
    leaf, directory = bench.add(100, 1), bench.add(200, 2)
    bench.set_entries(leaf, [0x5003] * ENTRIES)
    bench.set_entries(directory, page_of({0: pte(leaf), 9: pte(leaf)}))
    runs, ended = ffi.new("xd_run[]", 2000), ffi.new("int *")
    with walk(bench, [directory, 0, 0, 0], 2) as walker:
        assert counted(walker) == 2 * ENTRIES
        assert lib.xd_walk_list(walker, 100, runs, 2000, ended) == 98
        bench.shadow.tables[leaf].gfn = 101
        bench.set_entries(leaf, page_of({7: 0x9003}))
        assert lib.xd_walk_list(walker, 1 << 20, runs, 2000, ended) == 2
        assert [as_run(run).gpa for run in runs[0:2]] == [0x5000, 0x9000]
