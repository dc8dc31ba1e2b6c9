"""Lives and deaths: of a device model, a server, a domain; frames that go; pauses and shutdown."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.device_model import INVALIDATE, PATIENCE, DeviceModel, Request, write
from tests.support.faults import wait_until_blocked, wait_until_out, wait_until_retrying
from tests.support.tables import FRAME
from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.errors import DomainGoneError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.embedded.errors import VcpuStoppedError
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.hypervisor.port import MemType

PAGE = 5 * FRAME
VALUE = 0x8877665544332211


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(32, 2) as made:
        yield made


# A device model dies


@pytest.mark.parametrize("state", ["READY", "INPROCESS"])
def test_a_successor_answers_what_the_dead_one_left(domain: EmbeddedDomain, state: str) -> None:
    first = DeviceModel(domain)
    first.protect(5)
    domain.start(0, lambda v: v.fill(PAGE, 3, 7))
    domain.start(1, lambda v: v.store(PAGE + 64, 4, 9))
    wait_until_blocked(domain, 0)
    wait_until_blocked(domain, 1)
    if state == "INPROCESS":
        assert len(first.scan()) == 2
    first.close()
    assert not domain.join(0.05)
    second = DeviceModel(domain, adopt=first.server)
    assert second.scan() == ([] if state == "INPROCESS" else [write(PAGE, 8, 7), write(PAGE + 64, 4, 9, vcpu=1)])
    for request in second.scan(adopt=True):
        second.answer(request)
    for _ in range(2):
        second.answer(second.take_one())
    assert domain.join(PATIENCE)
    assert domain.read(PAGE, 24) == (7).to_bytes(8, "little") * 3
    assert domain.read(PAGE + 64, 4) == (9).to_bytes(4, "little")
    assert domain.owner == first.server


def test_an_answer_that_was_never_notified_waits_for_the_successors_notify(domain: EmbeddedDomain) -> None:
    first = DeviceModel(domain)
    first.protect(5)
    domain.start(0, lambda v: v.store(PAGE, 8, 7))
    wait_until_blocked(domain, 0)
    (request,) = first.scan()
    first.commit(request)
    lib.xd_slot_answer(first.page, 0, 0, lib.XD_ROUTE_REFUSED, ffi.NULL)
    first.close()
    second = DeviceModel(domain, adopt=first.server)
    assert second.scan(adopt=True) == []
    assert lib.xd_slot_state(second.page, 0) == lib.XD_STATE_RESP_READY
    second.port.events.notify(second.channels[0])
    assert domain.join(PATIENCE)


def test_events_for_nobody_are_lost_and_stores_wait(domain: EmbeddedDomain) -> None:
    first = DeviceModel(domain)
    first.protect(5)
    first.close()
    domain.start(0, lambda v: v.store(PAGE, 8, 7))
    wait_until_blocked(domain, 0)
    assert domain.counters["lost_events"] == 1
    second = DeviceModel(domain, adopt=first.server)
    assert second.poll()
    second.answer(second.take_one())
    assert domain.join(PATIENCE)


def test_close_unbinds_and_is_safe_twice(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.close()
    model.port.close()
    assert domain.ports == []
    again = DeviceModel(domain, adopt=model.server)
    assert sorted(again.channels) == [0, 1]


# A server dies


def test_destroy_leaves_entries_and_the_guest_retries_until_they_are_repaired(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    model.port.destroy_server(model.server)
    assert (domain.owner, domain.protected()) == (None, [5])
    domain.start(0, lambda v: v.store(PAGE, 8, 7))
    wait_until_retrying(domain, 0)
    # Other changes let it try again, in vain.
    other = domain.port()
    other.create_server()
    domain.set_type(9, 1, P2mType.RAM_RO)
    wait_until_retrying(domain, 0)
    assert not domain.join(0.05)
    assert domain.read_u64(PAGE) == 0
    model.unprotect(5)
    assert domain.join(PATIENCE)
    assert domain.read_u64(PAGE) == 7
    assert domain.counters["retries"] >= 1


def test_a_domain_that_retries_can_be_destroyed(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    model.port.destroy_server(model.server)
    domain.start(0, lambda v: v.store(PAGE, 8, 7))
    wait_until_retrying(domain, 0)
    domain.destroy()
    assert domain.join(PATIENCE)


def test_a_server_destroyed_over_a_request_leaves_the_vcpu_blocked(domain: EmbeddedDomain) -> None:
    """Nothing in Xen wakes it: whoever destroys a server answers first."""
    model = DeviceModel(domain)
    model.protect(5)
    domain.start(0, lambda v: v.store(PAGE, 8, 7))
    wait_until_blocked(domain, 0)
    model.port.destroy_server(model.server)
    model.port.events.notify(model.channels[0])
    assert not domain.join(0.05)
    domain.destroy()
    assert domain.join(PATIENCE)


def test_a_page_of_slots_outlives_its_server_while_it_is_mapped(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.port.destroy_server(model.server)
    embedded.xd_slot_set_port(model.page, 0, 77)
    assert lib.xd_slot_port(model.page, 0) == 77
    model.port.unmap_slots(model.server)
    fresh = DeviceModel(domain)
    assert fresh.server == model.server
    assert lib.xd_slot_port(fresh.page, 0) not in (0, 77)


# A domain dies


def test_a_gone_domain_says_so_on_every_call(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    port, server = model.port, model.server
    model.protect(5)
    domain.start(0, lambda v: v.store(PAGE, 8, 7))
    wait_until_blocked(domain, 0)
    domain.destroy()
    assert domain.join(PATIENCE)
    errors = ffi.new("int[1]")
    calls: list[Callable[[], object]] = [
        port.vcpu_count,
        port.create_server,
        lambda: port.destroy_server(server),
        lambda: port.map_slots(server),
        lambda: port.set_server_state(server, True),
        lambda: port.map_mmio(server, 0, 1),
        lambda: port.unmap_mmio(server, 0, 1),
        lambda: port.claim_writes(server),
        lambda: port.release_writes(server),
        lambda: port.set_mem_types(MemType.RAM_RW, ffi.new("uint64_t[1]", [5]), 1, errors),
        lambda: port.map_frames(0, 1, errors),
        lambda: port.inject_msi(0xFEE00000, 1),
        lambda: port.events.bind(1),
        lambda: port.events.notify(1),
    ]
    for call in calls:
        with pytest.raises(DomainGoneError):
            call()
    assert not port.server_exists(server)
    assert port.events.drain() >= 0
    port.unmap_slots(server)
    port.close()


def test_vcpus_of_a_gone_domain_stop(domain: EmbeddedDomain) -> None:
    stopped = threading.Event()

    def program(v: Vcpu) -> None:
        try:
            while True:
                v.fill(0, 1000, 1)
        finally:
            stopped.set()

    domain.start(0, program)
    domain.destroy()
    assert domain.join(PATIENCE)
    assert stopped.is_set()
    with pytest.raises(VcpuStoppedError):
        domain.vcpu(1).load(0, 8)


def test_join_raises_what_a_program_raised(domain: EmbeddedDomain) -> None:
    def program(v: Vcpu) -> None:
        assert v.load(0, 8) == 1, "not what I meant"

    domain.start(0, program)
    with pytest.raises(AssertionError, match="not what I meant"):
        domain.join()
    assert domain.join()


# Frames go and come


INVALIDATION = Request(0, 4, (1 << 64) - 1, type=INVALIDATE, count=0)


def test_removal_waits_for_every_enabled_server(domain: EmbeddedDomain) -> None:
    models = [DeviceModel(domain, claim=index == 0) for index in range(3)]
    models[1].port.set_server_state(models[1].server, False)
    domain.write(9 * FRAME, b"gone")
    domain.start(0, lambda v: v.remove(9, 2))
    wait_until_blocked(domain, 0)
    assert [model.scan() for model in models] == [[INVALIDATION], [], [INVALIDATION]]
    assert [domain.type_of(gfn) for gfn in (8, 9, 10, 11)] == [0, P2mType.MMIO_DM, P2mType.MMIO_DM, 0]
    models[2].answer(INVALIDATION)
    assert not domain.join(0.05)
    models[0].answer(INVALIDATION)
    assert domain.join(PATIENCE)
    assert domain.counters["invalidates"] == 2


def test_a_removed_frame_is_a_hole_and_comes_back_zero(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(9)
    domain.write(9 * FRAME, b"gone")
    assert model.serve(lambda v: v.remove(9, 1)) == [INVALIDATION]
    assert domain.entries == 0
    assert model.serve(lambda v: v.store(9 * FRAME, 8, 1)) == []
    assert domain.dropped_stores == 1
    assert model.set_types(MemType.RAM_RW, [9]) == [22]
    errors = ffi.new("int[1]")
    model.port.map_frames(9, 1, errors)
    assert errors[0] == 22
    # An old mapping of it must not kill its owner; it reads zero, and what is written there is gone when it comes back.
    old = ffi.buffer(ffi.cast("char *", model.base + 9 * FRAME), 4)
    assert bytes(old) == bytes(4)
    old[:] = b"late"
    assert model.serve(lambda v: v.add(9, 1)) == []
    assert domain.read(9 * FRAME, 4) == bytes(4)
    assert model.serve(lambda v: v.store(9 * FRAME, 8, 1)) == []
    assert domain.read_u64(9 * FRAME) == 1
    model.protect(9)


def test_removal_from_outside_a_program(domain: EmbeddedDomain) -> None:
    domain.remove(3, 4)
    domain.add(4, 1)
    assert [domain.type_of(gfn) == P2mType.RAM_RW for gfn in range(2, 8)] == [True, False, True, False, False, True]
    for gfn, count in ((31, 2), (40, 1), (0, 1 << 60)):
        with pytest.raises(ValueError, match="EINVAL"):
            domain.remove(gfn, count)


def test_mapping_at_an_address(domain: EmbeddedDomain) -> None:
    """What a device model reserved for chunks of frames shows them; pages of no frame are kept out."""
    port = domain.port()
    errors = ffi.new("int[4]")
    domain.set_type(6, 1, P2mType.MMIO_DM)
    domain.write(5 * FRAME, b"five")
    domain.write(7 * FRAME, b"seven")
    reserved = port.map_frames(100, 4, errors)
    assert list(errors) == [22] * 4
    assert port.map_frames(4, 4, errors, reserved) == reserved
    assert list(errors) == [0, 0, 22, 0]
    assert bytes(ffi.buffer(ffi.cast("char *", reserved + FRAME), 4)) == b"five"
    assert bytes(ffi.buffer(ffi.cast("char *", reserved + 3 * FRAME), 5)) == b"seven"
    ffi.memmove(ffi.cast("char *", reserved), b"four", 4)
    assert domain.read(4 * FRAME, 4) == b"four"
    port.unmap_frames(reserved, 4)
    own = port.map_frames(4, 4, errors)
    assert port.map_frames(4, 4, errors, own) == own
    assert port.map_frames(0, 1, errors) == own - 4 * FRAME
    port.unmap_frames(own, 4)
    assert bytes(ffi.buffer(ffi.cast("char *", own), 4)) == b"four"


# Pauses and shutdown


def test_pause_stops_vcpus_and_nests(domain: EmbeddedDomain) -> None:
    def program(v: Vcpu) -> None:
        value = 0
        while True:
            value += 1
            v.fill(0, 100, value)

    def reach(value: int) -> None:
        while domain.read_u64(0) < value:
            pass

    domain.start(0, program)
    reach(1)
    domain.pause()
    domain.pause()
    domain.unpause()
    wait_until_out(domain, 0)
    seen = domain.read(0, 800)
    assert not domain.join(0.02)
    assert domain.read(0, 800) == seen
    domain.unpause()
    reach(int.from_bytes(seen[:8], "little") + 2)
    domain.destroy()
    assert domain.join(PATIENCE)


def test_a_vcpu_that_waits_counts_as_paused_and_stays_so(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    model.start(lambda v: v.store(PAGE, 8, 7))
    request = model.take_one()
    wait_until_blocked(domain, 0)
    domain.pause()
    model.answer(request)
    wait_until_out(domain, 0)
    assert not domain.join(0.02)
    domain.unpause()
    assert domain.join(PATIENCE)


def test_a_request_defers_shutdown(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    model.start(lambda v: v.store_bytes(PAGE, bytes(16)))
    request = model.take_one()
    wait_until_blocked(domain, 0)
    assert not domain.is_shut_down
    domain.shutdown()
    assert not domain.is_shut_down
    model.answer(request)
    wait_until_out(domain, 0)
    assert domain.is_shut_down
    # The second half of the store is not sent any more; vCPUs stand still until the domain is destroyed.
    assert model.scan() == []
    domain.start(1, lambda v: v.store(0, 8, 1))
    assert not domain.join(0.02)
    assert domain.read_u64(0) == 0
    domain.destroy()
    assert domain.join(PATIENCE)


def test_an_injected_msi_reaches_the_domain(domain: EmbeddedDomain) -> None:
    domain.port().inject_msi(0xFEE00000, 0x31)
    assert domain.msis == [(0xFEE00000, 0x31)]


def test_adding_what_is_there_takes_it_away_first(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(9)
    domain.write(9 * FRAME, b"old")
    assert model.serve(lambda v: v.add(9, 1)) == [INVALIDATION]
    assert (domain.read(9 * FRAME, 3), domain.entries) == (bytes(3), 0)


def test_removing_nothing_tells_nobody(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    assert model.serve(lambda v: v.remove(9, 1)) == [INVALIDATION]
    assert model.serve(lambda v: v.remove(9, 1)) == []


def test_no_address_wraps_round(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(0)
    top = (1 << 64) - 4

    def program(v: Vcpu) -> None:
        v.store(top, 8, VALUE)
        v.store_bytes(top, bytes([1] * 64))
        v.fill(top - 4, 3, VALUE)
        assert v.load(top, 8) == (1 << 64) - 1
        v.xchg(top, 8, VALUE)

    assert model.serve(program) == []
    assert domain.read(0, FRAME) == bytes(FRAME)
    assert domain.dropped_stores == 1 + 1 + 3 + 1
