"""Reading shadows in C, run by run and page by page, against a twin that takes every page in its hand."""

from __future__ import annotations

import itertools
import random

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


def listed(bench: CoreBench, roots: list[int], level: int) -> list[twins.Run]:
    numbers = ffi.new("uint32_t[4]", roots)
    count = lib.xd_count_runs(bench.shadow, numbers, level)
    runs = ffi.new("xd_run[]", count + 1)
    runs[count].va = 0xDEAD
    assert lib.xd_list_runs(bench.shadow, numbers, level, runs) == count
    assert runs[count].va == 0xDEAD
    return [as_run(run) for run in runs[0:count]]


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
    root = ffi.new("uint32_t[4]", [chain(bench, [0x7003] * ENTRIES)[-1]])
    assert lib.xd_count_runs(bench.shadow, root, 4) == 1 << 36
    page = lib.xd_resolve(bench.shadow, root, 4, 0x7FFF_1234_5678)
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
        root = ffi.new("uint32_t[4]", [numbers[level - 1]])
        assert lib.xd_count_runs(bench.shadow, root, level) == alone * tables - seam * (tables - 1)
    assert listed(bench, [numbers[1], 0, 0, 0], 2) == twins.runs(iter(all_pages(bench, [numbers[1], 0, 0, 0], 2)))


def test_every_second_page_everywhere() -> None:
    """2^35 runs, none of them joined."""
    bench = CoreBench(1)
    root = ffi.new("uint32_t[4]", [chain(bench, [0x7003, 0] * (ENTRIES // 2))[-1]])
    assert lib.xd_count_runs(bench.shadow, root, 4) == 1 << 35
