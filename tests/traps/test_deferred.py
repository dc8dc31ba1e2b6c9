"""A frame that a vCPU is storing to stays protected until the store is over."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.support.trapping import Setting, stores
from xengt_dm.steps import complete
from xengt_dm.traps.retry import UNSYNC_TRIES


@pytest.fixture
def claim() -> Iterator[Setting]:
    """On a domain where a store that is under way must end before its frame becomes RAM."""
    setting = Setting("4.17", rep_stores=True)
    with setting.domain:
        yield setting


@pytest.fixture
def patient() -> Iterator[Setting]:
    """On a domain where a frame may become RAM in the middle of a store."""
    setting = Setting("4.17")
    with setting.domain:
        yield setting


def test_claim_unprotects_nothing_that_is_being_stored_to(claim: Setting) -> None:
    claim.protect(5, 6)
    claim.slots.unfinished = {5}
    assert claim.unprotect(5, 6) == 2
    assert claim.domain.protected() == [5]
    assert not claim.traps.unprotect_deferred()
    assert claim.domain.protected() == [5]
    claim.slots.unfinished = set()
    assert claim.traps.unprotect_deferred()
    assert claim.domain.protected() == []


def test_claim_unsyncs_nothing_that_is_being_stored_to(claim: Setting) -> None:
    claim.protect(5)
    claim.slots.unfinished = {5}
    assert not claim.traps.unsync(5)
    assert claim.retry_unsyncs() == []
    assert claim.domain.protected() == [5]
    assert claim.traps.unprotect_deferred()
    claim.slots.unfinished = set()
    assert claim.retry_unsyncs() == [5]
    assert claim.domain.protected() == []


def test_only_a_barrier_tells_whether_an_answered_store_is_over(claim: Setting) -> None:
    claim.protect(5, 6)
    claim.slots.next_stores = [stores(finished={5}), stores(unfinished={5}), stores()]
    claim.taken()
    claim.unprotect(5, 6)
    assert claim.taken() == [("barrier",), ("range", 6), ("plain", 6)]


def test_a_store_that_began_before_the_type_changed_ends_under_the_old_one(claim: Setting) -> None:
    claim.protect(5, 6)
    claim.slots.next_stores = [stores(), stores(unfinished={6})]
    claim.taken()
    claim.unprotect(5, 6)
    assert claim.taken()[-2:] == [("plain", 6), ("trap", 6)]
    assert claim.domain.protected() == [6]
    claim.slots.unfinished = {6}
    assert not claim.traps.unprotect_deferred()
    assert claim.protect(6) == [0]
    assert claim.traps.unprotect_deferred()
    assert claim.domain.protected() == [6]


def test_in_the_end_everything_goes_whatever_is_under_way(claim: Setting) -> None:
    claim.protect(5, 6)
    claim.slots.unfinished = {5}
    claim.traps.refuse_new()
    assert not complete(claim.traps.unprotect_all())
    assert claim.domain.protected() == [5]
    claim.traps.unprotect_by_force()
    assert claim.domain.protected() == []


# Retries of unsyncing


def test_the_store_that_asks_is_under_way_and_costs_no_look(claim: Setting) -> None:
    claim.protect(5)
    claim.taken()
    assert not claim.traps.unsync(5)
    assert not claim.traps.unsync(5)  # a second store before the first was retried
    assert claim.taken() == []
    assert claim.retry_unsyncs() == [5]


def test_an_unsync_that_was_refused_is_retried(claim: Setting) -> None:
    claim.protect(5, 6)
    assert claim.traps.take_retries() == []
    assert not claim.traps.unsync(5)
    assert not claim.traps.unsync(6)
    claim.slots.unfinished = {6}
    assert claim.retry_unsyncs() == [5]
    assert claim.traps.take_retries() == [6]


def test_an_unsync_that_xen_refused_is_retried(patient: Setting) -> None:
    patient.protect(5)
    change = patient.port.set_mem_types
    patient.port.set_mem_types = lambda mem_type, gfns, count, errors: _refuse(count, errors)  # type: ignore[method-assign]
    assert not patient.traps.unsync(5)
    patient.port.set_mem_types = change  # type: ignore[method-assign]
    assert not patient.traps.unsync(5)
    assert patient.retry_unsyncs() == [5]


def test_an_unsync_is_not_retried_for_ever(claim: Setting) -> None:
    claim.protect(5)
    claim.slots.unfinished = {5}
    assert not claim.traps.unsync(5)
    for _ in range(UNSYNC_TRIES):
        assert claim.traps.take_retries() == [5]
        assert not claim.traps.unsync(5)
    assert claim.traps.take_retries() == []
    claim.slots.unfinished = set()
    assert not claim.traps.unsync(5)  # at the next store
    assert claim.retry_unsyncs() == [5]


def test_a_retry_that_nobody_asks_for_is_dropped(claim: Setting) -> None:
    """The engine does not: the table is gone, or the mode is strict by now."""
    claim.protect(5)
    assert not claim.traps.unsync(5)
    assert claim.traps.take_retries() == [5]
    assert claim.traps.take_retries() == []


def _refuse(count, errors):  # type: ignore[no-untyped-def]
    for i in range(count):
        errors[i] = errno.EAGAIN
    return count
