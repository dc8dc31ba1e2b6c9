"""The rules of docs/relaxed.md, each proven by a scenario that passes with it and fails without it.

A rule is taken out by putting something else in the place of one named function. Most scenarios are guests whose vCPUs
store in the orders of many seeds (:mod:`tests.support.orders`); the others are single situations.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.support.engine_bench import EngineBench, unsynced_frames
from tests.support.orders import explore
from tests.support.tables import FRAME, pte
from tests.support.trapping import Setting, stores
from xengt_dm._core import lib
from xengt_dm.hypervisor.embedded.errors import DomainCrashedError
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.leaves import LeafTables
from xengt_dm.ppgtt.space import Mode
from xengt_dm.ppgtt.syncing import Syncer
from xengt_dm.steps import complete
from xengt_dm.traps import claim
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.traps.unprotect import Barriers, set_ram

pytestmark = pytest.mark.slow

SEEDS = range(60)
#: For a guest in which a rule is taken out: the first seed that shows it is mostly far below.
MORE_SEEDS = range(400)
ROOT, POINTERS, DIRECTORY, LEAF, OTHER = 4, 5, 6, 8, 10
SPACE = (Mode.L4, (ROOT * FRAME,))


def orders(
    flavour: str, *, rep: bool = False, late: bool = False, switches: bool = False, vcpus: int = 2
) -> Callable[[range], None]:
    """Guests of so many vCPUs: none crashes, no store is lost, and in the end the shadow says what the tables say.

    ``late``: Xen looks at types without a lock from the first pass on. It does so after a load from a device only, and
    we do not cover that in stores over the end of a page; so there are none then.
    """

    def play(seeds: range) -> None:
        for seed in seeds:
            outcome = explore(
                seed,
                flavour,
                Sync.RELAXED,
                rep_stores=rep,
                vcpus=vcpus,
                unlocked=late or None,
                switches=switches,
                straddles=not late,
            )
            assert (outcome.lost, outcome.mismatches) == ([], 0), f"seed {seed}"

    return play


REP = orders("4.17", rep=True)
REP_4 = orders("4.17", rep=True, vcpus=4)
LATE = orders("4.17", rep=True, late=True)
STRADDLES = orders("4.20")
STRADDLES_4 = orders("4.20", vcpus=4)
SWITCHES = orders("4.20", rep=True, switches=True)
SWITCHES_4 = orders("4.20", rep=True, switches=True, vcpus=4)


def claiming() -> Setting:
    return Setting("4.20")


def named_after_the_change(seeds: range) -> None:
    """A request for frame 5 comes between the look at the slots and the change of its type."""
    setting = claiming()
    setting.protect(5)
    setting.slots.next_stores = [stores(), stores(unfinished={5})]
    assert not setting.unsync(5)
    assert setting.domain.protected() == [5]


def another_vcpu_is_storing(seeds: range) -> None:
    """It keeps its table a candidate, no other one, and costs few barriers; when it has left it the table is freed."""
    setting = claiming()
    setting.protect(5, 8)
    setting.slots.unfinished = {5}
    assert not setting.unsync(5, 8)
    assert setting.domain.protected() == [5]
    setting.slots.unfinished, setting.slots.finished = set(), {5}
    setting.taken()
    for _ in range(8):
        setting.slots.finished = {5}
        setting.unsync(5)
        setting.protect(5)
    assert setting.taken().count(("barrier",)) == 2


def a_held_store(seeds: range) -> None:
    """Frame 5 was protected in the middle of a store to 5 and 6, and has a store of its own by then."""
    setting = claiming()
    setting.slots.next_stores = [stores(), stores(unfinished={5, 6})]
    assert setting.resync(5) == [0]
    assert setting.traps.held(6) == 5
    setting.slots.unfinished = {5, 6}
    assert not setting.traps.release(5)
    setting.slots.unfinished = {6}
    assert setting.traps.release(5)


def bench() -> tuple[EngineBench, Any]:
    """Relaxed mode, with an unsynced leaf table."""
    guest = EngineBench()
    for table, child in ((ROOT, POINTERS), (POINTERS, DIRECTORY), (DIRECTORY, LEAF), (LEAF, OTHER)):
        guest.put(table, 0, pte(child))
    engine = guest.make_engine(sync=Sync.RELAXED)
    engine.create_space(*SPACE)
    engine.submit(*SPACE)
    assert unsynced_frames(engine) == {LEAF}
    return guest, engine


def an_unsynced_table_becomes_a_directory(seeds: range) -> None:
    guest, engine = bench()
    guest.store(engine, LEAF * FRAME, 8, pte(OTHER))
    guest.store(engine, POINTERS * FRAME + 8, 8, pte(LEAF))
    assert LEAF in guest.protected
    assert guest.store(engine, LEAF * FRAME + 8, 8, pte(20))
    engine.submit(*SPACE)
    (space,) = engine.spaces
    assert engine.resolve(space, FRAME) is not None
    assert engine.audit(space, engine.sync(space)) == (0, 0, 0)


def a_new_table_waits_for_a_store(seeds: range) -> None:
    """A store lies in frames 5 and 6 when 5 is linked as a directory: it may not begin to trap in the middle of it."""
    setting = claiming()
    setting.slots.unfinished = {6}
    assert setting.protect(5) == [errno.EINPROGRESS]
    assert setting.domain.protected() == []
    setting.slots.unfinished = set()
    assert setting.protect(5) == [0]


def a_directory_waits_for_a_store(seeds: range) -> None:
    """A store lies in the leaf table and the next frame, when the table is linked as a directory."""
    guest, engine = bench()
    guest.straddled = {LEAF}
    work = engine.steps.stores.store(POINTERS * FRAME + 8, 8, pte(LEAF))
    assert not isinstance(work, int)
    for _ in range(8):
        next(work)
    assert unsynced_frames(engine) == {LEAF}
    guest.straddled = set()
    complete(work)
    assert LEAF in guest.protected
    assert engine.counters.unprotectable_entries == 0


def a_table_is_linked_again_before_its_frame_is_unprotected(seeds: range) -> None:
    """The frame traps, and so its new table must follow each store."""
    setting = claiming()
    setting.protect(5)
    setting.slots.unfinished = {5}
    setting.unprotect(5)
    assert setting.domain.protected() == [5]
    assert setting.still_trapping(5) == [True]
    assert setting.protect(5) == [0]
    setting.slots.unfinished = set()
    setting.traps.unprotect_deferred()
    assert setting.domain.protected() == [5]


def a_plain_frame_is_freed(seeds: range) -> None:
    guest, engine = bench()
    engine.destroy_space(*SPACE)
    assert guest.protected == set()
    engine.close()


def a_successor(seeds: range) -> None:
    """A request waits for frame 5, which the predecessor had protected, and the record of that was lost."""
    setting = claiming()
    setting.slots.unfinished = {5}
    setting.succeed()
    setting.traps.protect_in_flight()
    assert setting.domain.protected() == [5]
    assert setting.still_trapping(5, 8) == [True, False]


def the_end_of_relaxed_mode(seeds: range) -> None:
    guest, engine = bench()
    guest.store(engine, LEAF * FRAME + 8, 8, pte(20))
    engine.set_sync_mode(Sync.STRICT)
    assert (LEAF in guest.protected, unsynced_frames(engine)) == (True, set())
    assert engine.resolve(engine.spaces[0], FRAME) is not None


def the_life_of_a_table(seeds: range) -> None:
    """Settled after so many syncs, unsynced by a store in each of two submissions, and then more patient each time."""
    guest, engine = bench()
    turns = 0
    for patience in (2, 4, 8):
        for _ in range(lib.XD_CALM):
            engine.submit(*SPACE)
        assert LEAF in guest.protected
        for turn in range(patience):
            assert guest.store(engine, LEAF * FRAME + 8, 8, pte(20 + turn % 2)), (patience, turn)
            engine.submit(*SPACE)
        assert unsynced_frames(engine) == {LEAF}
        turns += patience
    assert engine.counters.opened_pages == 3
    assert engine.counters.settled_tables == 3


class Rule(NamedTuple):
    """What takes a rule out: ``owner``'s function of this name becomes ``instead``; then the scenario fails."""

    scenario: Callable[[range], None]
    owner: Any
    name: str
    instead: Any


def whatever_is_in_flight(gfns: Any, *rest: Any) -> list[int]:
    return list(gfns)


RULES = {
    "R1 an answer is given under the trap": Rule(LATE, ClaimTraps, "late_stores_trap", property(lambda self: False)),
    "R2 a busy frame stays protected": Rule(REP, claim, "may_become_ram", whatever_is_in_flight),
    "R2 with 4 vCPUs": Rule(REP_4, claim, "may_become_ram", whatever_is_in_flight),
    "R3 guard ranges": Rule(LATE, ClaimTraps, "_guard", lambda self, gfns: list(gfns)),
    "R4 a second look": Rule(named_after_the_change, claim, "make_ram", lambda gfns, port, *rest: set_ram(gfns, port)),
    "R5 a barrier tells": Rule(REP, Barriers, "make_if_due", lambda self: True),
    "R5 few barriers": Rule(another_vcpu_is_storing, Barriers, "make_if_due", Barriers.make),
    "R6 each sync reads": Rule(REP, Syncer, "_begin", lambda self, space: lib.XD_SYNC_DONE),
    "R7 only leaf tables": Rule(an_unsynced_table_becomes_a_directory, LeafTables, "protect", lambda self, gfns: True),
    "R8 linked again": Rule(
        a_table_is_linked_again_before_its_frame_is_unprotected, ClaimTraps, "still_trapping", lambda *arguments: 0
    ),
    "R9 a look before": Rule(STRADDLES, claim, "straddled", lambda *arguments: set()),
    "R9 a look after": Rule(STRADDLES, ClaimTraps, "_take_back", lambda self, gfns, new: set()),
    "R9 both": Rule(a_held_store, ClaimTraps, "held", lambda self, gfn: None),
    "R10 a new table waits": Rule(
        a_new_table_waits_for_a_store, ClaimTraps, "_may_be_straddled", lambda self, gfns, count: False
    ),
    "R10 a forced protect waits": Rule(a_directory_waits_for_a_store, LeafTables, "_must_wait", lambda *arguments: 0),
    "R11 a successor": Rule(a_successor, ClaimTraps, "protect_in_flight", lambda self: None),
    "R12 strict": Rule(the_end_of_relaxed_mode, LeafTables, "protect_all", lambda self: iter(())),
    "a table settles": Rule(the_life_of_a_table, LeafTables, "settle", lambda self: ([], ())),
    "candidates": Rule(the_life_of_a_table, LeafTables, "unsync_stored", lambda self: None),
}

SCENARIOS: dict[str, Callable[[range], None]] = {
    "rep": REP,
    "rep, 4 vCPUs": REP_4,
    "late stores": LATE,
    "straddling": STRADDLES,
    "straddling, 4 vCPUs": STRADDLES_4,
    "mode switches": SWITCHES,
    "mode switches, 4 vCPUs": SWITCHES_4,
    **{
        one.__name__: one
        for one in (
            named_after_the_change,
            another_vcpu_is_storing,
            a_held_store,
            a_new_table_waits_for_a_store,
            a_directory_waits_for_a_store,
            an_unsynced_table_becomes_a_directory,
            a_table_is_linked_again_before_its_frame_is_unprotected,
            a_plain_frame_is_freed,
            a_successor,
            the_end_of_relaxed_mode,
            the_life_of_a_table,
        )
    },
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_with_all_rules(name: str) -> None:
    SCENARIOS[name](SEEDS)


@pytest.mark.parametrize("name", RULES)
def test_without_the_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[name]
    monkeypatch.setattr(rule.owner, rule.name, rule.instead)
    with pytest.raises((AssertionError, DomainCrashedError)):
        rule.scenario(MORE_SEEDS)


def test_a_late_store_to_an_unsynced_table_is_protected_before_the_answer() -> None:
    """The one who stores to guest memory for a CPU asks for it."""
    guest, engine = bench()
    guest.late_stores_trap = True
    assert engine.store(LEAF * FRAME + 8, 8, pte(20)) == lib.XD_ROUTE_LEAF_STORE
    assert LEAF in guest.protected
    assert engine.resolve(engine.spaces[0], FRAME) is not None
