"""The stats page: a file that other processes map, so its layout is told byte by byte; and where times are counted."""

from __future__ import annotations

import mmap
import struct

import pytest

from xengt_dm._core import ffi, lib
from xengt_dm.units import CData

SIZE = 4096
FIRST, BUCKETS = 8, 26


def good() -> bytearray:
    page = bytearray(SIZE)
    lib.xd_stats_publish(ffi.cast("xd_stats *", ffi.from_buffer(page)))
    return page


def valid(page: bytearray, size: int = SIZE) -> bool:
    return bool(lib.xd_stats_valid(ffi.cast("xd_stats *", ffi.from_buffer(page)), size))


def test_the_head_of_the_page() -> None:
    magic, version, size = struct.unpack_from("<QII", good())
    assert magic == int.from_bytes(b"XDMstats", "little")
    assert version == lib.XD_STATS_VERSION
    assert size == ffi.sizeof("xd_stats") <= SIZE


def test_ours_is_valid() -> None:
    assert valid(good())


def test_a_page_that_is_not_written_yet_is_not() -> None:
    assert not valid(bytearray(SIZE))


@pytest.mark.parametrize("size", [0, 1, 8, SIZE - 1, SIZE + 1, 2 * SIZE])
def test_a_file_of_another_size_is_not(size: int) -> None:
    assert not valid(good(), size)


@pytest.mark.parametrize("at", [0, 7, 8, 11, 12, 15])
def test_another_magic_version_or_size_is_not(at: int) -> None:
    page = good()
    page[at] ^= 0x40
    assert not valid(page)


def test_every_count_is_one_aligned_word() -> None:
    """So that a reader in another process never sees half of one."""
    offset = ffi.offsetof("xd_stats", "counters")
    assert offset % 8 == 0
    assert all(field.offset % 8 == 0 for _, field in ffi.typeof("xd_counters").fields)
    assert ffi.sizeof("xd_counters") % 8 == 0


def histogram() -> CData:
    return ffi.new("xd_histogram *")


@pytest.mark.parametrize("bits", range(26, 41))
def test_where_a_time_is_counted(bits: int) -> None:
    """A little more than 2^``bits`` ns, as counting takes a moment: in the bucket of up to twice that, or the last."""
    counted = histogram()
    lib.xd_observe(counted, (lib.xd_now() - (1 << bits)) & (1 << 64) - 1)
    assert list(counted.counts).index(1) == min(bits + 1 - FIRST, BUCKETS - 1)
    assert sum(counted.counts) == 1
    assert 1 << bits <= counted.sum_ns < 2 << bits


def test_no_time_at_all_is_in_the_first_buckets() -> None:
    """A moment, and the last bucket for what cannot be: a time to come."""
    counted = histogram()
    lib.xd_observe(counted, lib.xd_now())
    assert sum(counted.counts[0 : BUCKETS - 1]) == 1
    lib.xd_observe(counted, lib.xd_now() + (1 << 62))
    assert counted.counts[BUCKETS - 1] == 1


def test_a_request_is_timed_once_and_by_what_became_of_it() -> None:
    timing = ffi.new("xd_timing *")
    lib.xd_timing_taken(timing, 3, lib.xd_now())
    assert timing.taken_ns[3]
    lib.xd_timing_answered(timing, 3, lib.XD_ROUTE_LEAF_STORE)
    assert sum(timing.answers[lib.XD_ROUTE_LEAF_STORE].counts) == 1
    assert timing.taken_ns[3] == 0
    lib.xd_timing_answered(timing, 3, lib.XD_ROUTE_LEAF_STORE)
    lib.xd_timing_answered(timing, lib.XD_STATS_VCPUS, lib.XD_ROUTE_LEAF_STORE)
    lib.xd_timing_taken(timing, lib.XD_STATS_VCPUS, 1)
    assert sum(sum(one.counts) for one in timing.answers) == 1


def test_a_route_that_there_is_not() -> None:
    timing = ffi.new("xd_timing *")
    lib.xd_timing_taken(timing, 0, lib.xd_now())
    lib.xd_timing_answered(timing, 0, lib.XD_ROUTES)
    assert sum(timing.answers[lib.XD_ROUTE_REFUSED].counts) == 1


def test_a_page_that_is_mapped_is_zero_until_it_is_published() -> None:
    memory = mmap.mmap(-1, SIZE)
    page = ffi.cast("xd_stats *", ffi.from_buffer(memory))
    page.counters.store_traps = 7
    assert not lib.xd_stats_valid(page, SIZE)
    lib.xd_stats_publish(page)
    assert lib.xd_stats_valid(page, SIZE)
    assert page.counters.store_traps == 7
