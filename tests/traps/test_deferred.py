"""A frame that a vCPU is storing to stays protected until the store is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.protections import Setting
from xengt_dm.traps.protection import UNSYNC_TRIES


@pytest.fixture
def claim() -> Iterator[Setting]:
    setting = Setting("4.17")
    with setting.domain:
        yield setting


def test_claim_lets_nothing_go_that_is_being_stored_to(claim: Setting) -> None:
    claim.protect(5, 6)
    claim.protection.latest = lambda: ({5}, set())
    assert claim.unprotect(5, 6) == 2
    assert claim.domain.protected() == [5]
    assert not claim.protection.settle()
    assert claim.domain.protected() == [5]
    claim.protection.latest = lambda: (set(), set())
    assert claim.protection.settle()
    assert claim.domain.protected() == []


def test_claim_opens_nothing_that_is_being_stored_to(claim: Setting) -> None:
    claim.protect(5)
    claim.protection.latest = lambda: ({5}, set())
    assert not claim.protection.unsync(5)
    assert claim.protection.settle()
    claim.protection.latest = lambda: (set(), set())
    assert claim.protection.take_retries() == [5]
    assert claim.protection.unsync(5)


def test_only_a_barrier_tells_whether_an_answered_store_is_over(claim: Setting) -> None:
    claim.protect(5, 6)
    looks = iter([(set[int](), {5}), ({5}, set[int]()), (set[int](), set[int]())])
    claim.protection.latest = lambda: next(looks)
    claim.taken()
    claim.unprotect(5, 6)
    assert claim.taken() == [("barrier",), ("range", 6), ("plain", 6)]


def test_a_store_that_began_before_the_type_changed_ends_under_the_old_one(claim: Setting) -> None:
    claim.protect(5, 6)
    looks = iter([(set[int](), set[int]()), ({6}, set[int]())])
    claim.protection.latest = lambda: next(looks)
    claim.taken()
    claim.unprotect(5, 6)
    assert claim.taken()[-2:] == [("plain", 6), ("trap", 6)]
    assert claim.domain.protected() == [6]
    claim.protection.latest = lambda: ({6}, set())
    assert not claim.protection.settle()
    assert claim.protect(6) == [0]
    assert claim.protection.settle()
    assert claim.domain.protected() == [6]


def test_in_the_end_everything_goes_whatever_is_under_way(claim: Setting) -> None:
    claim.protect(5, 6)
    claim.protection.latest = lambda: ({5}, set())
    assert not claim.protection.wind_down()
    assert claim.domain.protected() == [5]
    claim.protection.release()
    assert claim.domain.protected() == []


def test_an_unsync_that_was_refused_is_retried(claim: Setting) -> None:
    claim.protect(5, 6)
    assert claim.protection.take_retries() == []
    claim.protection.latest = lambda: ({5, 6}, set())
    assert not claim.protection.unsync(5)
    assert not claim.protection.unsync(6)
    claim.taken()
    assert not claim.protection.unsync(5)  # a second store, which asks nothing anew
    assert claim.taken() == []
    claim.protection.latest = lambda: ({6}, set())
    assert claim.protection.take_retries() == [5, 6]
    assert claim.protection.unsync(5)
    assert not claim.protection.unsync(6)
    assert claim.protection.take_retries() == [6]


def test_an_unsync_is_not_retried_for_ever(claim: Setting) -> None:
    claim.protect(5)
    claim.protection.latest = lambda: ({5}, set())
    assert not claim.protection.unsync(5)
    for _ in range(UNSYNC_TRIES):
        assert claim.protection.take_retries() == [5]
        assert not claim.protection.unsync(5)
    assert claim.protection.take_retries() == []
    claim.protection.latest = lambda: (set(), set())
    assert claim.protection.unsync(5)  # at the next store


def test_a_retry_that_nobody_asks_for_is_dropped(claim: Setting) -> None:
    """The engine does not: the table is gone, or the mode is strict by now."""
    claim.protect(5)
    claim.protection.latest = lambda: ({5}, set())
    assert not claim.protection.unsync(5)
    assert claim.protection.take_retries() == [5]
    assert claim.protection.take_retries() == []
