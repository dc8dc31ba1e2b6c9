"""Work in slices: other requests are served between two slices, and nobody sees a half of anything.

The interleavings are drawn by Hypothesis; a slice is what a piece of work does from one yield to the next.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.counting_guest import FIRST_LEAF, LEAVES, SCATTERED, CountingGuest, assert_bounded, large
from tests.support.engine_bench import EngineBench, unsynced_frames
from tests.support.examples import examples
from tests.support.lockstep import Lockstep, Side, key_of
from tests.support.tables import ENTRIES, FRAME, pte
from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.leaves import OBSERVED_SLICE
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import Steps, complete, finish

#: Frames 1..15 are tables, and may serve at any level; those from 512 on are data in two chunks of their own.
TABLES = range(1, 16)
FRAMES = 3 * 512
DATA = [20, 21, 600, 601, 1100]
SPACES = [(Mode.L4, (0x1000,)), (Mode.L4, (0x2000,)), (Mode.L3, (0x3000, 0x4000, 0, 0x3000))]
VCPUS = 3

entries = st.one_of(st.sampled_from([0, *map(pte, TABLES)]), st.sampled_from([*map(pte, DATA), pte(512) | 0x80]))
vcpus, nothing = st.integers(0, VCPUS - 1), st.just(0)
events = st.one_of(
    st.tuples(st.just("store"), vcpus, st.sampled_from(TABLES), st.sampled_from([0, 1, 63, 64, 511]), entries),
    st.tuples(st.sampled_from(["create", "destroy", "submit"]), vcpus, st.integers(0, 2), nothing, nothing),
    st.tuples(st.sampled_from(["remove", "add"]), nothing, st.sampled_from([5, 9, 20, 600, 1100]), nothing, nothing),
    st.tuples(st.just("slice"), vcpus, st.integers(1, 12), nothing, nothing),
)
Event = tuple[str, int, int, int, int]


class Interleaving:
    """One engine, and the work that each vCPU waits for."""

    def __init__(self, sync: Sync, max_tables: int) -> None:
        self.lockstep = Lockstep(FRAMES, 8, max_tables)
        self.side: Side = next(side for side in self.lockstep.sides if side.sync is sync)
        self.guest, self.engine = self.side.guest, self.side.engine.steps
        self.work: dict[int, Steps[object]] = {}
        for parent, child in ((1, 3), (2, 3), (3, 5), (4, 9), (5, 9), (6, 10), (7, 11)):
            self.guest.put(parent, 0, pte(child))
            self.guest.put(parent, 64, pte(parent + 4))

    def begin(self, vcpu: int, outcome: Steps[object] | object) -> None:
        if isinstance(outcome, Iterator):
            self.work[vcpu] = outcome
            self.slices(vcpu, 1)

    def slices(self, vcpu: int, count: int) -> None:
        """Do some slices of what a vCPU waits for."""
        for _ in range(count):
            if vcpu in self.work:
                try:
                    next(self.work[vcpu])
                except StopIteration:
                    del self.work[vcpu]
                self.nobody_sees_a_half()

    def nobody_sees_a_half(self) -> None:
        assert not self.engine.shadow.first_unreferenced
        for space in self.engine.spaces:
            found = self.side.engine.audit(space)
            assert (found.mismatches, found.overdue) == (0, 0), key_of(space)

    def event(self, what: str, vcpu: int, which: int, slot: int, entry: int) -> None:
        if what == "slice" or vcpu in self.work:
            self.slices(vcpu, which if what == "slice" else 1)
        elif what == "store":
            if which in self.guest.protected:
                self.begin(vcpu, self.engine.stores.store(which * FRAME + 8 * slot, 8, entry))
            elif which not in self.guest.holes:
                self.guest.put(which, slot, entry)
        elif what == "remove" and which not in self.guest.holes:
            self.guest.remove(which)
            self.engine.stores.frames_changed()
        elif what == "add":
            self.guest.add(which)
        elif what == "create":
            self.begin(vcpu, self.engine.create_space(*SPACES[which]))
        elif what == "destroy":
            self.begin(vcpu, self.engine.destroy_space(*SPACES[which]))
        elif what == "submit":
            self.begin(vcpu, self.engine.submit(*SPACES[which]))

    def finish(self) -> None:
        """Let everybody end, a slice each in turn; then all must be as if it had been done in one go."""
        turns = 0
        while self.work:
            for vcpu in list(self.work):
                self.slices(vcpu, 1)
            turns += 1
            assert turns < 20_000
        self.side.check()
        for space in self.engine.spaces:
            key = key_of(space)
            self.side.engine.submit(*key)
            self.lockstep.judge(self.side, key, complete(self.engine.mappings(space)))
        self.side.check()
        self.side.end()


@pytest.mark.slow
@pytest.mark.parametrize("sync", Sync)
@examples(150)
@given(max_tables=st.sampled_from([3, 6, 1024, 4096]), done=st.lists(events, max_size=40))
def test_whatever_is_done_between_slices(
    sync: Sync, max_tables: int, done: list[tuple[str, int, int, int, int]]
) -> None:
    run = Interleaving(sync, max_tables)
    for event in done:
        run.event(*event)
    run.finish()


class Pages:
    """An observer that counts the pages that it gets in each slice."""

    def __init__(self, guest: CountingGuest) -> None:
        self.guest = guest
        self.of_slice: dict[int, int] = {}

    def table_read(self, gfn: int, page: object) -> None:
        number = id(self.guest.slice)
        self.of_slice[number] = self.of_slice.get(number, 0) + 1

    def frames_queried(self, first_gfn: int, count: int, errors: object) -> None: ...

    def submitted(self, mode: Mode, roots: tuple[int, ...]) -> None: ...


@pytest.mark.parametrize("work", ["submit", "strict"])
def test_slices_that_an_observer_sees_are_smaller(work: str) -> None:
    """A recording copies and compares each page: 64 of them took 1.5 ms."""
    guest, engine = large(Sync.RELAXED)
    space = (Mode.L4, (0x1000,))
    complete(engine.create_space(*space))
    finish(engine.submit(*space))
    assert len(unsynced_frames(engine)) == LEAVES
    pages = Pages(guest)
    engine.observe(pages)
    slices = guest.slices_of(lambda: engine.submit(*space) if work == "submit" else engine.set_sync_mode(Sync.STRICT))
    assert len(slices) > LEAVES // OBSERVED_SLICE
    assert sum(pages.of_slice.values()) == LEAVES
    assert max(pages.of_slice.values()) <= OBSERVED_SLICE
    engine.observe(None)


def test_slices_are_bounded_by_types_changed_and_frames_mapped() -> None:
    guest, engine = large()
    space = (Mode.L4, (0x1000,))
    assert_bounded(guest.slices_of(lambda: engine.create_space(*space)))
    assert engine.counters.tables == 1 + 1 + 3 + LEAVES
    assert_bounded(guest.slices_of(lambda: engine.stores.store(3 * FRAME + 8 * 510, 8, pte(SCATTERED))))
    assert engine.frames.mapped_chunks > 512
    engine.stores.frames_changed()
    assert_bounded(guest.slices_of(lambda: engine.submit(*space)))
    assert_bounded(guest.slices_of(lambda: engine.quiesce()))
    assert (guest.protected, engine.frames.mapped_chunks) == (set(), 0)
    assert_bounded(guest.slices_of(lambda: engine.resume()))
    assert engine.counters.tables == 1 + 1 + 3 + LEAVES + 1
    assert_bounded(guest.slices_of(lambda: engine.stores.store(1 * FRAME, 8, 0)))
    assert engine.counters.tables == 1
    assert_bounded(guest.slices_of(lambda: engine.destroy_space(*space)))
    engine.close()


def test_a_sync_of_many_unsynced_tables_is_bounded() -> None:
    """Also the one that finds them all settled, those that protect them, and the change to strict mode."""
    guest, engine = large(Sync.RELAXED)
    space = (Mode.L4, (0x1000,))
    for _ in engine.create_space(*space):
        pass
    assert len(unsynced_frames(engine)) == LEAVES
    protected = len(guest.protected)
    for _ in range(lib.XD_CALM):
        slices = guest.slices_of(lambda: engine.submit(*space))
        assert_bounded(slices)
        assert len(slices) >= LEAVES // lib.XD_SYNC_BATCH
    assert 0 < len(guest.protected) - protected < LEAVES
    for _ in range(lib.XD_CALM):
        assert_bounded(guest.slices_of(lambda: engine.submit(*space)))
    assert not unsynced_frames(engine)
    for leaf in range(LEAVES):
        for slot in range(2):
            engine.stores.store((FIRST_LEAF + leaf) * FRAME + 8 * slot, 8, pte(21))
    assert_bounded(guest.slices_of(lambda: engine.submit(*space)))
    assert len(unsynced_frames(engine)) == LEAVES
    assert_bounded(guest.slices_of(lambda: engine.set_sync_mode(Sync.STRICT)))
    assert not unsynced_frames(engine)
    assert complete(engine.audit(engine.spaces[0])).mismatches == 0
    engine.close()


def test_an_audit_is_done_in_slices() -> None:
    _, engine = large()
    for _ in engine.create_space(Mode.L4, (0x1000,)):
        pass
    assert sum(1 for _ in engine.audit(engine.spaces[0])) > 4
    engine.close()


def test_two_spaces_with_many_unsynced_tables_are_submitted_at_once() -> None:
    """The one that comes second does not take the list of the first."""
    guest, engine = large(Sync.RELAXED)
    spaces = ((Mode.L4, (0x1000,)), (Mode.L3, (0x3000, 0, 0, 0)))
    for space in spaces:
        complete(engine.create_space(*space))
    for leaf in range(LEAVES):
        guest.put(FIRST_LEAF + leaf, 0, pte(20))
    first, second = (engine.submit(*space) for space in spaces)
    assert sum(1 for _ in first) >= LEAVES // lib.XD_SYNC_BATCH - 1
    finish(second)
    assert engine.check() == []
    assert all(engine.resolve(space, 0) is not None for space in engine.spaces)
    engine.close()


def test_a_list_of_what_is_mapped_is_made_in_slices() -> None:
    """Also while the guest stores: each table is listed as it was at some moment."""
    _, engine = large()
    complete(engine.create_space(Mode.L4, (0x1000,)))
    (space,) = engine.spaces
    for leaf in range(LEAVES):
        engine.stores.store((FIRST_LEAF + leaf) * FRAME, 8, pte(20 + leaf % 2))
    listing, slices, found = engine.mappings(space), 0, None
    while found is None:
        try:
            next(listing)
        except StopIteration as end:
            found = end.value
        slices += 1
        if slices == 2:
            engine.stores.store((FIRST_LEAF + LEAVES - 1) * FRAME + 8, 8, pte(30))
    assert slices > 10
    assert len(found) in (LEAVES, LEAVES + 1)
    assert found[:2] == [(0, FRAME, 20 * FRAME, 1, 0), (512 * FRAME, FRAME, 21 * FRAME, 1, 0)]
    engine.close()


def test_a_small_change_does_not_wait_for_a_large_one() -> None:
    """While a tree of 1500 tables is linked or freed, another vCPU's store to a directory takes a slice or two."""
    guest, engine = large()
    for _ in engine.create_space(Mode.L4, (0x1000,)):
        pass
    for entry in (0, pte(2)):
        large_work = engine.stores.store(1 * FRAME, 8, entry)
        next(large_work)
        next(large_work)
        small = 0
        if 3 in guest.protected:
            small = len(guest.slices_of(lambda: engine.stores.store(3 * FRAME + 8 * 511, 8, pte(FIRST_LEAF))))
        assert small <= 10
        assert sum(1 for _ in large_work) > 10
    engine.close()


def test_a_directory_that_waits_for_a_query_is_left_out_by_audits() -> None:
    """Guest memory has the store by then, the shadow has not."""
    guest, engine = large()
    for _ in engine.create_space(Mode.L4, (0x1000,)):
        pass
    (space,) = engine.spaces
    store = engine.stores.store(3 * FRAME + 8 * 511, 8, pte(550 * 512))  # a chunk that nobody has asked about
    next(store)
    assert guest.entry(3, 511) == pte(550 * 512)
    found = complete(engine.audit(space))
    assert (found.mismatches, found.unsynced) == (0, 1)
    guest.holes.update(range(550 * 512, 551 * 512))
    store.close()  # and then a sync sees to it
    finish(engine.submit(Mode.L4, (0x1000,)))
    assert complete(engine.audit(space)) == (0, 0, 0)
    engine.close()


def test_a_table_that_is_moved_behind_the_walk_of_a_sync() -> None:
    """The walk has left the first directory when a table of the last one is moved there."""
    guest, engine = large(Sync.RELAXED)
    complete(engine.create_space(Mode.L4, (0x1000,)))
    for leaf in range(LEAVES):
        guest.put(FIRST_LEAF + leaf, 0, pte(20))
    sync = engine.submit(Mode.L4, (0x1000,))
    next(sync)
    moved = FIRST_LEAF + 2 * 500 + 490
    for directory, slot, entry in ((3, 505, pte(moved)), (5, 490, 0)):
        assert engine.stores.store(directory * FRAME + 8 * slot, 8, entry) == lib.XD_ROUTE_DIRECTORY_STORE
    assert moved in unsynced_frames(engine)
    assert engine.resolve(engine.spaces[0], 505 << 21) is None
    for _ in sync:
        pass
    assert engine.resolve(engine.spaces[0], 505 << 21) is not None
    engine.close()


def test_a_space_that_ends_while_it_is_shadowed() -> None:
    guest, engine = large()
    key = (Mode.L4, (0x1000,))
    creation = engine.create_space(*key)
    for _ in range(12):
        next(creation)
    for _ in engine.destroy_space(*key):
        pass
    assert sum(1 for _ in creation) < 100  # it creates no more, and frees what there is
    assert (guest.protected, engine.shadow.live, engine.check()) == (set(), 0, [])
    engine.close()


def test_spaces_are_capped() -> None:
    guest = EngineBench()
    counters = ffi.new("xd_counters *")
    engine = guest.make_engine().steps.__class__(guest, guest, counters, frame_limit=guest.frames, max_spaces=2)
    for root in (0x1000, 0x2000, 0x3000, 0x1000):
        for _ in engine.create_space(Mode.L4, (root,)):
            pass
    assert (counters.spaces, counters.refused_spaces) == (2, 1)
    finish(engine.submit(Mode.L4, (0x3000,)))  # it is still shadowed for the submission
    for _ in engine.destroy_space(Mode.L4, (0x3000,)):
        pass
    assert counters.ignored_notifications == 1
    engine.close()


def test_mapped_memory_is_bounded() -> None:
    """Chunks are unmapped for others; what is known of their frames stays, and a table in one is read all the same."""
    guest = CountingGuest(600 * 512, backed=512)
    guest.put(1, 0, pte(2))
    guest.put(2, 0, pte(3))
    guest.put(3, 0, pte(4))
    for slot in range(ENTRIES):
        guest.put(4, slot, pte(512 * (slot + 10)))
    counters = ffi.new("xd_counters *")
    engine = guest.make_engine().steps.__class__(guest, guest, counters, frame_limit=guest.frames, max_mapped_chunks=16)
    for _ in engine.create_space(Mode.L4, (0x1000,)):
        pass
    assert engine.frames.mapped_chunks == 16
    (space,) = engine.spaces
    assert len(complete(engine.mappings(space))) == ENTRIES
    guest.slices_of(lambda: engine.stores.store(4 * FRAME, 8, pte(7)))
    assert complete(engine.mappings(space))[0].gpa == 7 * FRAME
    engine.close()


def test_clocks_do_not_wrap() -> None:
    """A hole stays a hole after 2^32 invalidations; an epoch, a submission and a walk are told from those before."""
    guest = EngineBench(2048, backed=64)
    guest.holes = set(range(1024, 1536))
    for parent in (1, 2, 3):
        guest.put(parent, 0, pte(parent + 1))
    for slot in range(ENTRIES):
        guest.put(4, slot, pte(1024 + slot))
    engine = guest.make_engine(max_tables=64)
    engine.create_space(Mode.L4, (0x1000,))
    (space,) = engine.spaces
    frames, shadow = engine.frames.pointer, engine.shadow
    for value in (0xFFFFFFFE, 0xFFFFFFFF):
        frames.clock = value
        shadow.epoch = shadow.submission = shadow.walk = value
        engine.frames_changed()
        engine.submit(Mode.L4, (0x1000,))
        assert not engine.mappings(space)
        engine.store(4 * FRAME, 8, pte(1700))
        assert len(engine.mappings(space)) == 1
        engine.store(4 * FRAME, 8, pte(1024))
        assert not engine.mappings(space)
    engine.close()


@pytest.mark.parametrize("present", [0, 1, 511, 512])
def test_what_is_known_of_a_chunk_as_a_whole(present: int) -> None:
    """The same as of its frames one by one, in constant time."""
    guest = EngineBench(1024, backed=16)
    guest.holes = set(range(512 + present, 1024))
    frames = guest.make_engine().frames
    assert lib.xd_chunk_state(frames.pointer, 1) == lib.XD_CHUNK_UNKNOWN
    frames.query(1)
    want = {0: lib.XD_CHUNK_NO_RAM, 512: lib.XD_CHUNK_ALL_RAM}.get(present, lib.XD_CHUNK_SOME_RAM)
    assert lib.xd_chunk_state(frames.pointer, 1) == want
    frames.invalidate_holes()
    assert lib.xd_chunk_state(frames.pointer, 1) == (want if present == 512 else lib.XD_CHUNK_UNKNOWN)
    frames.query(1)
    frames.invalidate()
    assert lib.xd_chunk_state(frames.pointer, 1) == lib.XD_CHUNK_UNKNOWN
    assert lib.xd_chunk_state(frames.pointer, 2) == lib.XD_CHUNK_NO_RAM
