"""Submissions that C makes by itself come to the same as those of Python, and C makes all that it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tables import FRAME, pte
from tests.support.two_worlds import DATA, HOLE, L1, L2, L3, L4, OTHER_L1, SELF, World, request, two_worlds
from xengt_dm._core import lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.vgpu.device import announcement
from xengt_dm.vgpu.registers import G2V_NOTIFY, Notification
from xengt_dm.vgpu.registers.tlb import TLB_INVALIDATE

RTCR = TLB_INVALIDATE[0]
SECOND_L4 = 20
#: Submissions that settle a table.
CALM: int = lib.XD_CALM
SPACES = {
    "second": announcement(Mode.L4, (SECOND_L4 * FRAME,)),
    "l3": announcement(Mode.L3, (L2 * FRAME, 0, 0, L2 * FRAME)),
}
DESTROY = {"second": Notification.PPGTT_L4_DESTROY, "l3": Notification.PPGTT_L3_DESTROY}


def store(world: World, gfn: int, entry: int, value: int) -> None:
    """A store of the guest, which traps if the frame is write-protected."""
    if gfn in world.domain.protected():
        world.ask(0, request(gfn * FRAME + 8 * entry, value))
    else:
        world.domain.write(gfn * FRAME + 8 * entry, value.to_bytes(8, "little"))


def submit(world: World, register: int = RTCR) -> None:
    world.ask(1, request(DEFAULT_BAR0 + register, 1, 4))


def write(world: World, offset: int, size: int, value: int) -> None:
    world.ask(0, request(DEFAULT_BAR0 + offset, value, size))


class Guest(NamedTuple):
    """What both guests do."""

    worlds: tuple[World, World]

    def do(self, what: Callable[..., None], *arguments: int) -> None:
        for world in self.worlds:
            what(world, *arguments)

    def create(self, name: str) -> None:
        for access in SPACES[name]:
            self.do(write, *access)

    def destroy(self, name: str) -> None:
        for access in SPACES[name][:-1]:
            self.do(write, *access)
        self.do(write, G2V_NOTIFY, 4, DESTROY[name])

    def invalidate(self) -> None:
        for world in self.worlds:
            world.ask(0, {"addr": 0, "data": 0, "size": 4, "count": 1, "bits": 0, "type": lib.XD_IOREQ_INVALIDATE})


leaves = st.sampled_from([L1, L1, OTHER_L1, SELF])
entries = st.integers(0, 3)
leaf_values = st.sampled_from([0, *map(pte, [DATA, DATA + 1, DATA + 2, SELF, L1])])
steps = st.one_of(
    st.tuples(st.just("store"), leaves, entries, leaf_values),
    st.tuples(st.just("store"), leaves, entries, leaf_values),
    st.tuples(st.just("store"), st.just(L1), entries, st.sampled_from([pte(HOLE), pte(DATA)])),
    st.tuples(st.just("store"), st.just(L2), entries, st.sampled_from([0, *map(pte, [L1, OTHER_L1, SELF])])),
    st.tuples(st.just("submit"), st.sampled_from(TLB_INVALIDATE)),
    st.tuples(st.just("submit"), st.sampled_from(TLB_INVALIDATE)),
    st.tuples(st.just("submissions"), st.integers(1, CALM + 1)),
    st.tuples(st.sampled_from(["create", "destroy"]), st.sampled_from([*SPACES])),
    st.tuples(st.just("invalidate")),
)


@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@settings(max_examples=100)
@given(st.lists(steps, min_size=1, max_size=40))
def test_both_come_to_the_same(sync: Sync, done: list[tuple[str, ...]]) -> None:
    with two_worlds(sync) as worlds:
        guest = Guest(worlds)
        guest.do(store, SECOND_L4, 0, pte(L3))
        for what, *arguments in done:
            numbers = [each for each in arguments if isinstance(each, int)]
            if what == "store":
                guest.do(store, *numbers)
            elif what == "submit":
                guest.do(submit, *numbers)
            elif what == "submissions":
                for _ in range(numbers[0]):
                    guest.do(submit)
            else:
                getattr(guest, what)(*arguments)
            assert worlds[0].lives() == worlds[1].lives()
        expected = worlds[1].state()
        for part, found in worlds[0].state().items():
            assert found == expected[part], part


def served(world: World, what: Callable[..., None], *arguments: int) -> tuple[int, int]:
    """How many requests C has served, and left to Python, for this."""
    stats = world.instance.stats.pointer
    before = stats.burst_requests, stats.handed_requests
    what(world, *arguments)
    return stats.burst_requests - before[0], stats.handed_requests - before[1]


IN_C, IN_PYTHON = (1, 0), (0, 1)


@pytest.fixture
def world():  # type: ignore[no-untyped-def]
    """A relaxed instance whose tables are read."""
    with two_worlds(Sync.RELAXED) as (world, _):
        submit(world)
        yield world


def entry_of(world: World, gfn: int, entry: int) -> int:
    """The shadow of a leaf table's entry."""
    shadow = world.instance.engine.shadow
    return int(shadow.pages[lib.xd_first_of_frame(shadow, gfn) * lib.XD_ENTRIES + entry])


@pytest.mark.parametrize("register", TLB_INVALIDATE)
def test_changed_tables_are_read_in_c(world: World, register: int) -> None:
    for n in range(3 * CALM):
        for gfn in L1, OTHER_L1, SELF:
            store(world, gfn, 5, pte(DATA + n % 2))
        assert served(world, submit, register) == IN_C
        for gfn in L1, OTHER_L1, SELF:
            assert entry_of(world, gfn, 5) & ~0x19 == pte(DATA + n % 2) & ~0x19
    assert world.instance.engine.counters.submissions == 3 * CALM + 1


def test_a_table_that_settles_is_for_python(world: World) -> None:
    left = [served(world, submit) == IN_PYTHON for _ in range(CALM + 3)]
    settling = (CALM - 2, CALM - 1)  # SELF, which was not empty at first, comes last
    assert left == [n in settling for n in range(CALM + 3)]
    assert {L1, OTHER_L1, SELF} <= set(world.domain.protected())


def test_a_candidate_ages_in_c_and_is_unsynced_in_python(world: World) -> None:
    for _ in range(CALM):
        submit(world)
    results = []
    for _ in range(2):
        store(world, L1, 0, pte(DATA + 1))
        results.append(served(world, submit))
    assert results == [IN_C, IN_PYTHON]
    assert L1 not in world.domain.protected()


def test_what_is_pending_is_for_python(world: World) -> None:
    store(world, L1, 0, pte(HOLE))
    assert [served(world, submit) for _ in range(2)] == [IN_PYTHON, IN_PYTHON]
    store(world, L1, 0, pte(DATA))
    assert [served(world, submit) for _ in range(2)] == [IN_PYTHON, IN_C]


def add_space(world: World) -> None:
    """A second space, with its own tables."""
    for parent, child in ((SECOND_L4, L3 + 20), (L3 + 20, L2 + 20), (L2 + 20, L1 + 20)):
        store(world, parent, 0, pte(child))
    for access in SPACES["second"]:
        write(world, *access)


def test_all_spaces_are_submitted(world: World) -> None:
    add_space(world)
    assert served(world, submit) == IN_C
    store(world, L1 + 20, 0, pte(DATA))
    before = world.instance.engine.counters.submissions
    assert served(world, submit) == IN_C
    assert entry_of(world, L1 + 20, 0) == entry_of(world, L1 + 20, 0) | pte(DATA) & ~7
    assert world.instance.engine.counters.submissions == before + 2


def test_a_table_of_two_spaces_is_for_python(world: World) -> None:
    """A root of the second one is a table of the first one, so the way up from a leaf table leads to both."""
    for access in SPACES["l3"]:
        write(world, *access)
    for _ in range(2):
        assert served(world, submit) == IN_PYTHON


def test_while_a_sync_is_under_way_submissions_are_for_python(world: World) -> None:
    engine = world.instance.engine
    engine.submissions.pointer.syncing = True
    assert lib.xd_submit_all(engine.submissions.pointer) == lib.XD_SUBMIT_LEFT
    engine.submissions.pointer.syncing = False
    assert lib.xd_submit_all(engine.submissions.pointer) == lib.XD_SUBMIT_DONE


def test_while_somebody_watches_submissions_are_for_python(world: World) -> None:
    engine = world.instance.engine
    engine.submissions.pointer.blocked = True
    assert lib.xd_submit_all(engine.submissions.pointer) == lib.XD_SUBMIT_LEFT
    engine.submissions.update()
    assert lib.xd_submit_all(engine.submissions.pointer) == lib.XD_SUBMIT_DONE


def test_more_spaces_than_c_knows(world: World) -> None:
    roots = range(100, 100 + lib.XD_SUBMIT_SPACES)
    engine = world.instance.engine
    for root in roots:
        for access in announcement(Mode.L4, (root * FRAME,)):
            write(world, *access)
    assert len(engine.spaces) == lib.XD_SUBMIT_SPACES + 1
    assert engine.submissions.pointer.spaces.count == lib.XD_SUBMIT_SPACES + 1
    assert lib.xd_submit_all(engine.submissions.pointer) == lib.XD_SUBMIT_LEFT


def test_one_space_of_several_becomes_the_last_in_order(world: World) -> None:
    engine = world.instance.engine
    add_space(world)
    pointer = engine.submissions.pointer
    keys = [(L4 * FRAME,), (SECOND_L4 * FRAME,)]
    assert [space.roots for space in engine.spaces_by_age] == keys
    for n in range(lib.XD_SUBMIT_RECENT):
        for gfn in L1, OTHER_L1, SELF, L1 + 20:  # so that none settles
            store(world, gfn, 0, pte(DATA + n // 2 % 2))
        assert lib.xd_submit_one(pointer, keys[n % 2][0], 1) == lib.XD_SUBMIT_DONE
    assert lib.xd_submit_one(pointer, keys[0][0], 1) == lib.XD_SUBMIT_LEFT  # Python is to catch up first
    assert [space.roots for space in engine.spaces_by_age] == keys
    assert lib.xd_submit_one(pointer, keys[0][0], 1) == lib.XD_SUBMIT_DONE
    assert [space.roots for space in engine.spaces_by_age] == keys[::-1]
    assert lib.xd_submit_one(pointer, keys[0][0], 4) == lib.XD_SUBMIT_LEFT
    assert lib.xd_submit_one(pointer, keys[0][0] + FRAME, 1) == lib.XD_SUBMIT_LEFT
