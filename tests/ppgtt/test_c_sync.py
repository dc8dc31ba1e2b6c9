"""What a submission must sync: found from the unsynced tables upwards, the same as from the roots downwards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.engine_bench import EngineBench, unsynced_frames
from tests.support.examples import examples
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode, Space

#: Frames that serve at one level each, the roots first; few, so that tables are shared.
LEVELS = {4: (1, 2), 3: (3, 4), 2: (5, 6, 7), 1: (8, 9, 10)}
SLOTS = (0, 1, 511)
SPACES = (
    (Mode.L4, (1 << 12,)),
    (Mode.L4, (2 << 12,)),
    (Mode.L3, (5 << 12, 6 << 12, 0, 5 << 12)),
    (Mode.L3, (0, 0, 6 << 12, 0)),
)

links = st.sampled_from([4, 3, 2]).flatmap(
    lambda level: st.tuples(
        st.just("link"),
        st.sampled_from(LEVELS[level]),
        st.sampled_from(SLOTS),
        st.sampled_from(LEVELS[level - 1]) | st.just(0),
    )
)
stores = st.tuples(st.just("store"), st.sampled_from(LEVELS[1]), st.sampled_from(SLOTS), st.just(0))
spaces = st.tuples(
    st.sampled_from(["create", "destroy", "submit"]), st.integers(0, len(SPACES) - 1), st.just(0), st.just(0)
)


def found(engine: WholeEngine, space: Space) -> list[int]:
    shadow = engine.shadow
    reached = ffi.new("xd_sync_work *")
    settled = ffi.new("xd_retype *")
    reached.settled = settled
    up = lib.xd_sync_begin(shadow, space.gpas, space.numbers, space.count, reached, 1)
    leaves = sorted(reached.leaves[0 : reached.leaf_count])
    shadow.submission += 1
    lib.xd_sync_walk(shadow, space.numbers, space.count, reached)
    assert lib.xd_sync_collect(shadow, reached)
    assert reached.directory_count == 0
    assert up == lib.XD_SYNC_FULL or sorted(reached.leaves[0 : reached.leaf_count]) == leaves
    return sorted(reached.leaves[0 : reached.leaf_count])


def expected(engine: WholeEngine, space: Space) -> list[int]:
    """The unsynced tables that a walk of the shadow comes to."""
    shadow = engine.shadow
    seen: set[int] = set()
    left = [number for number in space.numbers if number]
    while left:
        number = left.pop()
        if number not in seen:
            seen.add(number)
            if shadow.tables[number].kind > 1:
                entries = shadow.pages[number * 512 : number * 512 + 512]
                left += {entry >> 12 for entry in entries if entry & 1}
    return sorted(number for number in seen if shadow.tables[number].flags & lib.XD_TABLE_UNSYNCED)


@examples(120)
@given(events=st.lists(links | links | stores | spaces, max_size=40))
def test_from_the_tables_up_as_from_the_roots_down(events: list[tuple[str, int, int, int]]) -> None:
    guest = EngineBench(32)
    for parent in (1, 2, 3, 4, 5, 6, 7):
        child = {1: 3, 2: 4, 3: 5, 4: 6, 5: 8, 6: 9, 7: 10}[parent]
        guest.put(parent, 0, pte(child))
    engine = guest.make_engine(sync=Sync.RELAXED)
    for key in SPACES:
        engine.create_space(*key)
    for what, which, slot, child in events:
        if what == "link":
            guest.store(engine, which * FRAME + 8 * slot, 8, pte(child) if child else 0)
        elif what == "store":
            guest.store(engine, which * FRAME + 8 * slot, 8, pte(20))
        elif what == "create":
            engine.create_space(*SPACES[which])
        elif what == "destroy":
            engine.destroy_space(*SPACES[which])
        else:
            engine.submit(*SPACES[which])
        for space in engine.spaces:
            assert found(engine, space) == expected(engine, space)
    engine.close()


def small() -> tuple[EngineBench, WholeEngine]:
    guest = EngineBench(32)
    guest.holes.add(20)
    for gfn in (1, 3, 5):
        guest.put(gfn, 0, pte({1: 3, 3: 5, 5: 8}[gfn]))
    engine = guest.make_engine(sync=Sync.RELAXED)
    engine.create_space(*SPACES[0])
    return guest, engine


def test_a_hole_that_is_ram_by_now_when_an_unsynced_table_names_it() -> None:
    guest, engine = small()
    for entry in (pte(20), 0):  # somebody asked, and found a hole
        guest.store(engine, 8 * FRAME, 8, entry)
        engine.submit(*SPACES[0])
    assert unsynced_frames(engine) == {8}
    guest.add(20)
    assert not guest.store(engine, 8 * FRAME, 8, pte(20))
    engine.submit(*SPACES[0])
    (space,) = engine.spaces
    assert [tuple(run) for run in engine.mappings(space) or ()] == [(0, FRAME, 20 * FRAME, 1, 0)]


def test_a_root_that_turned_out_to_be_no_ram() -> None:
    """Before the guest's word of it came: its neighbours were asked about."""
    guest, engine = small()
    guest.put(8, 0, pte(21))
    guest.store(engine, 8 * FRAME + 8, 8, pte(22))
    guest.holes.add(1)
    engine.frames.query(0)
    engine.submit(*SPACES[0])
    (space,) = engine.spaces
    assert list(engine.mappings(space) or ()) == []
