"""XenPort's event channels, on libraries that behave as Xen's do."""

from __future__ import annotations

import os
import select
from typing import Any

import pytest

from xengt_dm.errors import HostError
from xengt_dm.hypervisor.xen.port import XenPort

VCPUS = 3


@pytest.fixture
def bound(fake: Any, port: XenPort) -> list[int]:
    """Local ports of two servers' vCPUs, with the first, spurious event of each still to come."""
    for _ in range(2):
        port.set_server_state(port.create_server(), True)
    return [port.events.bind(fake.lib.fake_vp_eport(server, vcpu)) for server in range(2) for vcpu in range(VCPUS)]


def readable(port: XenPort) -> bool:
    poll = select.poll()
    poll.register(port.events.fd, select.POLLIN)
    return bool(poll.poll(0))


def test_drain_takes_all_in_two_calls(fake: Any, port: XenPort, bound: list[int]) -> None:
    assert not os.get_blocking(port.events.fd)
    assert readable(port)
    assert all(fake.lib.fake_masked(local) for local in bound)
    assert port.events.drain() == len(bound)
    assert (fake.lib.fake_device_reads(), fake.lib.fake_device_writes()) == (1, 1)
    assert not any(fake.lib.fake_masked(local) for local in bound)
    assert not readable(port)


def test_drain_of_nothing(fake: Any, port: XenPort, bound: list[int]) -> None:
    port.events.drain()
    assert port.events.drain() == 0
    assert (fake.lib.fake_device_reads(), fake.lib.fake_device_writes()) == (2, 1)


def test_event_while_masked_comes_after_the_drain(fake: Any, port: XenPort, bound: list[int]) -> None:
    fake.lib.fake_raise(bound[0])
    assert port.events.drain() == len(bound)
    assert readable(port)
    assert port.events.drain() == 1
    assert not readable(port)


def test_overflow_of_the_ring(fake: Any, port: XenPort, bound: list[int]) -> None:
    port.events.drain()
    fake.lib.fake_ring_size(2)
    for local in bound:
        fake.lib.fake_raise(local)
    assert port.events.drain() == len(bound)
    assert not any(fake.lib.fake_masked(local) for local in bound)
    assert port.events.drain() == 0
    fake.lib.fake_raise(bound[4])
    assert port.events.drain() == 1


def test_overflow_that_loses_ports_never_seen_before(fake: Any, port: XenPort, bound: list[int]) -> None:
    port.events.drain()
    fake.lib.fake_ring_size(1)
    server = port.create_server()
    late = [port.events.bind(fake.lib.fake_vp_eport(server, vcpu)) for vcpu in range(VCPUS)]
    assert port.events.drain() == len(bound) + len(late)
    assert not any(fake.lib.fake_masked(local) for local in late)


def test_unbound_port_is_forgotten(fake: Any, port: XenPort, bound: list[int]) -> None:
    port.events.drain()
    port.events.unbind(bound[1])
    with pytest.raises(HostError, match="ENOTCONN: the port is not bound here"):
        port.events.unbind(bound[1])
    with pytest.raises(HostError, match="ENOTCONN"):
        port.events.notify(bound[1])
    fake.lib.fake_ring_size(0)
    fake.lib.fake_raise(bound[0])
    assert port.events.drain() == len(bound) - 1


def test_notify(fake: Any, port: XenPort, bound: list[int]) -> None:
    for _ in range(3):
        port.events.notify(bound[2])
    assert [fake.lib.fake_notified(local) for local in bound] == [0, 0, 3, 0, 0, 0]


def test_bind_twice(fake: Any, port: XenPort, bound: list[int]) -> None:
    with pytest.raises(HostError, match="another process is bound to it"):
        port.events.bind(fake.lib.fake_vp_eport(0, 0))


# the domain goes
