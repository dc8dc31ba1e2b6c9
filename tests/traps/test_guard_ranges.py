"""Ranges over frames: counted as Xen counts them, and always room for what was promised."""

from __future__ import annotations

import errno
import random

import pytest

from tests.support.faults import Call, fail_nth
from xengt_dm.errors import DomainGoneError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort
from xengt_dm.ioreq.ranges import NoRangeRecord
from xengt_dm.traps.guard_ranges import MAX_NR_IO_RANGES, MOST, GuardRanges
from xengt_dm.units import PAGE_SIZE as FRAME

FRAMES = 2048
BAR0 = 0xF0000000


def make(domain: EmbeddedDomain) -> tuple[EmbeddedPort, int, GuardRanges]:
    port = domain.port()
    server = port.create_server()
    port.map_mmio(server, BAR0, BAR0 + FRAME - 1)
    return port, server, GuardRanges(port, server, NoRangeRecord())


@pytest.mark.parametrize("seed", range(4))
def test_the_count_is_xens_and_no_promise_is_broken(seed: int) -> None:
    rng = random.Random(seed)
    print("seed", seed)
    with EmbeddedDomain(FRAMES, 1, "v7") as domain:
        _, server, ranges = make(domain)
        reserved: set[int] = set()
        refusals = 0
        for _ in range(6000):
            gfn = rng.randrange(1300)
            if rng.random() < 0.6:
                error = ranges.add(gfn)
                assert error in (0, errno.ENOSPC)  # never ENOMEM, which is Xen's
                assert not (error and gfn in reserved)
                refusals += error != 0
                if not error:
                    reserved.discard(gfn)
            elif gfn in ranges:
                reserve = rng.random() < 0.3
                removed = ranges.remove(gfn, reserve)
                refusals += not removed
                if removed and reserve:
                    reserved.add(gfn)
            elif gfn in reserved and rng.random() < 0.5:
                ranges.unreserve(gfn)
                reserved.discard(gfn)
            assert domain.range_count(server) == ranges.count + 1 <= MAX_NR_IO_RANGES
            ranges.check()
        assert refusals  # the limit was met
        for gfn in sorted(reserved):
            assert ranges.add(gfn) == 0


def test_scattered_frames_are_few_and_neighbours_many() -> None:
    with EmbeddedDomain(FRAMES, 1, "v7") as domain:
        _, server, ranges = make(domain)
        for i in range(MOST):
            assert ranges.add(2 * i) == 0
        assert ranges.add(2 * MOST) == errno.ENOSPC
        assert ranges.add(2 * MOST - 1) == 0  # a neighbour
        assert ranges.add(1) == 0  # which makes one of two
        assert ranges.add(2 * MOST) == 0
        assert len(ranges) == MOST + 3
        assert domain.range_count(server) == MOST == MAX_NR_IO_RANGES - 4


def test_ends_take_no_room() -> None:
    with EmbeddedDomain(FRAMES, 1, "v7") as domain:
        _, _, ranges = make(domain)
        for gfn in (10, 11, 12, 13, 20, 30, 31, 32):
            assert ranges.add(gfn) == 0
        taken = []
        for gfn in ranges.ends([11, 12, 13, 20, 31]):
            before = ranges.count
            taken.append(gfn)
            assert ranges.remove(gfn)
            assert ranges.count <= before
        assert taken == [20, 13, 12, 11]
        assert ranges.frames() == {10, 30, 31, 32}


def test_what_xen_refuses() -> None:
    with EmbeddedDomain(FRAMES, 1, "v7") as domain:
        port, server, ranges = make(domain)
        port.map_mmio(server, 5 * FRAME, 6 * FRAME - 1)
        assert ranges.add(5) == 0  # a predecessor's
        fail_nth(domain, 1, errno.ENOMEM, Call.MAP_RANGE)
        assert ranges.add(6) == errno.ENOMEM
        assert 6 not in ranges
        fail_nth(domain, 1, errno.EBUSY, Call.UNMAP_RANGE)
        assert ranges.remove(5)  # tried twice
        domain.destroy()
        with pytest.raises(DomainGoneError):
            ranges.add(7)
