"""The shadow engine under anything that guests, GPUs and hosts do, strict and relaxed in lock-step."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.engine_bench import unsynced_frames
from tests.support.examples import examples
from tests.support.lockstep import Key, Lockstep
from tests.support.tables import FRAME, pte
from xengt_dm.ppgtt.space import Mode

#: Tables are made of these frames; entries name them mostly. 7 and 8 may be refused by the hypervisor.
TABLES = (1, 2, 3, 4, 5, 6, 7, 8)
SLOTS = (0, 1, 2, 16, 17, 511)
FIRST: Key = (Mode.L4, (1 << 12,))
FLAGS = (0x003, 0x003, 0x001, 0x013, 0x083, 0x803, 0x883, 0x1083, 0x000)
VALUES = (0, (1 << 64) - 1, 0x4141414141414141)

frames = st.sampled_from(TABLES)
named = st.builds(
    lambda frame, flags, high: frame << 12 | flags | high << 46,
    frames | frames | st.sampled_from([0, 9, 511, 512, 600, 1023, 1 << 33]),
    st.sampled_from(FLAGS),
    st.sampled_from([0, 0, 0, 0x3FFFF]),
)
entries = named | named | named | st.sampled_from(VALUES)
roots = st.sampled_from([frame << 12 for frame in TABLES[:4]] + [0, 9 << 12])
keys: st.SearchStrategy[Key] = st.tuples(st.just(Mode.L4), st.tuples(roots)) | st.tuples(
    st.just(Mode.L3), st.tuples(roots, roots, st.just(0), st.just(0))
)


class EngineMachine(RuleBasedStateMachine):
    #: Small enough to stand in the way, or not.
    quotas: ClassVar[st.SearchStrategy[int]] = st.just(1024)

    @initialize(data=st.data(), count=st.sampled_from([12, 600, 1100]), generation=st.sampled_from([8, 9]))
    def start(self, data: st.DataObject, count: int, generation: int) -> None:
        refused = data.draw(st.sampled_from([frozenset(), frozenset(), frozenset({7}), frozenset({7, 8})]))
        self.both = Lockstep(count, generation, data.draw(self.quotas), refused)
        self.live: dict[Key, int] = {}
        prepared = {(gfn, 0): pte(gfn + 1) for gfn in (1, 2, 3, 4)}  # a tree to begin with
        prepared |= data.draw(st.dictionaries(st.tuples(frames, st.sampled_from(SLOTS)), named, max_size=12))
        for (gfn, slot), entry in prepared.items():
            for side in self.both.sides:
                side.guest.put(gfn, slot, entry)
        self.create(data.draw(st.sampled_from([FIRST, FIRST, FIRST]) | keys))

    # What CPUs do

    @rule(gfn=frames, slot=st.sampled_from(SLOTS), value=entries)
    def store_entry(self, gfn: int, slot: int, value: int) -> None:
        for side in self.both.sides:
            side.store(gfn * FRAME + slot * 8, 8, value)

    @rule(parent=st.sampled_from(TABLES[:4]), slot=st.sampled_from(SLOTS[:3]), child=st.sampled_from(TABLES[:5]))
    def link(self, parent: int, slot: int, child: int) -> None:
        self.store_entry(parent, slot, pte(child))

    @rule(
        gfn=frames,
        slot=st.sampled_from(SLOTS),
        shift=st.integers(0, 7),
        size=st.sampled_from([1, 2, 4, 8]),
        value=entries,
        half=st.booleans(),
    )
    def store_part(self, gfn: int, slot: int, shift: int, size: int, value: int, half: bool) -> None:
        offset = min(slot * 8 + shift, FRAME - size)
        value = value >> (32 if half else 0) & (1 << 8 * size) - 1
        for side in self.both.sides:
            side.store(gfn * FRAME + offset, size, value)

    @rule(gfn=frames, first=st.sampled_from(SLOTS), count=st.sampled_from([3, 40, 512]), value=entries)
    def fill(self, gfn: int, first: int, count: int, value: int) -> None:
        for slot in range(first, min(first + count, 512)):
            for side in self.both.sides:
                side.store(gfn * FRAME + slot * 8, 8, value)

    # What the driver announces

    @rule(key=keys)
    def create(self, key: Key) -> None:
        for side in self.both.sides:
            side.engine.create_space(*key)
        self.live[key] = self.live.get(key, 0) + 1

    @rule(key=keys)
    def destroy_any(self, key: Key) -> None:
        for side in self.both.sides:
            assert side.engine.destroy_space(*key) is (key in self.live)
        if key in self.live:
            self.live[key] -= 1
            if not self.live[key]:
                del self.live[key]

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def destroy(self, data: st.DataObject) -> None:
        self.destroy_any(data.draw(st.sampled_from(list(self.live))))

    @rule(on=st.booleans())
    def set_64k_pages(self, on: bool) -> None:
        self.both.register = 0xF if on else 0
        self.both.out_of_date = True
        for side in self.both.sides:
            side.engine.set_64k_pages(on)

    # What the GPU does

    @rule(key=keys)
    def submit_any(self, key: Key) -> None:
        for side in self.both.sides:
            side.engine.submit(*key)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        self.both.look(data.draw(st.sampled_from(list(self.live))))

    @rule()
    def look_at_all(self) -> None:
        self.both.look_at_all()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), slots=st.tuples(*[st.sampled_from(SLOTS)] * 5), value=entries)
    def gpu_store(self, data: st.DataObject, slots: tuple[int, ...], value: int) -> None:
        """Where a walk of the guest's tables says; tables are as good a target as anything."""
        key = data.draw(st.sampled_from(list(self.live)))
        va = slots[4] * 8
        for level in range(4 if key[0] is Mode.L4 else 2):
            va |= slots[level] << 12 + 9 * level
        mode, root = key[0].value, list(key[1]) if len(key[1]) > 1 else key[1][0]
        page = self.both.walker(self.both.strict).resolve(mode, root, va)
        done = [side.engine.gpu_store(*key, va, value) for side in self.both.sides]
        if self.both.max_tables >= 1024:
            assert done == [bool(page and page.writable)] * 2
        elif page and done[0] != done[1]:  # the quota left it out on one side; a CPU does it instead
            self.both.sides[done.index(False)].store(page.gpa + va % FRAME, 8, value)

    # What comes and goes

    @rule(gfn=frames | st.sampled_from([0, 9, 511, 512]))
    def remove(self, gfn: int) -> None:
        self.both.out_of_date = True
        for side in self.both.sides:
            if gfn < side.guest.frames and gfn not in side.guest.holes:
                side.guest.remove(gfn)
                side.engine.frames_changed()

    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        holes = sorted(self.both.strict.guest.holes)
        if holes:
            gfn = data.draw(st.sampled_from(holes))
            self.both.out_of_date = True
            for side in self.both.sides:
                side.guest.add(gfn)

    @rule(gfn=frames)
    def replace(self, gfn: int) -> None:
        """Given back and had again, before anybody could look: zero, and unprotected."""
        self.remove(gfn)
        for side in self.both.sides:
            side.guest.add(gfn)

    @rule()
    def settle(self) -> None:
        for side in self.both.sides:
            side.engine.settle()

    @rule()
    def quiesce_and_resume(self) -> None:
        self.both.out_of_date = True
        for side in self.both.sides:
            side.engine.quiesce()
            assert (side.guest.protected, unsynced_frames(side.engine)) == (set(), set())
            side.engine.resume()

    @invariant()
    def what_must_always_hold(self) -> None:
        if hasattr(self, "both"):
            self.both.check()

    def teardown(self) -> None:
        if hasattr(self, "both"):
            self.both.look_at_all()
            self.both.check()
            for side in self.both.sides:
                side.end()


class QuotaMachine(EngineMachine):
    """With too few tables for what the guest has."""

    quotas = st.sampled_from([1, 2, 3, 5, 8, 13])


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = examples(20)
TestQuotaMachine = pytest.mark.slow(QuotaMachine.TestCase)
TestQuotaMachine.settings = examples(12)


def test_a_table_that_is_unsynced_in_two_kinds_and_submitted_in_one() -> None:
    """As a table of 4 KiB entries in one space, of 64 KiB ones in the other: a sync of one space reads its own."""
    both = Lockstep(600, 9, 1024)
    both.register = 0xF
    table = 20
    keys = [(Mode.L3, (root << 12, 0, 0, 0)) for root in (10, 11)]
    for side in both.sides:
        side.guest.put(10, 0, pte(table))
        side.guest.put(11, 0, pte(table, 0x803))
        side.engine.set_64k_pages(True)
        for key in keys:
            side.engine.create_space(*key)
            side.engine.submit(*key)
        for slot in (0, 16):  # the frame is protected since it has two tables
            side.store(table * FRAME + slot * 8, 8, pte(32 + slot))
        side.engine.submit(*keys[0])
    for key in reversed(keys):
        both.look(key)
    both.check()
    for side in both.sides:
        side.end()
