"""p2m types: what may become what, in each release line, and what a foreign mapping says of them.

The cases are written out from the sources, not derived from the tables in p2m.py, which they check.
"""

from __future__ import annotations

import errno

import pytest

from tests.support.device_model import DeviceModel, Request, write
from tests.support.tables import FRAME
from xengt_dm._core import ffi
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.embedded.p2m import CHANGES, CLASSES, FLAVOURS, LOOKS, P2mType, change, look, members
from xengt_dm.hypervisor.port import MemType, WriteTrap

T = P2mType
PAGE = 5 * FRAME
OK, INVAL, AGAIN = 0, errno.EINVAL, errno.EAGAIN

#: From each type to ram_rw, ram_ro, mmio_dm, number 3, number 4, in Xen >= 4.9 with the type claimed:
#: allow_p2m_type_change and set_mem_type, xen/arch/x86/hvm/dm.c.
SINCE_CLAIM = {
    T.RAM_RW: (OK, OK, OK, INVAL, OK),
    T.RAM_LOGDIRTY: (OK, OK, OK, INVAL, INVAL),
    T.RAM_RO: (OK, OK, OK, INVAL, INVAL),
    T.MMIO_DM: (INVAL, INVAL, OK, INVAL, INVAL),
    T.INVALID: (INVAL, INVAL, OK, INVAL, INVAL),
    T.MMIO_DIRECT: (INVAL, INVAL, INVAL, INVAL, INVAL),
    T.GRANT_MAP_RW: (INVAL, INVAL, INVAL, INVAL, INVAL),
    T.GRANT_MAP_RO: (INVAL, INVAL, INVAL, INVAL, INVAL),
    T.RAM_PAGED: (AGAIN, AGAIN, AGAIN, INVAL, AGAIN),
    T.RAM_PAGING_OUT: (AGAIN, AGAIN, AGAIN, INVAL, AGAIN),
    T.RAM_SHARED: (AGAIN, AGAIN, AGAIN, INVAL, AGAIN),
    T.POPULATE_ON_DEMAND: (OK, OK, OK, INVAL, OK),
    T.RAM_BROKEN: (INVAL, INVAL, INVAL, INVAL, INVAL),
    T.MAP_FOREIGN: (INVAL, INVAL, INVAL, INVAL, INVAL),
    T.IOREQ_SERVER: (OK, INVAL, INVAL, INVAL, INVAL),
}
#: The same at b4986813c5 (the 2014 series): HVMOP_set_mem_type in xen/arch/x86/hvm/hvm.c. RAM -> any, hole -> mmio_dm,
#: mmio_write_dm -> ram_rw.
V7 = {
    T.RAM_RW: (OK, OK, OK, OK, INVAL),
    T.RAM_LOGDIRTY: (OK, OK, OK, OK, INVAL),
    T.RAM_RO: (OK, OK, OK, OK, INVAL),
    T.MMIO_DM: (INVAL, INVAL, OK, INVAL, INVAL),
    T.INVALID: (INVAL, INVAL, OK, INVAL, INVAL),
    T.GRANT_MAP_RO: (INVAL, INVAL, INVAL, INVAL, INVAL),
    T.RAM_PAGED: (AGAIN, AGAIN, AGAIN, AGAIN, INVAL),
    T.RAM_SHARED: (AGAIN, AGAIN, AGAIN, AGAIN, INVAL),
    T.IOREQ_SERVER: (OK, INVAL, INVAL, INVAL, INVAL),
}
#: 4.7 has neither.
V47 = {old: (*row[:3], INVAL, INVAL) for old, row in V7.items()}
TABLES = {"v7": V7, "4.7": V47, "4.9": SINCE_CLAIM, "4.12": SINCE_CLAIM, "4.17": SINCE_CLAIM, "4.20": SINCE_CLAIM}
CASES = [
    (flavour, old, new, row[new]) for flavour, table in TABLES.items() for old, row in table.items() for new in MemType
]


@pytest.mark.parametrize(("flavour", "old", "new", "wanted"), CASES)
def test_change(flavour: str, old: P2mType, new: MemType, wanted: int) -> None:
    with EmbeddedDomain(8, 1, flavour=flavour) as domain:
        model = DeviceModel(domain, claim=domain.flavour.claim)
        domain.set_type(5, 1, old)
        assert model.set_types(new, [5]) == [wanted]
        became = {
            MemType.RAM_RW: T.RAM_RW,
            MemType.RAM_RO: T.RAM_RO,
            MemType.MMIO_DM: T.MMIO_DM,
            MemType.MMIO_WRITE_DM: T.IOREQ_SERVER,
            MemType.IOREQ_SERVER: T.IOREQ_SERVER,
        }
        assert domain.type_of(5) == (old if wanted else became[new])


def test_every_type_has_one_row_in_every_flavour() -> None:
    for flavour in FLAVOURS.values():
        for p2m_type in P2mType:
            assert sum(p2m_type in row.types and flavour.name in row.flavours for row in LOOKS) == 1
            assert look(flavour, p2m_type).source
            for new in MemType:
                assert change(flavour, p2m_type, new).source
    assert all(row.source for row in (*CLASSES, *CHANGES, *LOOKS))
    assert all(flavour.source for flavour in FLAVOURS.values())


def test_classes() -> None:
    """The series put its type among the read-only ones and not the RAM ones; the claim turned both round."""
    assert T.IOREQ_SERVER in members("p2m_is_readonly", claim=False)
    assert T.IOREQ_SERVER not in members("p2m_is_ram", claim=False)
    assert T.IOREQ_SERVER not in members("p2m_is_readonly", claim=True)
    assert T.IOREQ_SERVER in members("p2m_is_ram", claim=True)
    assert members("p2m_is_discard_write", claim=False) == {T.RAM_RO, T.GRANT_MAP_RO}


def test_frames_that_do_not_exist() -> None:
    with EmbeddedDomain(8, 1, holes=[(2, 3)]) as domain:
        model = DeviceModel(domain)
        assert model.set_types(MemType.IOREQ_SERVER, [1, 2, 4, 5, 7, 8, 1 << 60]) == [
            0,
            INVAL,
            INVAL,
            0,
            0,
            INVAL,
            INVAL,
        ]
        assert domain.protected() == [1, 5, 7]
        assert domain.entries == 3


@pytest.mark.parametrize(
    ("flavour", "p2m_type", "wanted"),
    [
        ("4.17", T.RAM_RW, 0),
        ("4.17", T.RAM_RO, 0),
        ("4.17", T.RAM_LOGDIRTY, 0),
        ("4.17", T.IOREQ_SERVER, 0),
        ("4.17", T.MMIO_DM, errno.EINVAL),
        ("4.17", T.INVALID, errno.EINVAL),
        ("4.17", T.GRANT_MAP_RW, errno.EINVAL),
        ("4.17", T.RAM_PAGED, errno.ENOENT),
        # Not a RAM type then, so no foreign mapping: XenGT mapped all of the guest before it protected anything.
        ("v7", T.IOREQ_SERVER, errno.EINVAL),
    ],
)
def test_foreign_mapping(flavour: str, p2m_type: P2mType, wanted: int) -> None:
    with EmbeddedDomain(8, 1, flavour=flavour) as domain:
        domain.set_type(5, 1, p2m_type)
        errors = ffi.new("int[3]")
        domain.port().map_frames(4, 3, errors)
        assert list(errors) == [0, wanted, 0]


# The 2014 series


def v7() -> tuple[EmbeddedDomain, DeviceModel]:
    domain = EmbeddedDomain(16, 1, flavour="v7")
    model = DeviceModel(domain, claim=False)
    assert model.port.write_trap is WriteTrap.RANGES
    return domain, model


def test_v7_needs_a_range_for_each_page() -> None:
    domain, model = v7()
    with domain:
        model.protect(5)
        assert model.serve(lambda v: v.store(PAGE, 8, 1)) == []
        assert domain.dropped_stores == 1
        model.port.map_mmio(model.server, PAGE, PAGE + FRAME - 1)
        assert model.serve(lambda v: v.store(PAGE, 8, 1)) == [write(PAGE, 8, 1)]
        assert model.serve(lambda v: v.rep_stos(PAGE, 4, 2, 9)) == [write(PAGE, 4, 9), write(PAGE + 4, 4, 9)]
        assert domain.dropped_stores == 1
        assert model.serve(lambda v: expect_load(v, PAGE, 0x900000009)) == []


def expect_load(v: Vcpu, gpa: int, value: int) -> None:
    assert v.load(gpa, 8) == value


def test_v7_sends_what_no_range_claims_to_the_default_server() -> None:
    domain, model = v7()
    with domain:
        qemu = DeviceModel(domain, claim=False)
        domain.set_default_server(qemu.server)
        model.protect(5)
        assert qemu.serve(lambda v: v.store(PAGE, 8, 1)) == [write(PAGE, 8, 1)]
        model.port.map_mmio(model.server, PAGE, PAGE + FRAME - 1)
        assert model.serve(lambda v: v.store(PAGE, 8, 1)) == [write(PAGE, 8, 1)]
        assert domain.dropped_stores == 0


def test_v7_reads_of_a_read_modify_write_go_to_the_device_model() -> None:
    domain, model = v7()
    with domain:
        model.port.map_mmio(model.server, PAGE, PAGE + FRAME - 1)
        model.protect(5)
        domain.write(PAGE, bytes([9] * 8))
        got = model.serve(lambda v: check_xchg(v, 0x77), on_request=lambda request: 0x77 if request.read else None)
        assert got == [Request(PAGE, 4, 0, read=True), write(PAGE, 4, 3)]


def check_xchg(v: Vcpu, wanted: int) -> None:
    assert v.xchg(PAGE, 4, 3) == wanted


def test_v7_splits_a_straddling_store_by_its_alignment() -> None:
    domain, model = v7()
    with domain:
        model.port.map_mmio(model.server, PAGE, PAGE + FRAME - 1)
        model.protect(5)
        end = PAGE + FRAME
        assert model.serve(lambda v: v.store(end - 2, 8, 0x8877665544332211)) == [write(end - 2, 2, 0x2211)]
        assert domain.read(end, 6) == bytes([0x33, 0x44, 0x55, 0x66, 0x77, 0x88])
        # Begun in plain memory, it is copied as far as that goes; then all of it is requests, the first ones nobody's.
        assert model.serve(lambda v: v.store(PAGE - 2, 8, 0x8877665544332211)) == [
            write(PAGE, 2, 0x4433),
            write(PAGE + 2, 2, 0x6655),
            write(PAGE + 4, 2, 0x8877),
        ]
        assert domain.read(PAGE - 2, 8) == bytes([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88])
        assert domain.dropped_stores == 0


def test_v7_has_no_claim() -> None:
    domain, model = v7()
    with domain:
        with pytest.raises(HostError, match="no claim") as caught:
            model.port.claim_writes(model.server)
        assert caught.value.errno == errno.EOPNOTSUPP
        assert model.set_types(MemType.IOREQ_SERVER, [5]) == [INVAL]


def test_4_7_cannot_trap_at_all() -> None:
    with EmbeddedDomain(16, 1, flavour="4.7") as domain:
        model = DeviceModel(domain, claim=False)
        assert domain.flavour.trap is None
        assert [model.set_types(new, [5]) for new in (3, 4)] == [[INVAL], [INVAL]]


def test_4_9_lets_repeated_stores_bypass_the_device_model() -> None:
    for flavour, bypass in (("4.9", True), ("4.12", False)):
        with EmbeddedDomain(16, 1, flavour=flavour) as domain:
            model = DeviceModel(domain)
            model.protect(5)
            got = model.serve(lambda v: v.rep_stos(PAGE, 8, 4, 7))
            assert len(got) == (0 if bypass else 4)
            assert domain.read_u64(PAGE + 24) == 7
            assert model.serve(lambda v: v.store(PAGE, 8, 7)) == [write(PAGE, 8, 7)]


def test_4_9_makes_requests_of_plain_memory_behind_a_trapped_page() -> None:
    for flavour, lost in (("4.9", True), ("4.12", False)):
        with EmbeddedDomain(16, 1, flavour=flavour) as domain:
            model = DeviceModel(domain)
            model.protect(5)
            model.serve(lambda v: v.store(PAGE + FRAME - 4, 8, 0x0102030405060708))
            assert domain.read(PAGE + FRAME, 4) == (bytes(4) if lost else bytes([4, 3, 2, 1]))
            assert domain.dropped_stores == int(lost)
