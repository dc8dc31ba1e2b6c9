"""The claim of a memory type: who may have it, what it delivers, and what is left when it ends."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from tests.support.device_model import PATIENCE, DeviceModel, write
from tests.support.tables import FRAME
from xengt_dm._embedded import lib
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.errors import GuestFaultError
from xengt_dm.hypervisor.port import MemType

PAGE = 5 * FRAME


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(32, 2) as made:
        yield made


def refused(call: Callable[[], object]) -> HostError:
    with pytest.raises(HostError) as caught:
        call()
    return caught.value


def test_the_owner_gets_stores_even_when_disabled(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    model.port.set_server_state(model.server, False)
    assert model.serve(lambda v: v.store(PAGE, 8, 1)) == [write(PAGE, 8, 1)]


def test_an_owner_that_was_never_enabled_faults_the_guest(domain: EmbeddedDomain) -> None:
    """Its slots do not say their ports yet, and Xen takes that for corruption."""
    model = DeviceModel(domain, enable=False)
    model.protect(5)
    domain.start(0, lambda v: v.store(PAGE, 8, 1))
    with pytest.raises(GuestFaultError):
        domain.join(PATIENCE)


def test_the_claim_comes_before_ranges(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    other = DeviceModel(domain, ranges=[(PAGE, PAGE + 0xFFF)], claim=False)
    assert model.serve(lambda v: v.store(PAGE, 8, 1)) == [write(PAGE, 8, 1)]
    # On plain RAM a range means nothing.
    assert other.serve(lambda v: v.store(PAGE - 8, 8, 1)) == []
    assert domain.dropped_stores == 0


def test_claim_rules(domain: EmbeddedDomain) -> None:
    port = domain.port()
    one, two = port.create_server(), port.create_server()
    assert refused(lambda: port.release_writes(one)).errno == errno.EINVAL
    port.claim_writes(one)
    assert domain.owner == one
    assert refused(lambda: port.claim_writes(one)).errno == errno.EBUSY
    assert refused(lambda: port.claim_writes(two)).errno == errno.EBUSY
    assert refused(lambda: port.release_writes(two)).errno == errno.EINVAL
    assert refused(lambda: port.claim_writes(5)).errno == errno.ENOENT
    port.release_writes(one)
    assert domain.owner is None
    port.claim_writes(two)


def test_release_resets_every_page_before_it_returns(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5, 7, 31)
    assert domain.entries == 3
    model.port.release_writes(model.server)
    assert (domain.entries, domain.protected()) == (0, [])
    assert model.serve(lambda v: v.store(PAGE, 8, 1)) == []
    assert domain.read_u64(PAGE) == 1


def test_nobody_can_claim_over_the_entries_of_one_who_did_not_release(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain)
    model.protect(5)
    model.port.destroy_server(model.server)
    assert (domain.owner, domain.entries) == (None, 1)
    next_one = DeviceModel(domain, claim=False)
    assert refused(lambda: next_one.port.claim_writes(next_one.server)).errno == errno.EBUSY
    assert next_one.set_types(MemType.IOREQ_SERVER, [6]) == [errno.EINVAL]
    next_one.unprotect(5)
    next_one.port.claim_writes(next_one.server)


def test_only_write_access_can_be_claimed(domain: EmbeddedDomain) -> None:
    server = domain.port().create_server()
    for mem_type, flags in ((4, 1), (4, 3), (4, 4), (3, 2), (0, 2)):
        assert lib.xd_emb_claim(domain.handle, server, mem_type, flags) == -errno.EINVAL


def test_a_type_needs_its_claim(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain, claim=False)
    assert model.set_types(MemType.IOREQ_SERVER, [5]) == [errno.EINVAL]
    model.port.claim_writes(model.server)
    assert model.set_types(MemType.IOREQ_SERVER, [5, 5, 6, 40]) == [0, errno.EINVAL, 0, errno.EINVAL]
