"""What a device needs of XenPort besides memory: ports, PCI functions and interrupts."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.hypervisor.xen.port import XenPort
from xengt_dm.units import sbdf

VGPU = sbdf(0, 2, 0)
UNMAP_RANGE = "xendevicemodel_unmap_io_range_from_ioreq_server"
UNMAP_PCI = "xendevicemodel_unmap_pcidev_from_ioreq_server"
INJECT = "xendevicemodel_inject_msi"


def test_ports_and_functions_reach_xen(fake: Any, port: XenPort) -> None:
    domain: DomainPort = port
    server = domain.create_server()
    fake.calls()
    domain.map_ports(server, 0x3C0, 0x3DF)
    domain.map_pci(server, VGPU)
    domain.map_pci(server, sbdf(0xFF, 31, 7, segment=0xFFFF))
    domain.unmap_ports(server, 0x3C0, 0x3DF)
    domain.unmap_pci(server, VGPU)
    domain.set_intx(sbdf(0, 3, 1), 2, True)
    domain.set_intx(sbdf(0, 3, 1), 2, False)
    assert fake.calls() == [
        "map_io_range_to_ioreq_server(7, 0, 0, 960, 991)",
        "map_pcidev_to_ioreq_server(7, 0, 0, 0, 2, 0)",
        "map_pcidev_to_ioreq_server(7, 0, 65535, 255, 31, 7)",
        "unmap_io_range_from_ioreq_server(7, 0, 0, 960, 991)",
        "unmap_pcidev_from_ioreq_server(7, 0, 0, 0, 2, 0)",
        "set_pci_intx_level(7, 0, 0, 3, 2, 1)",
        "set_pci_intx_level(7, 0, 0, 3, 2, 0)",
    ]


UNMAPS: dict[str, tuple[str, Callable[[DomainPort, int], None], str]] = {
    "memory": (UNMAP_RANGE, lambda port, server: port.unmap_mmio(server, 0, 1), "does not have this range"),
    "ports": (UNMAP_RANGE, lambda port, server: port.unmap_ports(server, 0, 1), "does not have this range"),
    "pci": (UNMAP_PCI, lambda port, server: port.unmap_pci(server, VGPU), "does not have this PCI function"),
}


@pytest.mark.parametrize("kind", UNMAPS)
def test_what_is_missing_is_the_range_or_the_server(fake: Any, port: XenPort, kind: str) -> None:
    call, unmap, words = UNMAPS[kind]
    server = port.create_server()
    fake.fail(call, errno.ENOENT)
    with pytest.raises(HostError, match=words) as caught:
        unmap(port, server)
    assert not isinstance(caught.value, DomainGoneError)
    port.destroy_server(server)
    fake.fail(call, errno.ENOENT)
    with pytest.raises(DomainGoneError, match="the ioreq server is gone"):
        unmap(port, server)


def test_an_interrupt_is_accepted(fake: Any, port: XenPort) -> None:
    fake.calls()
    assert port.inject_msi(0xFEE01000, 0x4041)
    assert fake.calls() == ["inject_msi(7, 4276097024, 16449)"]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ERANGE, errno.ESRCH])
def test_what_a_guest_asks_for_in_vain_is_no_failure(fake: Any, port: XenPort, error: int) -> None:
    fake.fail(INJECT, error)
    assert not port.inject_msi(0xFEE01000, 0x4141)
    assert port.inject_msi(0xFEE01000, 0x4041)


def test_no_domain_is_not_no_receiver(fake: Any, port: XenPort) -> None:
    fake.lib.fake_kill(2)
    with pytest.raises(DomainGoneError):
        port.inject_msi(0xFEE01000, 0x4141)


def test_the_host_may_still_refuse_an_interrupt(fake: Any, port: XenPort) -> None:
    fake.fail(INJECT, errno.EPERM)
    with pytest.raises(HostError, match="not permitted"):
        port.inject_msi(0xFEE01000, 0x4041)
