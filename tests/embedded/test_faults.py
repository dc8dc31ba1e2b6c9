"""Faults on demand."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.support.device_model import PATIENCE, DeviceModel
from tests.support.faults import (
    Call,
    Hold,
    Point,
    counting,
    fail_nth,
    lose_domain_at,
    vanish,
    wait_until_blocked,
)
from tests.support.tables import FRAME
from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.port import MemType


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(32, 2) as made:
        yield made


def life(domain: EmbeddedDomain) -> None:
    """A device model's life, which unwinds whatever fails."""
    port = domain.port()
    try:
        server = port.create_server()
        try:
            port.map_slots(server)
            port.claim_writes(server)
            try:
                port.map_mmio(server, 0xF0000000, 0xF0000FFF)
                port.set_server_state(server, True)
                errors = ffi.new("int[2]")
                if port.set_mem_types(MemType.IOREQ_SERVER, ffi.new("uint64_t[2]", [3, 4]), 2, errors):
                    raise HostError("xendevicemodel_set_mem_type", 1, next(error for error in errors if error))
                port.map_frames(3, 2, errors)
            finally:
                retried(port.release_writes, server)
        finally:
            retried(port.destroy_server, server)
    finally:
        port.close()


def retried(call: object, server: int) -> None:
    """What unwinding does about a call that fails once."""
    try:
        call(server)  # type: ignore[operator]
    except HostError:
        call(server)  # type: ignore[operator]


def test_every_call_of_a_life_can_fail() -> None:
    with EmbeddedDomain(32, 2) as domain, counting(domain) as counted:
        life(domain)
    (calls,) = counted
    assert calls == 10
    for n in range(1, calls + 1):
        with EmbeddedDomain(32, 2) as domain:
            fail_nth(domain, n, errno.ENOMEM)
            unwinding = n > 8
            if unwinding:
                life(domain)
            else:
                with pytest.raises(HostError, match="ENOMEM"):
                    life(domain)
            assert (domain.entries, domain.owner, domain.ports) == (0, None, [])
            assert not any(embedded.xd_emb_server_exists(domain.handle, server) for server in range(8))


def test_the_domain_can_go_at_every_call() -> None:
    for n in range(1, 11):
        with EmbeddedDomain(32, 2) as domain:
            lose_domain_at(domain, n)
            with pytest.raises(DomainGoneError):
                life(domain)
            assert domain.ports == []


def test_only_the_kinds_asked_for_are_counted(domain: EmbeddedDomain) -> None:
    fail_nth(domain, 2, errno.EAGAIN, Call.SET_MEM_TYPE)
    model = DeviceModel(domain)
    assert model.set_types(MemType.IOREQ_SERVER, [5, 6, 7]) == [0, errno.EAGAIN, 0]
    assert domain.protected() == [5, 7]
    # Once.
    assert model.set_types(MemType.IOREQ_SERVER, [6]) == [0]


def test_a_notify_can_fail(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    model.start(lambda v: v.store(5 * FRAME, 8, 1))
    request = model.take_one()
    fail_nth(domain, 1, errno.EIO, Call.NOTIFY)
    with pytest.raises(HostError, match="notify"):
        model.answer(request)
    model.port.events.notify(model.channels[0])
    assert domain.join(PATIENCE)


def test_a_mapping_can_vanish_and_be_mapped_again(domain: EmbeddedDomain) -> None:
    assert lib.xd_guard_install() == 0
    model = DeviceModel(domain)
    at = model.base + 5 * FRAME
    value = ffi.new("uint64_t *")
    domain.write(5 * FRAME, b"\x07")
    vanish(domain, at, 1)
    assert lib.xd_load(ffi.cast("void *", at), 8, value) == -errno.EFAULT
    assert lib.xd_store(ffi.cast("void *", at), 9, 8) == -errno.EFAULT
    assert lib.xd_load(ffi.cast("void *", at - 8), 8, value) == 0
    # The guest itself has not lost it.
    domain.start(0, lambda v: v.store(5 * FRAME, 1, 8))
    assert domain.join(PATIENCE)
    errors = ffi.new("int[1]")
    assert model.port.map_frames(5, 1, errors) == at
    assert lib.xd_load(ffi.cast("void *", at), 8, value) == 0
    assert value[0] == 8


def test_a_hold_is_for_once(domain: EmbeddedDomain) -> None:
    with Hold(domain, 1, Point.FETCH) as hold:
        domain.start(1, lambda v: v.fill(0, 2, 1))
        hold.wait()
        assert domain.read_u64(0) == 0
        hold.release()
        assert domain.join(PATIENCE)
    assert domain.read_u64(8) == 1


def test_waits_end(domain: EmbeddedDomain) -> None:
    with Hold(domain, 0, Point.FETCH) as hold, pytest.raises(TimeoutError):
        hold.wait(0.01)
    domain.destroy()
    with pytest.raises(OSError, match="vCPU 0"):
        wait_until_blocked(domain, 0)
