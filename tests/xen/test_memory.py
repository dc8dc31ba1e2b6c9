"""XenPort's page types and mapped frames, on libraries that behave as Xen's do."""

from __future__ import annotations

import errno
import mmap
from pathlib import Path
from typing import Any

import pytest

from xengt_dm.errors import CallError
from xengt_dm.hypervisor.port import MemType
from xengt_dm.hypervisor.xen.port import XenPort


def test_types_one_by_one(fake: Any, port: XenPort) -> None:
    port.claim_writes(port.create_server())
    fake.calls()
    assert fake.set_types(port, MemType.IOREQ_SERVER, 5, 6, 9) == (0, [0, 0, 0])
    assert fake.types(4, 5, 6, 7, 9) == [0, 4, 4, 0, 4]
    assert fake.calls() == [f"set_mem_type(7, 4, {gfn}, 1)" for gfn in (5, 6, 9)]
    assert fake.set_types(port, MemType.RAM_RW, 6, 5) == (0, [0, 0])
    assert fake.types(5, 6, 9) == [0, 0, 4]


def test_types_with_some_refused(fake: Any, port: XenPort) -> None:
    port.claim_writes(port.create_server())
    fake.lib.fake_make_hole(2)
    failed, errors = fake.set_types(port, MemType.IOREQ_SERVER, 1, 2, 1, 1 << 40, 3)
    assert failed == 3
    assert errors == [0, errno.EINVAL, errno.EINVAL, errno.EINVAL, 0]
    assert fake.types(1, 2, 3) == [4, 2, 4]


def test_a_refusal_is_no_death_while_the_server_lives(fake: Any, port: XenPort) -> None:
    server = port.create_server()
    port.map_slots(server)
    fake.calls()
    assert fake.set_types(port, MemType.IOREQ_SERVER, 1) == (1, [errno.EINVAL])
    assert fake.calls() == ["set_mem_type(7, 4, 1, 1)", f"get_ioreq_server_info(7, {server})"]


def test_types_unclaimed(fake: Any, port: XenPort) -> None:
    assert fake.set_types(port, MemType.IOREQ_SERVER, 1) == (1, [errno.EINVAL])


def test_placeholder_type_is_refused(fake: Any, port: XenPort) -> None:
    port.claim_writes(port.create_server())
    assert fake.set_types(port, MemType.MMIO_WRITE_DM, 1) == (1, [errno.EINVAL])


def test_types_of_none(fake: Any, port: XenPort) -> None:
    assert fake.set_types(port, MemType.RAM_RW) == (0, [])


def test_page_that_comes_back(fake: Any, port: XenPort) -> None:
    port.claim_writes(port.create_server())
    fake.lib.fake_page_out(3, 5)
    fake.calls()
    assert fake.set_types(port, MemType.IOREQ_SERVER, 3, 4) == (0, [0, 0])
    assert len(fake.calls()) == 7
    assert fake.types(3, 4) == [4, 4]


def test_pages_that_never_come_back(fake: Any, port: XenPort) -> None:
    port.claim_writes(port.create_server())
    for gfn in (1, 2, 3):
        fake.lib.fake_page_out(gfn, 1 << 30)
    fake.calls()
    failed, errors = fake.set_types(port, MemType.IOREQ_SERVER, 1, 2, 4, 3)
    assert (failed, errors) == (3, [errno.EAGAIN, errno.EAGAIN, 0, errno.EAGAIN])
    # 512 retries are shared by the whole call.
    assert len(fake.calls()) == 4 + 512


def test_third_of_many_fails(fake: Any, port: XenPort) -> None:
    port.claim_writes(port.create_server())
    fake.fail("xendevicemodel_set_mem_type", errno.ENOMEM, nth=3)
    assert fake.set_types(port, MemType.IOREQ_SERVER, 1, 2, 3, 4) == (1, [0, 0, errno.ENOMEM, 0])
    assert fake.types(1, 2, 3, 4) == [4, 4, 0, 4]


@pytest.fixture
def frames(fake: Any) -> None:
    for gfn in range(64):
        fake.ffi.memmove(fake.lib.fake_frame(gfn), bytes([gfn]) * 4096, 4096)


def byte_at(fake: Any, address: int) -> int:
    return int(fake.ffi.cast("unsigned char *", address)[0])


@pytest.mark.usefixtures("frames")
def test_map_frames(fake: Any, port: XenPort) -> None:
    errors = fake.ffi.new("int[]", 4)
    at = port.map_frames(10, 4, errors)
    assert list(errors) == [0, 0, 0, 0]
    assert [byte_at(fake, at + 4096 * i) for i in range(4)] == [10, 11, 12, 13]
    fake.ffi.cast("unsigned char *", at)[0] = 99
    assert byte_at(fake, int(fake.ffi.cast("uintptr_t", fake.lib.fake_frame(10)))) == 99
    port.unmap_frames(at, 4)
    assert fake.calls() == ["xenforeignmemory_map2(7, 10, 4)", "xenforeignmemory_unmap(4)"]


@pytest.mark.usefixtures("frames")
def test_holes_are_positive_errors(fake: Any, port: XenPort) -> None:
    fake.lib.fake_make_hole(11)
    errors = fake.ffi.new("int[]", [77] * 6)
    at = port.map_frames(10, 5, errors)
    assert list(errors) == [0, errno.EINVAL, 0, 0, 0, 77]
    assert [byte_at(fake, at + 4096 * i) for i in (0, 2, 3, 4)] == [10, 12, 13, 14]
    beyond = port.map_frames(62, 4, errors)
    assert list(errors)[:4] == [0, 0, errno.EINVAL, errno.EINVAL]
    port.unmap_frames(beyond, 4)
    port.unmap_frames(at, 5)


@pytest.mark.usefixtures("frames")
def test_remap_at_the_same_address(fake: Any, port: XenPort) -> None:
    window = mmap.mmap(-1, 8 * 4096)
    start = int(fake.ffi.cast("uintptr_t", fake.ffi.from_buffer(window)))
    errors = fake.ffi.new("int[]", 2)
    for first in (20, 30, 20):
        assert port.map_frames(first, 2, errors, start + 4096) == start + 4096
        assert [byte_at(fake, start + 4096 * i) for i in range(4)] == [0, first, first + 1, 0]


def mapped_as(address: int) -> str:
    """The permissions of the mapping at an address, or nothing."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions = line.split()[:2]
        first, last = (int(part, 16) for part in span.split("-"))
        if first <= address < last:
            return permissions
    return ""


@pytest.mark.parametrize("error", [errno.ENOMEM, errno.ESRCH])
def test_a_failed_remap_keeps_the_window(fake: Any, port: XenPort, error: int) -> None:
    errors = fake.ffi.new("int[]", 2)
    at = port.map_frames(20, 2, errors)
    assert mapped_as(at) == "rw-s"
    fake.fail("xenforeignmemory_map2", error)
    with pytest.raises(CallError) as caught:
        port.map_frames(30, 2, errors, at)
    assert caught.value.errno == error
    assert mapped_as(at) == mapped_as(at + 4096) == "---p"
    assert port.map_frames(30, 2, errors, at) == at
    port.unmap_frames(at, 2)
    assert mapped_as(at) == ""


@pytest.mark.parametrize(("first", "count"), [(0, 0), ((1 << 64) - 1, 2)])
def test_no_such_frames(fake: Any, port: XenPort, first: int, count: int) -> None:
    with pytest.raises(CallError) as caught:
        port.map_frames(first, count, fake.ffi.new("int[]", 2))
    assert caught.value.errno == errno.EINVAL
    assert fake.calls() == []


# events
