"""A frame that a vCPU is storing to stays protected until the store is over."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from tests.support.trapping import Setting, stores
from xengt_dm.ioreq.slots import LastStores
from xengt_dm.steps import complete
from xengt_dm.traps.unprotect import BATCH, SUBMISSIONS_A_BARRIER


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
    claim.protect(5, 8)
    claim.slots.unfinished = {5}
    claim.unprotect(5, 8)
    assert claim.domain.protected() == [5]
    assert claim.traps.deferred == 1
    assert not claim.traps.unprotect_deferred()
    assert claim.domain.protected() == [5]
    claim.slots.unfinished = set()
    assert claim.traps.unprotect_deferred()
    assert claim.domain.protected() == []


def test_claim_unsyncs_nothing_that_is_being_stored_to(claim: Setting) -> None:
    """But frames beside it: what a request names traps, so Xen goes on as it began, whatever the other half is."""
    claim.protect(4, 5, 6)
    claim.slots.unfinished = {5}
    assert not claim.unsync(4, 5, 6)
    assert claim.domain.protected() == [5]
    claim.slots.unfinished = set()
    assert claim.unsync(5)
    assert claim.domain.protected() == []


def test_only_a_barrier_tells_whether_an_answered_store_is_over(claim: Setting) -> None:
    claim.protect(5, 8)
    claim.slots.next_stores = [stores(finished={5}), stores(unfinished={5}), stores()]
    claim.taken()
    claim.unprotect(5, 8)
    assert claim.taken() == [("barrier",), ("range", 8), ("plain", 8)]


def test_few_barriers_are_made_to_save_traps(claim: Setting) -> None:
    claim.protect(5, 8)
    claim.slots.finished = {5}
    claim.taken()
    assert claim.unsync(5)
    assert claim.taken() == [("barrier",), ("range", 5), ("plain", 5)]
    claim.slots.finished = {8}
    for _ in range(SUBMISSIONS_A_BARRIER - 1):
        assert not claim.unsync(8)
    assert claim.taken() == []
    assert claim.unsync(8)
    assert claim.taken()[0] == ("barrier",)


def test_no_barrier_is_made_that_could_free_no_frame(claim: Setting) -> None:
    claim.protect(5)
    claim.slots.unfinished, claim.slots.finished = {5}, {5, 40}
    claim.taken()
    assert not claim.unsync(5)
    assert claim.taken() == []


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


def _instructions(call: Callable[[], object]) -> int:
    """How many instructions Python executes for a call."""
    count = 0

    def step(frame: FrameType, event: str, argument: object) -> Callable[..., object]:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_a_retry_takes_no_longer_the_more_frames_are_protected(claim: Setting) -> None:
    """It is made after each answer that Python gives, while the vCPUs wait."""
    claim.protect(5)
    claim.slots.unfinished = {5}
    claim.unprotect(5)
    few = _instructions(claim.traps.unprotect_deferred)
    claim.slots.unfinished = set()
    claim.protect(*range(100, 1100))
    claim.slots.unfinished = {5}
    many = _instructions(claim.traps.unprotect_deferred)
    assert few > 0, "the count counts something"
    assert many < few + 100, "a look at each of the 1,000 frames takes thousands"


def test_a_retry_takes_some_frames_and_each_has_its_turn(claim: Setting) -> None:
    """So a frame whose store never ends keeps no other one trapping, however many they are."""
    frames = range(100, 100 + 3 * BATCH)
    claim.protect(*frames)
    claim.slots.unfinished = set(frames)
    claim.unprotect(*frames)
    claim.slots.unfinished = {*range(100, 100 + BATCH + 1)}
    left = []
    for _ in range(6):
        claim.taken()
        assert not claim.traps.unprotect_deferred()
        assert sum(call[0] == "plain" for call in claim.taken()) <= BATCH
        left.append(claim.traps.deferred)
    assert left[:3] == [3 * BATCH, 2 * BATCH + 1, BATCH + 1]
    assert claim.domain.protected() == sorted(claim.slots.unfinished)
    claim.slots.unfinished = set()
    while not claim.traps.unprotect_deferred():
        pass
    assert claim.domain.protected() == []


def test_in_the_end_everything_goes_whatever_is_under_way(claim: Setting) -> None:
    claim.protect(5, 8)
    claim.slots.unfinished = {5}
    claim.traps.refuse_new()
    assert not complete(claim.traps.unprotect_all())
    assert claim.domain.protected() == [5]
    claim.traps.unprotect_by_force()
    assert claim.domain.protected() == []


def test_a_frame_whose_unprotecting_is_deferred_is_born_protected(claim: Setting) -> None:
    claim.protect(5)
    claim.slots.unfinished = {5}
    claim.unprotect(5)
    assert claim.still_trapping(5, 6) == [True, False]
    assert claim.protect(5) == [0]
    assert claim.traps.deferred == 0


# Protecting, while a store lies in the frame and the next one


@pytest.mark.parametrize(("gpa", "waits"), [(0x5FFF, False), (0x6000, True), (0x603E, True), (0x603F, False)])
def test_only_a_store_to_the_beginning_of_a_page_may_lie_in_two(claim: Setting, gpa: int, waits: bool) -> None:
    """An instruction stores 64 bytes at most."""
    claim.slots.next_stores = [LastStores({gpa}, set(), ready=frozenset({gpa})), stores()]
    assert claim.resync(5) == [errno.EINPROGRESS if waits else 0]


def test_a_new_table_waits_for_the_store_that_goes_on_behind_it(claim: Setting) -> None:
    claim.slots.unfinished = {6}
    claim.taken()
    assert claim.protect(5, 7) == [errno.EINPROGRESS, 0]
    assert claim.taken() == [("trap", 7)]
    claim.slots.unfinished = set()
    assert claim.protect(5) == [0]


def test_a_new_table_is_taken_back_if_such_a_store_comes_meanwhile(claim: Setting) -> None:
    claim.slots.next_stores = [stores(), stores(unfinished={6})]
    assert claim.protect(5, 8) == [errno.EINPROGRESS, 0]
    assert claim.domain.protected() == [8]


def test_a_new_table_with_a_store_of_its_own_waits_and_the_other_one_is_held(claim: Setting) -> None:
    claim.slots.next_stores = [stores(), stores(unfinished={5, 6})]
    assert claim.protect(5) == [errno.EINPROGRESS]
    assert claim.domain.protected() == [5]
    assert claim.traps.held(6) == 5
    claim.slots.unfinished = {5, 6}
    assert claim.protect(5) == [errno.EINPROGRESS]
    claim.slots.unfinished = {6}
    assert claim.traps.release(5)
    assert claim.domain.protected() == []
    claim.slots.unfinished = set()
    assert claim.protect(5) == [0]


def test_nobody_waits_for_a_held_store_that_was_answered(claim: Setting) -> None:
    """It was none to a table, so that nobody asked whether it is held."""
    claim.slots.next_stores = [stores(), stores(unfinished={5, 6})]
    assert claim.protect(5) == [errno.EINPROGRESS]
    assert claim.protect(5) == [0]
    assert not claim.traps.holding


def test_a_frame_that_traps_already_need_not_wait(claim: Setting) -> None:
    """The store that goes on behind it began under the trap."""
    claim.protect(5)
    claim.slots.unfinished = {5, 6}
    claim.unprotect(5)
    assert claim.protect(5) == [0]
    assert claim.domain.protected() == [5]


@pytest.mark.parametrize("forced", [False, True], ids=["settled", "forced"])
def test_a_frame_waits_for_the_store_that_goes_on_behind_it(claim: Setting, forced: bool) -> None:
    claim.slots.unfinished = {6}
    assert claim.resync(5, 7, forced=forced) == [errno.EINPROGRESS, 0]
    claim.slots.unfinished = set()
    assert claim.resync(5, forced=forced) == [0]


def test_nobody_waits_for_the_store_in_hand(claim: Setting) -> None:
    """A store to directory 6 names frame 5 as a table, which must be protected before that store is answered."""
    claim.slots.in_hand = {6}
    assert claim.resync(5) == [errno.EINPROGRESS]
    assert claim.resync(5, forced=True) == [0]
    assert claim.domain.protected() == [5]


def test_only_who_must_makes_a_barrier_for_it(claim: Setting) -> None:
    claim.slots.finished = {6}
    claim.taken()
    assert claim.resync(5) == [errno.EINPROGRESS]
    assert claim.taken() == []
    assert claim.resync(5, forced=True) == [0]
    assert claim.taken() == [("barrier",), ("trap", 5)]


def test_a_store_that_came_before_the_type_changed_makes_it_ram_again(claim: Setting) -> None:
    claim.slots.next_stores = [stores(), stores(unfinished={6})]
    claim.taken()
    assert claim.resync(5) == [errno.EINPROGRESS]
    assert claim.taken() == [("trap", 5), ("range", 5), ("plain", 5)]
    assert not claim.traps.holding


def test_with_a_store_of_its_own_the_other_one_is_held(claim: Setting) -> None:
    """The one to frame 5 trapped, so it ends under the trap; the one that goes on in 6 began when 5 was RAM."""
    claim.slots.next_stores = [stores(), stores(unfinished={5, 6})]
    assert claim.resync(5) == [0]
    assert claim.traps.holding
    assert (claim.traps.held(5), claim.traps.held(6)) == (None, 5)
    claim.slots.unfinished = {5, 6}
    assert not claim.traps.release(5)
    claim.slots.unfinished, claim.slots.finished = {6}, {5}
    claim.taken()
    assert claim.traps.release(5)
    assert claim.taken() == [("barrier",), ("range", 5), ("plain", 5)]
    assert not claim.traps.holding
    assert claim.traps.held(6) is None


def test_the_same_when_a_frame_becomes_ram_for_a_moment(claim: Setting) -> None:
    claim.protect(5)
    claim.slots.next_stores = [stores(), stores(unfinished={5, 6}), stores(unfinished={5, 6})]
    assert not claim.unsync(5)
    assert claim.domain.protected() == [5]
    assert claim.traps.held(6) == 5


# Late stores


def test_a_frame_that_a_late_store_names_traps_until_the_store_is_over(claim: Setting) -> None:
    assert claim.traps.late_stores_trap
    claim.traps.trap_late(5)
    claim.traps.trap_late(5)
    assert claim.domain.protected() == [5]
    claim.slots.unfinished = {5}
    assert not claim.traps.unprotect_deferred()
    claim.slots.unfinished = set()
    assert claim.traps.unprotect_deferred()
    assert claim.domain.protected() == []


def test_a_late_store_to_no_ram_protects_nothing(claim: Setting) -> None:
    claim.remove(5)
    claim.traps.trap_late(5)
    claim.traps.check()
    assert claim.traps.deferred == 0


def test_where_no_store_is_emulated_twice_none_need_trap(patient: Setting) -> None:
    assert not patient.traps.late_stores_trap
    patient.traps.trap_late(5)
    assert patient.domain.protected() == []
