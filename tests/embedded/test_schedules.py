"""Two vCPUs store to the same tables while the daemon unsyncs, resyncs and unprotects them, in many orders.

No store is lost, whenever a type changes under it, and no guest that stores by ``rep stos`` is crashed. That this test
would notice is shown by taking away, in turn, each of the things that keep a store from being lost and a guest alive.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from tests.support.engine_bench import audit
from tests.support.schedule import Schedule, ScheduledPort, Store
from tests.support.serving import serve_all
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.errors import DomainCrashedError
from xengt_dm.hypervisor.port import DomainPort, MemType, WriteTrap
from xengt_dm.instance import WRITE_TRAPS, Settings, TrapsMaker, open_instance
from xengt_dm.ioreq.slots import Slots
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import complete, finish
from xengt_dm.traps import claim
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.traps.guard_ranges import barrier
from xengt_dm.traps.state import Event
from xengt_dm.traps.unprotect import MadeRam, set_ram

pytestmark = pytest.mark.slow

PATIENCE = 20.0
ROOT, POINTERS, DIRECTORY = 4, 5, 6
LEAVES = (8, 10, 11)
FRAMES = 64
STORES = 6
SEEDS = range(100)


def programs(rng: random.Random) -> dict[int, list[Store]]:
    """What each vCPU stores: to a half of each table of its own; and the first takes tables out and puts them back."""
    result: dict[int, list[Store]] = {}
    for vcpu in range(2):
        stores: list[Store] = []
        for _ in range(STORES):
            leaf = rng.choice(LEAVES)
            size = rng.choice([4, 8, 8, 16, 32, 64])
            offset = vcpu * 2048 + rng.randrange(0, 2048 - size, 4)
            stores.append((leaf * FRAME + offset, rng.randbytes(size)))
            if vcpu == 0 and rng.random() < 0.5:
                slot = rng.randrange(len(LEAVES))
                at = DIRECTORY * FRAME + 8 * slot
                stores.extend((at, entry.to_bytes(8, "little")) for entry in (0, pte(LEAVES[slot])))
        result[vcpu] = stores
    return result


@dataclass
class Outcome:
    lost: list[int]
    mismatches: int
    turns: list[str]
    #: How often tables were unsynced.
    unsynced: int


def explore(
    seed: int,
    flavour: str,
    sync: Sync,
    write_traps: Mapping[WriteTrap, TrapsMaker],
    stop_early: bool = False,
    rep_stores: bool = False,
) -> Outcome:
    rng = random.Random(seed)
    stores = programs(rng)
    with EmbeddedDomain(FRAMES, 2, flavour, rep_stores=rep_stores) as domain:
        for gfn, slot, child in (
            (ROOT, 0, POINTERS),
            (POINTERS, 0, DIRECTORY),
            *((DIRECTORY, slot, leaf) for slot, leaf in enumerate(LEAVES)),
        ):
            domain.write(gfn * FRAME + 8 * slot, pte(child).to_bytes(8, "little"))
        schedule = Schedule(domain, seed)
        port = ScheduledPort(domain, schedule)
        mismatches = 0
        roots = (ROOT * FRAME,)
        with open_instance(port, Settings(sync=sync), write_traps=write_traps) as instance:
            complete(instance.engine.create_space(Mode.L4, roots))
            schedule.start(stores)
            looks = 0
            while schedule.turn() and not (stop_early and looks > 8):
                looks += 1
                assert looks < 10_000, f"nothing happens any more (seed {seed})"
                if rng.random() < 0.3:
                    finish(instance.engine.submit(Mode.L4, roots))
                if rng.random() < 0.3:
                    instance.traps.drop_guard_ranges()
                serve_all(instance.loop)
                instance.traps.check()
            if not stop_early:
                (space,) = instance.engine.spaces
                mismatches = sum(audit(WholeEngine(instance.engine), space))
        schedule.finish()
        assert domain.protected() == []
        unsynced = int(instance.stats.counters.opened_pages)
        assert domain.join(PATIENCE)
        return Outcome(wrong(domain, stores), mismatches, schedule.turns, unsynced)


def wrong(domain: EmbeddedDomain, stores: Mapping[int, Sequence[Store]]) -> list[int]:
    """Addresses that do not hold what was stored there last."""
    memory: dict[int, int] = {}
    for each in stores.values():
        for gpa, data in each:
            memory.update((gpa + i, byte) for i, byte in enumerate(data))
    return [gpa for gpa, byte in memory.items() if domain.read(gpa, 1)[0] != byte]


@pytest.mark.parametrize("stop_early", [False, True], ids=["to the end", "stopped early"])
@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@pytest.mark.parametrize("flavour", ["4.17", "v7"])
def test_no_store_is_lost(flavour: str, sync: Sync, stop_early: bool) -> None:
    for seed in SEEDS:
        outcome = explore(seed, flavour, sync, WRITE_TRAPS, stop_early)
        assert outcome.lost == [], f"seed {seed}"
        assert outcome.mismatches == 0, f"seed {seed}"


@pytest.mark.parametrize("stop_early", [False, True], ids=["to the end", "stopped early"])
@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@pytest.mark.parametrize("flavour", ["4.17", "v7"])
def test_no_rep_store_ends_the_guest(flavour: str, sync: Sync, stop_early: bool) -> None:
    unsynced = 0
    for seed in SEEDS:
        outcome = explore(seed, flavour, sync, WRITE_TRAPS, stop_early, rep_stores=True)
        assert outcome.lost == [], f"seed {seed}"
        assert outcome.mismatches == 0, f"seed {seed}"
        unsynced += outcome.unsynced
    assert bool(unsynced) == (sync is Sync.RELAXED)


class Unguarded(ClaimTraps):
    """Unprotects frames without a guard range."""

    def _guard(self, gfns: Sequence[int]) -> list[int]:
        return list(gfns)


class UnsyncsAtOnce(ClaimTraps):
    """Unsyncs a frame during the store that asks for it."""

    def unsync(self, gfn: int) -> bool:
        return self.protected.issuperset([gfn]) and bool(self._make_ram([gfn], Event.UNSYNC))


def whatever_is_in_flight(gfns: Sequence[int], port: DomainPort, server: int, slots: Slots) -> list[int]:
    """As may_become_ram, but lets every frame become RAM."""
    return list(gfns)


def without_a_barrier(gfns: Sequence[int], port: DomainPort, server: int, slots: Slots) -> list[int]:
    """As may_become_ram, but takes every store for done whose answer was taken."""
    unfinished = slots.last_stores().unfinished
    return [gfn for gfn in gfns if gfn not in unfinished]


def without_a_second_look(gfns: Sequence[int], port: DomainPort, slots: Slots, trap: MemType) -> MadeRam:
    """As make_ram, but does not look again once the type has changed."""
    return set_ram(gfns, port)


@pytest.mark.parametrize(
    ("traps", "name", "broken"),
    [
        (UnsyncsAtOnce, "may_become_ram", whatever_is_in_flight),
        (ClaimTraps, "may_become_ram", without_a_barrier),
        (ClaimTraps, "make_ram", without_a_second_look),
    ],
    ids=["at once", "no barrier", "one look"],
)
def test_without_it_some_rep_store_ends_the_guest(
    traps: type[ClaimTraps], name: str, broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, name, broken)

    def explore_all() -> None:
        for seed in SEEDS:
            explore(seed, "4.17", Sync.RELAXED, {WriteTrap.CLAIM: traps}, rep_stores=True)

    with pytest.raises(DomainCrashedError, match="rep store"):
        explore_all()


class NoLooking(ClaimTraps):
    """Drops guard ranges behind a barrier, wherever vCPUs wait."""

    def drop_guard_ranges(self) -> bool:
        if barrier(self._port, self._server):
            self._guards.drop(self._guards.frames())
        return not len(self._guards)


@pytest.mark.parametrize("broken", [Unguarded, NoLooking])
def test_without_it_some_seed_loses_a_store_each_time(broken: type[ClaimTraps]) -> None:
    losing = next(seed for seed in SEEDS if explore(seed, "4.17", Sync.RELAXED, {WriteTrap.CLAIM: broken}).lost)
    first, again = (explore(losing, "4.17", Sync.RELAXED, {WriteTrap.CLAIM: broken}) for _ in range(2))
    print(f"{broken.__name__} loses a store with seed {losing}, in {len(first.turns)} turns")
    assert first.lost
    assert (again.lost, again.turns) == (first.lost, first.turns)


def test_a_seed_is_one_order() -> None:
    first, again, other = (explore(seed, "4.17", Sync.RELAXED, WRITE_TRAPS) for seed in (3, 3, 4))
    assert first.turns == again.turns
    assert first.turns != other.turns
