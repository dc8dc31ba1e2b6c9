"""ioreq servers: their number, ranges, selection, slots and event channels."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from tests.support.device_model import PATIENCE, DeviceModel, Request, write
from tests.support.faults import wait_until_blocked
from tests.support.tables import FRAME
from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.errors import CallError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.errors import DomainCrashedError, GuestFaultError
from xengt_dm.hypervisor.port import WriteTrap

PAGE = 5 * FRAME
BAR = 0xF0000000


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(32, 2) as made:
        yield made


def refused(call: Callable[[], object]) -> CallError:
    with pytest.raises(CallError) as caught:
        call()
    return caught.value


def test_an_error_says_call_domain_and_meaning() -> None:
    with EmbeddedDomain(4, 1, domid=7) as domain:
        error = refused(lambda: domain.port().destroy_server(3))
        assert (error.call, error.domid, error.errno) == ("xendevicemodel_destroy_ioreq_server", 7, errno.ENOENT)
        assert "domain 7" in str(error)


def test_eight_servers_and_the_lowest_free_id(domain: EmbeddedDomain) -> None:
    port = domain.port()
    assert [port.create_server() for _ in range(8)] == list(range(8))
    assert refused(port.create_server).errno == errno.ENOSPC
    port.destroy_server(3)
    assert [port.server_exists(server) for server in (2, 3, 4)] == [True, False, True]
    assert port.create_server() == 3
    assert not port.server_exists(8)


def test_what_a_port_knows(domain: EmbeddedDomain) -> None:
    port = domain.port()
    assert (port.domid, port.vcpu_count(), port.frame_limit, port.write_trap) == (1, 2, 32, WriteTrap.CLAIM)


# Ranges


def test_ranges_do_not_overlap_in_a_server(domain: EmbeddedDomain) -> None:
    port = domain.port()
    one, two = port.create_server(), port.create_server()
    port.map_mmio(one, 0x1000, 0x1FFF)
    for first, last in [(0x1000, 0x1FFF), (0x0, 0x1000), (0x1FFF, 0x3000), (0x1400, 0x1500), (0x0, 0x9000)]:
        assert refused(lambda a=first, b=last: port.map_mmio(one, a, b)).errno == errno.EEXIST
    port.map_mmio(two, 0x1400, 0x1500)
    assert refused(lambda: port.map_mmio(one, 0x3000, 0x2FFF)).errno == errno.EINVAL
    assert refused(lambda: port.map_mmio(5, 0x3000, 0x3FFF)).errno == errno.ENOENT


def test_adjacent_ranges_are_one(domain: EmbeddedDomain) -> None:
    port = domain.port()
    server = port.create_server()
    port.map_mmio(server, 0x3000, 0x3FFF)
    port.map_mmio(server, 0x1000, 0x1FFF)
    assert domain.range_count(server) == 2
    port.map_mmio(server, 0x2000, 0x2FFF)
    assert domain.range_count(server) == 1
    port.map_mmio(server, 0x4000, 0x4FFF)
    port.map_mmio(server, 0x0, 0xFFF)
    assert domain.range_count(server) == 1
    port.unmap_mmio(server, 0x1800, 0x37FF)
    assert domain.range_count(server) == 2
    assert refused(lambda: port.unmap_mmio(server, 0x1000, 0x1FFF)).errno == errno.ENOENT
    port.unmap_mmio(server, 0x0, 0x7FF)
    port.unmap_mmio(server, 0x800, 0x17FF)
    port.unmap_mmio(server, 0x3800, 0x3FFF)
    port.unmap_mmio(server, 0x4000, 0x4FFF)
    assert domain.range_count(server) == 0
    assert refused(lambda: port.unmap_mmio(server, 0x0, 0x0)).errno == errno.ENOENT


def test_256_ranges_and_no_more(domain: EmbeddedDomain) -> None:
    port = domain.port()
    server = port.create_server()
    for i in range(256):
        port.map_mmio(server, i * 0x2000, i * 0x2000 + 0xFFF)
    assert refused(lambda: port.map_mmio(server, 0x900000, 0x900FFF)).errno == errno.ENOMEM
    # What only grows a range needs no room; what splits one does.
    port.map_mmio(server, 255 * 0x2000 + 0x1000, 255 * 0x2000 + 0x1FFF)
    assert refused(lambda: port.unmap_mmio(server, 0x100, 0x1FF)).errno == errno.ENOMEM
    port.unmap_mmio(server, 0x0, 0x1FF)
    port.map_mmio(server, 0x1000, 0x1FFF)
    assert domain.range_count(server) == 255
    port.map_mmio(server, 0x900000, 0x900FFF)


def only(got: list[Request], *wanted: Request) -> bool:
    return got == list(wanted)


def test_the_whole_access_must_lie_in_one_range(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain, ranges=[(BAR, BAR + 0xFFF), (BAR + 0x2000, BAR + 0x2FFF)], claim=False)
    stores = [(BAR, 8), (BAR + 0xFF8, 8), (BAR + 0xFFC, 8), (BAR - 4, 8), (BAR + 0x1000, 4), (BAR + 0x2FFF, 1)]

    def program(v: object) -> None:
        cpu = domain.vcpu(0)
        for gpa, size in stores:
            cpu.store(gpa, size, 1)
        assert cpu.load(BAR, 4) == 0x55
        assert cpu.load(BAR + 0x1000, 4) == 0xFFFFFFFF

    got = model.serve(program, on_request=lambda request: 0x55 if request.read else None)
    # A page's end splits the third: the half inside is a request, the half outside is nobody's.
    assert only(
        got,
        write(BAR, 8, 1),
        write(BAR + 0xFF8, 8, 1),
        write(BAR + 0xFFC, 4, 1),
        write(BAR, 4, 0),
        write(BAR + 0x2FFF, 1, 1),
        Request(BAR, 4, 0, read=True),
    )
    assert domain.dropped_stores == 3


def test_an_access_over_the_end_of_a_range_within_a_page_is_nobodys(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain, ranges=[(BAR, BAR + 0x7FF)], claim=False)
    assert model.serve(lambda v: v.store(BAR + 0x7FC, 8, 1)) == []
    assert domain.dropped_stores == 1


def test_the_highest_enabled_server_is_asked_first(domain: EmbeddedDomain) -> None:
    low = DeviceModel(domain, ranges=[(BAR, BAR + 0xFFF)], claim=False)
    high = DeviceModel(domain, ranges=[(BAR + 0x800, BAR + 0xFFF)], claim=False)
    assert high.serve(lambda v: v.store(BAR + 0x800, 4, 1)) == [write(BAR + 0x800, 4, 1)]
    assert low.serve(lambda v: v.store(BAR + 0x7FC, 4, 2)) == [write(BAR + 0x7FC, 4, 2)]
    high.port.set_server_state(high.server, False)
    assert low.serve(lambda v: v.store(BAR + 0x800, 4, 3)) == [write(BAR + 0x800, 4, 3)]


def test_before_4_11_the_newest_server_is_asked_first() -> None:
    for flavour, newest in (("4.9", True), ("4.12", False)):
        with EmbeddedDomain(8, 1, flavour=flavour) as domain:
            spare = domain.port().create_server()
            high = DeviceModel(domain, ranges=[(BAR, BAR + 7)], claim=False)
            high.port.destroy_server(spare)
            low = DeviceModel(domain, ranges=[(BAR, BAR + 7)], claim=False)
            assert (low.server, high.server) == (0, 1)
            winner = low if newest else high
            assert winner.serve(lambda v: v.store(BAR, 4, 3)) == [write(BAR, 4, 3)]


def test_a_disabled_server_has_no_ranges(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain, ranges=[(BAR, BAR + 0xFFF)], claim=False)
    model.port.set_server_state(model.server, False)
    assert model.serve(lambda v: v.store(BAR, 4, 1)) == []
    assert domain.dropped_stores == 1


# Slots and channels


def test_the_port_is_in_the_slot_once_the_server_is_enabled(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain, enable=False)
    assert [lib.xd_slot_port(model.page, vcpu) for vcpu in range(2)] == [0, 0]
    model.port.set_server_state(model.server, True)
    ports = [lib.xd_slot_port(model.page, vcpu) for vcpu in range(2)]
    assert 0 not in ports
    assert len(set(ports)) == 2


def test_a_server_enabled_before_its_page_is_there_never_tells_its_ports(domain: EmbeddedDomain) -> None:
    port = domain.port()
    server = port.create_server()
    port.set_server_state(server, True)
    late = DeviceModel(domain, adopt=server, enable=False)
    assert lib.xd_slot_port(late.page, 0) == 0
    port.set_server_state(server, True)
    assert lib.xd_slot_port(late.page, 0) == 0
    port.set_server_state(server, False)
    port.set_server_state(server, True)
    assert lib.xd_slot_port(late.page, 0) != 0


def test_binding_raises_one_spurious_event(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    assert model.poll()
    assert model.port.events.drain() == 2
    assert model.scan() == []
    assert not model.poll()
    assert model.port.events.drain() == 0


def test_a_channel_is_bound_once(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    other = domain.port()
    remote = lib.xd_slot_port(model.page, 0)
    assert refused(lambda: other.events.bind(remote)).errno == errno.EINVAL
    model.port.events.unbind(model.channels[0])
    assert refused(lambda: model.port.events.notify(model.channels[0])).errno == errno.ENOTCONN
    local = other.events.bind(remote)
    assert local > 0
    assert refused(lambda: other.events.bind(9999)).errno == errno.EINVAL
    assert refused(lambda: other.events.unbind(local + 1)).errno == errno.ENOTCONN


def test_a_pending_port_stays_masked_until_it_is_unmasked(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    events = model.port.events
    events.drain()
    model.start(lambda v: v.fill(PAGE, 2, 1))
    wait_until_blocked(domain, 0)
    assert model.poll()
    channel = events.pending()
    assert channel == model.channels[0]
    assert events.pending() == 0
    (first,) = model.scan()
    model.answer(first)
    wait_until_blocked(domain, 0)
    # The second request's event waits, masked, and the fd stays quiet.
    assert not model.poll()
    assert events.pending() == 0
    events.unmask(channel)
    assert model.poll()
    assert events.pending() == model.channels[0]
    (second,) = model.scan()
    model.answer(second)
    assert domain.join(PATIENCE)


def test_an_answer_needs_its_notify(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    model.start(lambda v: v.store(PAGE, 8, 1))
    request = model.take_one()
    wait_until_blocked(domain, 0)
    lib.xd_slot_answer(model.page, 0, 0, lib.XD_ROUTE_REFUSED, ffi.NULL)
    assert not domain.join(0.05)
    model.port.events.notify(model.channels[0])
    assert domain.join(PATIENCE)
    assert request.write == (PAGE, 8, 1)


def test_a_notify_without_an_answer_changes_nothing(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    model.start(lambda v: v.store(PAGE, 8, 1))
    request = model.take_one()
    model.port.events.notify(model.channels[0])
    model.port.events.notify(model.channels[1])
    wait_until_blocked(domain, 0)
    model.answer(request)
    assert domain.join(PATIENCE)


@pytest.mark.parametrize(("state", "crashes"), [(0, False), (4, True), (15, True)])
def test_states_that_end_a_wait(domain: EmbeddedDomain, state: int, crashes: bool) -> None:
    """NONE is a device model that died, and gives all ones; what is no state crashes the domain."""
    model = DeviceModel(domain, ranges=[(BAR, BAR + 7)])
    values: list[int] = []
    model.start(lambda v: values.append(v.load(BAR, 4)))
    model.take_one()
    model.port.events.notify(model.channels[0])
    wait_until_blocked(domain, 0)
    embedded.xd_slot_set_state(model.page, 0, state)
    model.port.events.notify(model.channels[0])
    if not crashes:
        assert domain.join(PATIENCE)
        assert values == [0xFFFFFFFF]
        return
    with pytest.raises(DomainCrashedError, match="state"):
        domain.join(PATIENCE)
    assert "state" in domain.crash_reason
    with pytest.raises(DomainCrashedError):
        domain.vcpu(1).store(0, 8, 0)
    # Xen keeps a crashed domain until the toolstack destroys it.
    assert model.port.server_exists(model.server)


def test_a_slot_that_is_not_free_is_a_fault_for_the_guest(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    embedded.xd_slot_set_state(model.page, 0, lib.XD_STATE_INPROCESS)
    model.start(lambda v: v.store(PAGE, 8, 1))
    with pytest.raises(GuestFaultError):
        domain.join(PATIENCE)
    assert domain.counters["faults"] == 1


@pytest.mark.parametrize("port", [0, 77])
def test_a_corrupt_port_is_a_fault_for_the_guest(domain: EmbeddedDomain, port: int) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    right = lib.xd_slot_port(model.page, 0)
    embedded.xd_slot_set_port(model.page, 0, port)
    model.start(lambda v: v.store(PAGE, 8, 1))
    with pytest.raises(GuestFaultError):
        domain.join(PATIENCE)
    embedded.xd_slot_set_port(model.page, 0, right)
    assert model.serve(lambda v: v.store(PAGE, 8, 1)) == [write(PAGE, 8, 1)]


def test_a_request_for_a_server_without_a_page_would_crash_xen(domain: EmbeddedDomain) -> None:
    port = domain.port()
    server = port.create_server()
    port.claim_writes(server)
    embedded.xd_emb_set_type(domain.handle, 5, 1, 15)
    domain.start(0, lambda v: v.store(PAGE, 8, 1))
    with pytest.raises(DomainCrashedError, match="page"):
        domain.join(PATIENCE)
