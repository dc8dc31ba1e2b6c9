"""An entry that maps nothing is counted for the one reason that it has."""

from __future__ import annotations

import pytest

from tests.support.engine_bench import EngineBench
from tests.support.tables import pte
from xengt_dm.ppgtt.space import Mode

ROOT, PDP, PD, LEAF, OTHER = range(1, 6)


def counts(guest: EngineBench, roots: tuple[int, ...], quota: int) -> tuple[int, int, int]:
    """Tables; entries and roots whose table cannot be protected; entries and roots for which the quota has no room."""
    engine = guest.make_engine(max_tables=quota)
    for root in roots:
        engine.create_space(Mode.L4, (root << 12,))
    counters = engine.counters
    return counters.tables, counters.unprotectable_entries, counters.quota_entries


def chain() -> EngineBench:
    guest = EngineBench(64)
    for table, child in ((ROOT, PDP), (PDP, PD), (PD, LEAF)):
        guest.put(table, 0, pte(child))
    return guest


@pytest.mark.parametrize("refused", [PDP, PD, LEAF])
def test_a_table_that_cannot_be_protected_is_not_refused_by_the_quota(refused: int) -> None:
    guest = chain()
    guest.refuse = {refused}
    assert counts(guest, (ROOT,), 1024) == (refused - ROOT, 1, 0)


def test_one_of_two_entries_that_cannot_be_protected() -> None:
    guest = chain()
    guest.put(PD, 1, pte(OTHER))
    guest.refuse = {OTHER}
    assert counts(guest, (ROOT,), 1024) == (4, 1, 0)


def test_a_root_that_cannot_be_protected_is_not_refused_by_the_quota() -> None:
    guest = chain()
    guest.refuse = {OTHER}
    assert counts(guest, (OTHER,), 1024) == (0, 1, 0)


def test_what_the_quota_refuses_can_be_protected() -> None:
    assert counts(chain(), (ROOT,), 3) == (3, 0, 1)
