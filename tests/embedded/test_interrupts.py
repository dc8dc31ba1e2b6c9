"""Interrupts that a device model injects: who gets them, and what Xen refuses."""

from __future__ import annotations

import errno

import pytest

from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.units import sbdf

LOWEST = 0x100
LOGICAL = 4
#: address, data: whether Xen accepts it, and whether one of two vCPUs with enabled local APICs gets it.
MESSAGES = {
    "fixed to the first": (0xFEE00000, 0x31, True, True),
    "fixed to the second, whose id is 2": (0xFEE02000, 0x31, True, True),
    "fixed to an id that nobody has": (0xFEE01000, 0x31, True, False),
    "fixed to all": (0xFEEFF000, 0x31, True, True),
    "lowest priority to the second": (0xFEE02000, LOWEST | 0x31, True, True),
    "lowest priority to nobody": (0xFEE04000, LOWEST | 0x31, False, False),
    "logical, both": (0xFEE03000 | LOGICAL, 0x31, True, True),
    "logical, nobody": (0xFEE04000 | LOGICAL, 0x31, True, False),
    "lowest priority, logical, the second": (0xFEE02000 | LOGICAL, LOWEST | 0x31, True, True),
    "lowest priority, logical, nobody": (0xFEE04000 | LOGICAL, LOWEST | 0x31, False, False),
    "a system management interrupt": (0xFEE00000, 0x231, False, False),
    "one that cannot be masked": (0xFEE00000, 0x431, False, False),
    "vector 0": (0xFEE00000, 0, False, False),
    "vector 0, for an event channel": (0xFEE05000, 0, True, False),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message(name: str) -> None:
    address, data, accepted, arrives = MESSAGES[name]
    with EmbeddedDomain(4, 2) as domain:
        port: DomainPort = domain.port()
        assert port.inject_msi(address, data) == accepted
        assert domain.msis == ([(address, data)] if arrives else [])


@pytest.mark.parametrize("name", MESSAGES)
def test_nobody_gets_a_message_without_local_apics(name: str) -> None:
    """Accepted all the same if it is of fixed delivery; see tests/conformance/cases/ports.toml for real Xen."""
    address, data, accepted, _ = MESSAGES[name]
    with EmbeddedDomain(4, 2, local_apics=False) as domain:
        assert domain.port().inject_msi(address, data) == (accepted and not data & LOWEST)
        assert domain.msis == []


def test_messages_are_kept_in_order() -> None:
    with EmbeddedDomain(4, 1) as domain:
        port = domain.port()
        for vector in (0x31, 0x32, 0x31):
            port.inject_msi(0xFEE00000, vector)
        assert [message.data for message in domain.msis] == [0x31, 0x32, 0x31]


def test_lines() -> None:
    with EmbeddedDomain(4, 1) as domain:
        port = domain.port()
        port.set_intx(sbdf(0, 2, 0), 0, True)
        port.set_intx(sbdf(0, 3, 1), 3, True)
        port.set_intx(sbdf(0, 3, 0), 3, False)
        assert domain.interrupts.intx == {(2, 0): True, (3, 3): False}
        for number, pin in ((sbdf(1, 2, 0), 0), (sbdf(0, 2, 0, segment=1), 0), (sbdf(0, 2, 0), 4)):
            with pytest.raises(HostError) as caught:
                port.set_intx(number, pin, True)
            assert caught.value.errno == errno.EINVAL


def test_a_domain_that_is_gone_gets_none() -> None:
    with EmbeddedDomain(4, 1) as domain:
        port = domain.port()
        domain.destroy()
        with pytest.raises(DomainGoneError):
            port.inject_msi(0xFEE00000, 0x31)
        with pytest.raises(DomainGoneError):
            port.set_intx(sbdf(0, 2, 0), 0, True)
        assert domain.msis == []
