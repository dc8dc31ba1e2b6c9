"""Write traps of both kinds: what they ask of the hypervisor, in which order, and what becomes of failures."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.support.faults import Call, fail_nth
from tests.support.trapping import Setting
from xengt_dm._core import ffi
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.hypervisor.port import MemType
from xengt_dm.steps import complete
from xengt_dm.traps.claim import MOST_GUARDED
from xengt_dm.traps.guard_ranges import MOST
from xengt_dm.traps.unprotect import BATCH
from xengt_dm.units import CData


@pytest.fixture(params=["4.17", "v7"])
def any_kind(request: pytest.FixtureRequest) -> Iterator[Setting]:
    setting = Setting(request.param)
    with setting.domain:
        yield setting


@pytest.fixture
def claim() -> Iterator[Setting]:
    setting = Setting("4.17")
    with setting.domain:
        yield setting


@pytest.fixture
def by_ranges() -> Iterator[Setting]:
    setting = Setting("v7")
    with setting.domain:
        yield setting


# Order


def test_claim_guards_before_it_unprotects(claim: Setting) -> None:
    assert claim.protect(5, 6) == [0, 0]
    claim.unprotect(5)
    assert claim.taken() == [("trap", 5), ("trap", 6), ("range", 5), ("plain", 5)]
    assert claim.traps.drop_guard_ranges()
    assert claim.taken() == [("barrier",), ("no range", 5)]


def test_claim_drops_the_guard_range_of_what_is_protected_again(claim: Setting) -> None:
    claim.protect(5)
    assert claim.unsync(5)
    claim.taken()
    assert claim.resync(5) == [0]
    assert claim.taken() == [("trap", 5), ("no range", 5)]


def test_ranges_come_first_and_go_last(by_ranges: Setting) -> None:
    assert by_ranges.protect(5, 6) == [0, 0]
    assert by_ranges.taken() == [("range", 5), ("range", 6), ("trap", 5), ("trap", 6)]
    assert by_ranges.unsync(5)
    assert by_ranges.resync(5) == [0]
    assert by_ranges.unsync(6)
    by_ranges.unprotect(5)
    assert by_ranges.taken() == [("plain", 5), ("trap", 5), ("plain", 6), ("plain", 5)]
    assert by_ranges.traps.drop_guard_ranges()
    assert by_ranges.taken() == [("barrier",), ("no range", 5), ("no range", 6)]


def test_what_a_waiting_vcpu_may_still_store_to_stays_guarded(any_kind: Setting) -> None:
    any_kind.protect(5, 6, 7)
    any_kind.unprotect(5, 6, 7)
    any_kind.slots.in_flight = {5, 6}
    any_kind.taken()
    assert not any_kind.traps.drop_guard_ranges()
    assert any_kind.taken() == [("barrier",), ("no range", 7)]
    any_kind.slots.in_flight = set()
    assert any_kind.traps.drop_guard_ranges()
    assert any_kind.ranges() == 0


def test_a_request_that_came_during_the_barrier_counts(any_kind: Setting) -> None:
    any_kind.protect(5)
    any_kind.unprotect(5)
    any_kind.slots.next_in_flight = [set(), {5}, set(), set()]
    assert not any_kind.traps.drop_guard_ranges()
    assert any_kind.traps.drop_guard_ranges()


def test_what_a_store_frees_while_all_is_unprotected(any_kind: Setting) -> None:
    """All is unprotected in slices, and a store that is served in between may unlink tables that are still to come."""
    frames = range(BATCH + 8)
    any_kind.protect(*frames)
    slices = any_kind.traps.unprotect_all()
    next(slices)
    any_kind.unprotect(BATCH, BATCH + 1)
    assert complete(slices)
    any_kind.traps.check()
    assert any_kind.domain.protected() == []


# Room


def test_claim_guards_few_at_a_time(claim: Setting) -> None:
    for gfn in range(0, 2 * MOST_GUARDED * 3, 2):
        claim.protect(gfn)
        claim.unprotect(gfn)
        assert claim.ranges() <= MOST_GUARDED


def test_what_finds_no_range_fails_alone(by_ranges: Setting) -> None:
    scattered = [2 * i for i in range(MOST + 3)]
    assert by_ranges.protect(*scattered) == [0] * MOST + [errno.ENOSPC] * 3
    assert by_ranges.domain.protected() == scattered[:MOST]
    assert by_ranges.protect(2 * MOST - 1) == [0]  # a neighbour
    assert by_ranges.protect(2 * MOST) == [0]
    by_ranges.traps.unprotect_by_force()
    by_ranges.traps.drop_guard_ranges()
    assert (by_ranges.domain.protected(), by_ranges.ranges()) == ([], 0)


def test_room_is_made_of_what_only_late_stores_need(by_ranges: Setting) -> None:
    by_ranges.protect(*[2 * i for i in range(MOST)])
    by_ranges.unprotect(0, 2, 4)
    by_ranges.taken()
    assert by_ranges.protect(1001, 1003, 1005, 1007) == [0, 0, 0, errno.ENOSPC]
    assert ("barrier",) in by_ranges.taken()


def test_no_frame_of_a_batch_is_taken_for_idle(by_ranges: Setting) -> None:
    by_ranges.protect(*[2 * i for i in range(MOST - 1)])
    by_ranges.unprotect(0)
    assert by_ranges.protect(1001, 1003) == [0, 0]
    for gfn in (1001, 1003):
        assert by_ranges.has_range(gfn)


def test_an_unsynced_frame_for_which_no_range_is_left_stays_unsynced(by_ranges: Setting) -> None:
    by_ranges.protect(*[2 * i for i in range(MOST)])
    assert by_ranges.unsync(10)
    assert by_ranges.protect(1001) == [0]
    assert by_ranges.resync(10) == [errno.ENOSPC]
    assert 10 not in by_ranges.domain.protected()


# Frames that the guest gives back


def test_no_guard_range_stays_over_a_hole(any_kind: Setting) -> None:
    any_kind.protect(5)
    any_kind.unprotect(5)
    assert any_kind.ranges() == 1
    any_kind.remove(5)
    any_kind.traps.frames_changed()
    assert any_kind.ranges() == 0


def test_a_frame_that_is_gone_when_it_is_unprotected(any_kind: Setting) -> None:
    any_kind.protect(5)
    any_kind.remove(5)
    any_kind.unprotect(5)
    assert any_kind.ranges() == 0
    assert any_kind.traps.vanished == 1
    assert not any_kind.traps.protected


def test_a_lost_frame_has_no_range_but_room_for_one(by_ranges: Setting) -> None:
    by_ranges.protect(*[2 * i for i in range(MOST)])
    by_ranges.remove(10)
    by_ranges.traps.frames_changed()
    assert by_ranges.ranges() == MOST - 1
    assert by_ranges.protect(1001) == [errno.ENOSPC]
    by_ranges.verify(10)  # a hole still
    assert by_ranges.ranges() == MOST - 1
    by_ranges.domain.set_type(10, 1, P2mType.RAM_RW)
    by_ranges.verify(10)
    assert 10 in by_ranges.domain.protected()
    by_ranges.remove(10)
    by_ranges.traps.frames_changed()
    by_ranges.unprotect(10)
    assert by_ranges.protect(1001) == [0]  # its room is free


def test_a_replaced_frame_is_not_ours_until_it_is_verified(by_ranges: Setting) -> None:
    """Its page is another than the one we have mapped, and so no store may come to us for it."""
    by_ranges.protect(5, 6)
    by_ranges.domain.set_type(5, 1, P2mType.RAM_RW)
    by_ranges.traps.frames_changed()
    assert by_ranges.domain.protected() == [6]
    assert by_ranges.traps.gaps == 1
    by_ranges.verify(5, 6)
    assert by_ranges.domain.protected() == [5, 6]


def test_an_unsynced_frame_that_goes_loses_its_range(by_ranges: Setting) -> None:
    by_ranges.protect(5)
    assert by_ranges.unsync(5)
    by_ranges.remove(5)
    by_ranges.traps.frames_changed()
    assert by_ranges.ranges() == 0
    assert by_ranges.resync(5) == [errno.EINVAL]
    assert by_ranges.ranges() == 0
    by_ranges.domain.set_type(5, 1, P2mType.RAM_RW)
    assert by_ranges.resync(5) == [0]
    assert by_ranges.domain.protected() == [5]


def test_claim_verifies_by_protecting_again(claim: Setting) -> None:
    claim.protect(5, 6, 7)
    claim.domain.set_type(5, 1, P2mType.RAM_RW)
    claim.remove(6)
    claim.verify(5, 6, 7)
    assert claim.domain.protected() == [5, 7]
    fail_nth(claim.domain, 1, errno.ENOMEM, Call.SET_MEM_TYPE)
    claim.verify(5)  # tried once more


# Mapping


def test_a_chunk_is_mapped_while_its_frames_are_plain(by_ranges: Setting) -> None:
    by_ranges.protect(5, 600)
    by_ranges.taken()
    errors = ffi.new("int[]", 512)
    address = by_ranges.traps.map_frames(0, 512, errors)
    assert by_ranges.taken() == [("plain", 5), ("map", 0), ("trap", 5)]
    assert not any(errors)
    assert by_ranges.traps.gaps == 1
    by_ranges.remove(5)
    assert by_ranges.traps.map_frames(0, 512, errors, address) == address
    assert [gfn for gfn in range(512) if errors[gfn]] == [5]
    assert by_ranges.domain.protected() == [600]


def test_a_chunk_that_cannot_be_mapped_is_protected_again(by_ranges: Setting) -> None:
    by_ranges.protect(5)
    fail_nth(by_ranges.domain, 1, errno.ENOMEM, Call.MAP_FRAMES)
    with pytest.raises(HostError, match="ENOMEM"):
        by_ranges.traps.map_frames(0, 512, ffi.new("int[]", 512))
    assert by_ranges.domain.protected() == [5]


# What fails


def test_what_cannot_be_unprotected_stays_trapped_and_is_tried_again(any_kind: Setting) -> None:
    any_kind.protect(5, 6)
    change = any_kind.port.set_mem_types

    def refuse(mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        for i in range(count):
            errors[i] = errno.EAGAIN
        return count

    any_kind.port.set_mem_types = refuse  # type: ignore[method-assign]
    any_kind.unprotect(5, 6)
    assert not any_kind.unsync(5)
    any_kind.port.set_mem_types = change  # type: ignore[method-assign]
    assert any_kind.domain.protected() == [5, 6]
    assert any_kind.protect(6) == [0]  # wanted again, and protected still
    any_kind.traps.unprotect_deferred()
    assert any_kind.domain.protected() == [6]


def test_claim_unprotects_nothing_without_a_guard_range(claim: Setting) -> None:
    claim.protect(5)

    def refuse(server: int, first: int, last: int) -> None:
        raise HostError("map_io_range", 1, errno.ENOMEM)

    cover = claim.port.map_mmio
    claim.port.map_mmio = refuse  # type: ignore[method-assign]
    assert not claim.unsync(5)
    claim.unprotect(5)
    assert claim.domain.protected() == [5]
    claim.port.map_mmio = cover  # type: ignore[method-assign]
    claim.traps.unprotect_deferred()
    assert claim.domain.protected() == []


def test_nothing_is_protected_once_stopped(any_kind: Setting) -> None:
    any_kind.protect(5)
    assert any_kind.unsync(5)
    any_kind.protect(6)
    any_kind.traps.refuse_new()
    assert any_kind.still_trapping(7) == [True]
    assert any_kind.protect(7) == [errno.ESHUTDOWN]
    assert any_kind.resync(5) == [errno.ESHUTDOWN]
    assert not any_kind.unsync(6)
    any_kind.traps.unprotect_by_force()
    assert any_kind.traps.drop_guard_ranges()
    assert (any_kind.domain.protected(), any_kind.ranges()) == ([], 0)
