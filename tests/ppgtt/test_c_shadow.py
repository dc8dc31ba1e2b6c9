"""The shadows in C against a dictionary: finding, adding, freeing, and how long the way to a shadow is."""

from __future__ import annotations

import collections
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.core_bench import CoreBench
from tests.support.tables import ENTRIES, pte
from xengt_dm._core import ffi, lib

QUOTA = 12
SPLIT = 1 | 16
kinds = st.sampled_from([1, 2, 3, 4, 9])
gfns = st.sampled_from([0, 1, 2, 3, 1 << 33, (1 << 34) - 1])


class ShadowMachine(RuleBasedStateMachine):
    """References are held by the test, and by the entries that it links."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = CoreBench(1, max_tables=QUOTA)
        self.shadow = self.bench.shadow
        #: By number: (frame, kind), and how many references the test holds.
        self.tables: dict[int, tuple[int, int]] = {}
        self.held: collections.Counter[int] = collections.Counter()
        self.unsynced: set[int] = set()
        self.links: dict[tuple[int, int], int] = {}

    def numbers(self) -> list[int]:
        return sorted(self.tables)

    def references(self, number: int) -> int:
        return self.held[number] + sum(child == number for child in self.links.values())

    @rule(gfn=gfns, kind=kinds | st.just(SPLIT))
    def add(self, gfn: int, kind: int) -> None:
        if kind != SPLIT and (gfn, kind) in self.tables.values():
            return
        number = lib.xd_add(self.shadow, gfn, kind)
        assert (number == 0) == (len(self.tables) == QUOTA)
        if number:
            assert number not in self.tables
            # The page of a leaf table is cleared when it is first used; until then it holds what a freed table left.
            assert bool(self.shadow.tables[number].flags & lib.XD_TABLE_BLANK) == (kind & lib.XD_LEVEL_MASK == 1)
            lib.xd_clear_blank(self.shadow, number)
            assert self.bench.entries(number) == [0] * ENTRIES
            self.tables[number] = gfn, kind
            lib.xd_ref(self.shadow, number)
            self.held[number] += 1

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def ref(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.numbers()))
        lib.xd_ref(self.shadow, number)
        self.held[number] += 1

    @precondition(lambda self: +self.held)
    @rule(data=st.data(), now=st.booleans())
    def unref(self, data: st.DataObject, now: bool) -> None:
        number = data.draw(st.sampled_from(sorted(+self.held)))
        lib.xd_unref(self.shadow, number)
        self.held[number] -= 1
        if self.tables[number][1] == SPLIT and not self.references(number):
            self.forget(number)
        if now:
            self.free()

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), slot=st.integers(0, 511))
    def link(self, data: st.DataObject, slot: int) -> None:
        """An entry of a live directory names a live table one level down; never replacing another."""
        parents = [number for number in self.numbers() if self.tables[number][1] in (2, 3, 4)]
        parents = [number for number in parents if self.references(number) and (number, slot) not in self.links]
        if not parents:
            return
        parent = data.draw(st.sampled_from(parents))
        level = self.tables[parent][1] - 1
        children = [number for number in self.numbers() if self.tables[number][1] & 7 == level]
        if children:
            child = data.draw(st.sampled_from(children))
            self.shadow.pages[parent * ENTRIES + slot] = pte(child)
            lib.xd_ref(self.shadow, child)
            self.links[parent, slot] = child

    @precondition(lambda self: self.tables)
    @rule(gfn=gfns, unsynced=st.booleans())
    def set_unsynced(self, gfn: int, unsynced: bool) -> None:
        lib.xd_set_unsynced(self.shadow, gfn, unsynced)
        of_frame = {number for number, (frame, kind) in self.tables.items() if frame == gfn and kind != SPLIT}
        self.unsynced = self.unsynced | of_frame if unsynced else self.unsynced - of_frame

    @rule(capacity=st.sampled_from([1, 512]))
    def free(self, capacity: int = 512) -> None:
        """What nobody refers to goes, and what only it referred to.

        Frames without a shadow are said once, if they are protected.
        """
        unsynced = {self.tables[number][0] for number in self.unsynced}
        before = {frame for frame, kind in self.tables.values() if kind != SPLIT} - unsynced
        while dead := [number for number in self.numbers() if not self.references(number)]:
            for number in dead:
                self.forget(number)
        after = {frame for frame, kind in self.tables.values() if kind != SPLIT}
        freed: list[int] = []
        gfns = ffi.new("uint64_t[]", capacity)
        while self.shadow.first_unreferenced:
            freed.extend(gfns[0 : lib.xd_free_unreferenced(self.shadow, gfns, capacity)])
        assert sorted(freed) == sorted(before - after)

    def forget(self, number: int) -> None:
        del self.tables[number]
        self.held.pop(number, None)
        self.unsynced.discard(number)
        for parent, slot in [place for place in self.links if place[0] == number]:
            del self.links[parent, slot]

    @invariant()
    def same(self) -> None:
        assert self.bench.numbers_in_use() == self.numbers()
        assert self.bench.references() == {number: self.references(number) for number in self.numbers()}
        assert self.shadow.live == self.bench.counters.tables == len(self.tables)
        assert set(self.bench.unsynced_tables()) == self.unsynced

    @invariant()
    def found(self) -> None:
        by_key = {key: number for number, key in self.tables.items() if key[1] != SPLIT}
        for gfn in (0, 1, 2, 3, 1 << 33, (1 << 34) - 1):
            of_frame = [(kind & 7, number) for (frame, kind), number in by_key.items() if frame == gfn]
            first = lib.xd_first_of_frame(self.shadow, gfn)
            assert bool(first) == bool(of_frame)
            if first:
                assert self.shadow.tables[first].kind & 7 == max(of_frame)[0]
            for kind in (1, 2, 3, 4, 9, SPLIT):
                assert lib.xd_find(self.shadow, gfn, kind) == by_key.get((gfn, kind), 0)


TestShadowMachine = ShadowMachine.TestCase
TestShadowMachine.settings = settings(max_examples=25, stateful_step_count=40)


FRAMES_IN_USE = 20_000


@pytest.mark.parametrize("stride", [1, 2, 16, 512, 513, 1 << 18, "random", "most of them at the end"])
def test_the_way_to_a_shadow_does_not_grow_with_their_number(stride: int | str) -> None:
    """Counted, not timed: shadows that a look-up passes, on average and at worst, however the frames are laid out."""
    bench = CoreBench(1, max_tables=FRAMES_IN_USE)
    rng = random.Random(1)
    if stride == "random":
        frames = rng.sample(range(1 << 34), FRAMES_IN_USE)
    elif isinstance(stride, str):
        frames = [(1 << 34) - 1 - i * i % FRAMES_IN_USE * 7 - i for i in range(FRAMES_IN_USE)]
    else:
        frames = [i * stride % (1 << 34) + i * stride // (1 << 34) for i in range(FRAMES_IN_USE)]
    frames = list(dict.fromkeys(frames))
    for gfn in frames:
        assert lib.xd_add(bench.shadow, gfn, 1)
    lengths = []
    for bucket in bench.shadow.buckets[0 : bench.shadow.bucket_mask + 1]:
        length, number = 0, bucket
        while number:
            length += 1
            number = bench.shadow.tables[number].next_in_bucket
        lengths.append(length)
    assert sum(lengths) == len(frames)
    passed = sum(length * (length + 1) // 2 for length in lengths) / len(frames)
    assert passed < 2
    assert max(lengths) <= 8


def test_shadows_of_one_frame_are_few() -> None:
    """The chain of one frame is bounded by the kinds there are, so that it cannot grow either."""
    bench = CoreBench(1)
    for kind in (1, 9, 2, 3, 4):
        bench.add(7, kind)
    number, levels = lib.xd_first_of_frame(bench.shadow, 7), []
    while number:
        levels.append(bench.table(number).kind & 7)
        number = bench.table(number).next_of_frame
    assert levels == [4, 3, 2, 1, 1]
