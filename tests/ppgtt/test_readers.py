"""Readers change nothing, whatever state the engine is in; and an audit without a sync raises no false alarm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.engine_bench import EngineBench, unsynced_frames
from tests.support.examples import examples
from tests.support.snapshots import snapshot
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm.control import report
from xengt_dm.control.json_stream import LazyList, LazyObject, json_pieces
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode

#: Frames that serve at one level each, the roots first; few, so that tables are shared. The last ones are data.
LEVELS = {4: (1, 2), 3: (3, 4), 2: (5, 6, 7), 1: (8, 9, 10)}
DATA = (20, 21, 22, 40)
FRAMES = 64
SLOTS = (0, 1, 16, 511)
SPACES = (
    (Mode.L4, (1 << 12,)),
    (Mode.L4, (2 << 12,)),
    (Mode.L3, (5 << 12, 6 << 12, 0, 5 << 12)),
    (Mode.L3, (0, 0, 7 << 12, 0)),
)
#: Entries: a page or a table, a 64 KiB table or a 2 MiB page, nothing.
FLAGS = (3, 1, 0x803, 0x83, 0)

entries = st.builds(lambda frame, flags: frame << 12 | flags, st.integers(0, FRAMES), st.sampled_from(FLAGS))
links = st.sampled_from([4, 3, 2]).flatmap(
    lambda level: st.tuples(
        st.just("store"),
        st.sampled_from(LEVELS[level]),
        st.sampled_from(SLOTS),
        st.sampled_from([pte(child) for child in LEVELS[level - 1]]) | entries,
    )
)
leaf_stores = st.tuples(st.just("store"), st.sampled_from(LEVELS[1]), st.sampled_from(SLOTS), entries)
of_spaces = st.tuples(
    st.sampled_from(["create", "destroy", "submit", "submit"]),
    st.integers(0, len(SPACES) - 1),
    st.just(0),
    st.just(0),
)
of_frames = st.tuples(
    st.sampled_from(["remove", "add"]), st.sampled_from([*DATA, *LEVELS[1], *LEVELS[2]]), st.just(0), st.just(0)
)
others = st.tuples(st.sampled_from(["gap", "64k", "busy", "refuse", "settle"]), st.integers(0, 1), *[st.just(0)] * 2)
events = st.lists(links | leaf_stores | leaf_stores | of_spaces | of_frames | others, max_size=40)
states = st.tuples(st.sampled_from(Sync), st.sampled_from([4, 8, 1024]), events)


def engine_after(sync: Sync, quota: int, done: list[tuple[str, int, int, int]]) -> tuple[WholeEngine, EngineBench]:
    """An engine whose guest has done all that."""
    guest = EngineBench(FRAMES)
    for parent, child in ((1, 3), (2, 4), (3, 5), (4, 6), (5, 8), (6, 9), (7, 10)):
        guest.put(parent, 0, pte(child))
    engine = guest.make_engine(sync=sync, generation=9, max_tables=quota)
    for key in SPACES[:2]:
        engine.create_space(*key)
    for what, which, slot, entry in done:
        if what == "store":
            guest.store(engine, which * FRAME + 8 * slot, 8, entry)
        elif what == "create":
            engine.create_space(*SPACES[which])
        elif what == "destroy":
            engine.destroy_space(*SPACES[which])
        elif what == "submit":
            engine.submit(*SPACES[which])
        elif what == "remove" and which not in guest.holes:
            guest.remove(which)
            engine.frames_changed()
        elif what == "add":
            guest.add(which)
        elif what == "gap":
            guest.gaps += 1
        elif what == "64k":
            engine.set_64k_pages(bool(which))
        elif what == "busy":
            guest.busy = {8, 9} if which else set()
        elif what == "refuse":
            guest.refuse = {10} if which else set()
        elif what == "settle":
            engine.settle()
    return engine, guest


def encoded(value: object) -> None:
    """Make every part of a lazy answer."""
    for _ in json_pieces(value):
        pass


READERS: dict[str, Callable[[WholeEngine], object]] = {
    "walk": lambda engine: encoded(LazyObject(report.walk(engine.steps, lambda space: True, 0, sync=False))),
    "dump": lambda engine: encoded(LazyObject(report.dump(engine.steps, sync=False))),
    "audit": lambda engine: encoded(LazyObject(report.audit(engine.steps, sync=False))),
    "spaces": lambda engine: encoded(LazyList(report.spaces(engine.steps))),
    "protected": lambda engine: encoded(LazyList(report.protected(engine.steps))),
    "check": lambda engine: engine.check(),
}


@pytest.mark.parametrize("name", READERS)
@examples(80)
@given(state=states)
def test_a_reader_changes_nothing(name: str, state: tuple[Sync, int, list[tuple[str, int, int, int]]]) -> None:
    engine, guest = engine_after(*state)
    before = snapshot(engine, guest)
    READERS[name](engine)
    after = snapshot(engine, guest)
    assert [part for part in before if before[part] != after[part]] == []
    engine.close()


@examples(200)
@given(state=states)
def test_an_audit_without_a_sync_raises_no_false_alarm(
    state: tuple[Sync, int, list[tuple[str, int, int, int]]],
) -> None:
    engine, _ = engine_after(*state)
    assert engine.check() == []
    for space in engine.spaces:
        found = engine.audit(space)
        assert (found.mismatches, found.overdue) == (0, 0)
    engine.close()


def relaxed_with_one_store_unseen() -> tuple[WholeEngine, EngineBench]:
    """Two spaces; the leaf table of the first one is unsynced, and has an entry that the shadow lacks."""
    engine, guest = engine_after(Sync.RELAXED, 1024, [("submit", 0, 0, 0), ("submit", 1, 0, 0)])
    guest.store(engine, 8 * FRAME, 8, pte(20))
    for space in engine.spaces:
        engine.sync(space)
    assert not guest.store(engine, 8 * FRAME + 8, 8, pte(21))
    assert 8 in unsynced_frames(engine)
    return engine, guest


def test_a_reader_sees_the_shadow_as_it_is_until_a_sync() -> None:
    engine, _ = relaxed_with_one_store_unseen()
    space = engine.spaces[0]
    assert [tuple(run) for run in engine.mappings(space) or ()] == [(0, FRAME, 20 * FRAME, 1, 0)]
    assert engine.resolve(space, FRAME) is None
    assert engine.audit(space) == (0, 0, 1)
    submissions = engine.counters.submissions
    engine.sync(space)
    assert engine.counters.submissions == submissions + 1
    assert [tuple(run) for run in engine.mappings(space) or ()] == [(0, 2 * FRAME, 20 * FRAME, 1, 0)]
    assert engine.audit(space) == (0, 0, 0)


def test_a_sync_makes_a_space_the_last_that_loses_its_shadow() -> None:
    engine, _ = relaxed_with_one_store_unseen()
    first, second = engine.spaces_by_age
    for reader in READERS.values():
        reader(engine)
    assert engine.spaces_by_age == [first, second]
    engine.sync(first)
    assert engine.spaces_by_age == [second, first]


def test_a_sync_of_a_space_that_is_gone_does_nothing() -> None:
    engine, guest = relaxed_with_one_store_unseen()
    space = engine.spaces[0]
    engine.destroy_space(space.mode, space.roots)
    before = snapshot(engine, guest)
    engine.sync(space)
    assert snapshot(engine, guest) == before
    engine.create_space(space.mode, space.roots)
    before = snapshot(engine, guest)
    engine.sync(space)  # the old object of a space that is there again
    assert snapshot(engine, guest) == before


def test_tables_of_an_earlier_epoch_are_left_out_until_their_sync() -> None:
    engine, guest = engine_after(Sync.STRICT, 1024, [("submit", 0, 0, 0), ("submit", 1, 0, 0)])
    first, second = engine.spaces
    guest.remove(40)
    engine.frames_changed()
    assert engine.audit(first) == engine.audit(second) == (0, 0, 4)
    engine.sync(first)
    assert (engine.audit(first), engine.audit(second)) == ((0, 0, 0), (0, 0, 4))


def test_after_a_trap_gap_no_table_is_judged_until_a_sync() -> None:
    engine, guest = engine_after(Sync.STRICT, 1024, [("submit", 0, 0, 0)])
    guest.put(8, 1, pte(21))
    assert engine.audit(engine.spaces[0]) == (1, 0, 0)
    guest.gaps += 1
    assert engine.audit(engine.spaces[0]) == (0, 0, 4)
    engine.sync(engine.spaces[0])
    assert engine.audit(engine.spaces[0]) == (0, 0, 0)


def test_an_entry_of_a_hole_that_is_ram_by_now_is_no_mismatch_before_the_next_sync() -> None:
    engine, guest = engine_after(
        Sync.STRICT, 1024, [("remove", 40, 0, 0), ("store", 8, 0, pte(40)), ("submit", 0, 0, 0)]
    )
    guest.add(40)
    engine.frames.query(0)
    space = engine.spaces[0]
    assert engine.audit(space) == (0, 0, 0)
    assert engine.resolve(space, 0) is None
    assert engine.audit(space, engine.sync(space)) == (0, 0, 0)
    assert engine.resolve(space, 0) is not None


@pytest.mark.parametrize("entry", [40 << 12 | 3, 0x83], ids=["a table", "a 2 MiB page that is RAM in part"])
def test_an_entry_of_a_directory_that_could_be_honoured_by_now_is_not_overdue_before_the_next_sync(entry: int) -> None:
    engine, guest = engine_after(Sync.STRICT, 1024, [("remove", 40, 0, 0), ("store", 5, 1, entry), ("submit", 0, 0, 0)])
    guest.add(40)
    engine.frames.query(0)
    space = engine.spaces[0]
    assert engine.audit(space) == (0, 0, 0)
    assert engine.audit(space, engine.sync(space)) == (0, 0, 0)
