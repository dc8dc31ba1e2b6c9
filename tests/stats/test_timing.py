"""Histograms, and what the slots' helpers note in them."""

from __future__ import annotations

from typing import Any

import pytest

from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded

FIRST, BUCKETS = lib.XD_HISTOGRAM_FIRST, lib.XD_HISTOGRAM_BUCKETS


def buckets(histogram: Any) -> dict[int, int]:
    return {i: count for i, count in enumerate(histogram.counts) if count}


@pytest.mark.parametrize("bits", range(BUCKETS - 1))
def test_a_bucket_includes_its_limit(bits: int) -> None:
    histogram = ffi.new("xd_histogram *")
    limit = 1 << FIRST + bits
    lib.xd_histogram_add(histogram, limit)
    lib.xd_histogram_add(histogram, limit + 1)
    assert buckets(histogram) == {bits: 1, bits + 1: 1}
    assert histogram.sum_ns == 2 * limit + 1


def test_the_first_and_the_last_bucket_have_all_beyond() -> None:
    histogram = ffi.new("xd_histogram *")
    for ns in (0, 1, 2, 255):
        lib.xd_histogram_add(histogram, ns)
    for ns in (1 << 40, 1 << 63):
        lib.xd_histogram_add(histogram, ns)
    assert buckets(histogram) == {0: 4, BUCKETS - 1: 2}


class Slots:
    """A page of slots with two vCPUs, from both sides."""

    def __init__(self) -> None:
        self.page = ffi.new("xd_ioreq[]", 128)
        self.taken = ffi.new("xd_taken[]", 2)
        self.counters = ffi.new("xd_counters *")
        self.timing = self.counters.timing

    def post(self, vcpu: int) -> None:
        assert not embedded.xd_slot_post(self.page, vcpu, ffi.new("xd_ioreq *", {"type": lib.XD_IOREQ_COPY, "size": 4}))

    def take(self) -> int:
        return int(lib.xd_slots_take(self.page, 2, 0, self.taken, ffi.addressof(self.timing), ffi.NULL))

    def answer(self, vcpu: int, route: int = lib.XD_ROUTE_REFUSED) -> None:
        lib.xd_slot_answer(self.page, vcpu, 0, route, ffi.addressof(self.timing))

    @property
    def answers(self) -> dict[int, int]:
        """Route -> how many answers."""
        return {i: total for i, each in enumerate(self.timing.answers) if (total := sum(each.counts))}


def test_a_request_is_pending_from_its_take_to_its_answer() -> None:
    slots = Slots()
    slots.post(1)
    before = lib.xd_now()
    assert slots.take() == 1
    assert not slots.timing.taken_ns[0]
    assert before <= slots.timing.taken_ns[1] <= lib.xd_now()
    slots.answer(1)
    assert not any(slots.timing.taken_ns)
    assert lib.xd_slot_state(slots.page, 1) == lib.XD_STATE_RESP_READY


def test_an_answer_counts_for_the_route_that_was_said() -> None:
    slots = Slots()
    slots.post(0)
    slots.post(1)
    assert slots.take() == 2
    slots.answer(0, lib.XD_ROUTE_LEAF_STORE)
    slots.answer(1)
    assert slots.answers == {lib.XD_ROUTE_LEAF_STORE: 1, lib.XD_ROUTE_REFUSED: 1}


def test_a_route_that_there_is_not_is_no_other_memory() -> None:
    slots = Slots()
    slots.post(0)
    slots.take()
    slots.answer(0, (1 << 32) - 1)
    assert slots.answers == {lib.XD_ROUTE_REFUSED: 1}


def test_what_was_not_taken_is_not_timed() -> None:
    slots = Slots()
    slots.answer(0)
    assert slots.answers == {}


def test_a_request_waits_in_the_batch_that_it_was_taken_in() -> None:
    """Both were taken at once, so the second waited for the first."""
    slots = Slots()
    slots.post(0)
    slots.post(1)
    slots.take()
    assert slots.timing.taken_ns[0] == slots.timing.taken_ns[1]


def test_without_a_place_for_it_no_time_is_kept() -> None:
    slots = Slots()
    slots.post(0)
    assert lib.xd_slots_take(slots.page, 2, 0, slots.taken, ffi.NULL, ffi.NULL) == 1
    lib.xd_slot_answer(slots.page, 0, 0, lib.XD_ROUTE_REFUSED, ffi.NULL)
    assert lib.xd_slot_state(slots.page, 0) == lib.XD_STATE_RESP_READY
