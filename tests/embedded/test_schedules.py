"""Two vCPUs store to the same tables while the daemon unsyncs, resyncs and unprotects them, in many orders.

No store is lost, whenever a type changes under it, and no guest that stores by ``rep stos`` is crashed. That this test
would notice is shown by taking away the guard ranges; tests/embedded/test_relaxed_rules.py takes away the other rules.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.orders import explore
from xengt_dm.hypervisor.port import WriteTrap
from xengt_dm.instance import WRITE_TRAPS
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.traps.guard_ranges import barrier

pytestmark = pytest.mark.slow

SEEDS = range(100)


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
    unsynced = settled = 0
    for seed in SEEDS:
        outcome = explore(seed, flavour, sync, WRITE_TRAPS, stop_early, rep_stores=True)
        assert outcome.lost == [], f"seed {seed}"
        assert outcome.mismatches == 0, f"seed {seed}"
        unsynced += outcome.unsynced
        settled += outcome.settled
    assert bool(unsynced) == bool(settled) == (sync is Sync.RELAXED)


class Unguarded(ClaimTraps):
    """Unprotects frames without a guard range."""

    def _guard(self, gfns: Sequence[int]) -> list[int]:
        return list(gfns)


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
