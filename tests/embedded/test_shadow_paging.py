"""A guest on shadow paging: the data, the domain, and the device model that cannot have one today.

What its accesses meet is in tests/conformance/cases/shadow.toml.
"""

from __future__ import annotations

import errno

import pytest

from xengt_dm.errors import ExitCode, HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS, P2mType, members
from xengt_dm.hypervisor.embedded.shadow_paging import HAP_TYPES, Paging, can_have, shadow_look
from xengt_dm.instance import open_instance
from xengt_dm.settings import Settings

EVERY_FLAVOUR = pytest.mark.parametrize("flavour", FLAVOURS)
CLAIM = [name for name, flavour in FLAVOURS.items() if flavour.claim]


@EVERY_FLAVOUR
@pytest.mark.parametrize("p2m_type", P2mType)
def test_there_is_a_row_for_every_type_that_a_guest_can_have(flavour: str, p2m_type: P2mType) -> None:
    row = shadow_look(FLAVOURS[flavour], p2m_type)
    assert (row is not None) == can_have(FLAVOURS[flavour], Paging.SHADOW, p2m_type)
    assert can_have(FLAVOURS[flavour], Paging.HAP, p2m_type)
    with EmbeddedDomain(8, 1, flavour, paging="shadow") as domain:
        if row is not None:
            assert row.source
            domain.set_type(3, 1, p2m_type)
            assert domain.type_of(3) is p2m_type
        else:
            with pytest.raises(ValueError, match=p2m_type.name.lower()):
                domain.set_type(3, 1, p2m_type)
            assert domain.type_of(3) is P2mType.RAM_RW


def test_what_only_hap_has_is_not_the_types_of_the_series() -> None:
    only_hap = {p2m_type for types, _, _ in HAP_TYPES for p2m_type in types}
    discarding = members("p2m_is_discard_write", claim=False)
    assert not only_hap & discarding
    assert can_have(FLAVOURS["v7"], Paging.SHADOW, P2mType.IOREQ_SERVER)


def test_paging_has_two_words() -> None:
    with EmbeddedDomain(8, 1) as domain:
        assert domain.paging is Paging.HAP
    with EmbeddedDomain(8, 1, paging="shadow") as domain:
        assert domain.paging is Paging.SHADOW
    with pytest.raises(ValueError, match="none"):
        EmbeddedDomain(8, 1, paging="none")


@pytest.mark.parametrize("flavour", [name for name in CLAIM if name != "4.9"])
def test_no_instance_without_hap(flavour: str) -> None:
    """The error names the key, its status is one that no restart follows, and Xen has nothing of ours left."""
    with EmbeddedDomain(64, 1, flavour, paging="shadow") as domain:
        with pytest.raises(HostError, match="hap=1") as caught, open_instance(domain.port(), Settings()):
            pass
        assert caught.value.errno == errno.EOPNOTSUPP
        assert caught.value.call == "xendevicemodel_map_mem_type_to_ioreq_server"
        assert caught.value.exit_code is ExitCode.CONFIG
        assert domain.owner is None
        assert domain.entries == 0
        assert domain.port().create_server() == 0  # the first is free, so ours is destroyed


def test_the_claim_that_an_old_xen_lacks_is_another_matter() -> None:
    with EmbeddedDomain(64, 1, "v7", paging="shadow") as domain, pytest.raises(HostError, match="no claim") as caught:
        domain.port().claim_writes(0)
    assert "hap" not in str(caught.value)
