"""XenPort's life, its servers and its domain's end, on libraries that behave as Xen's do."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, Self

import pytest

from xengt_dm.errors import DomainGoneError, ExitCode, HostError
from xengt_dm.hypervisor.port import DomainPort, MemType, WriteTrap
from xengt_dm.hypervisor.xen import library, port
from xengt_dm.hypervisor.xen.port import XenPort
from xengt_dm.xenstore import Message, MessageType

DOMID = 7
VCPUS = 3
OPENING = ["open(0)", "xenforeignmemory_open(0)", "xenevtchn_open(0)", "nr_vcpus(7)"]
CLOSING = ["xenevtchn_close(0)", "xenforeignmemory_close(0)", "close(0)"]


def test_life_of_a_device_model(fake: Any) -> None:
    port: DomainPort = XenPort(DOMID, frame_limit=1 << 20)
    assert (port.domid, port.frame_limit, port.write_trap) == (DOMID, 1 << 20, WriteTrap.CLAIM)
    assert fake.calls() == OPENING
    assert port.vcpu_count() == VCPUS
    server = port.create_server()
    page = port.map_slots(server)
    port.map_mmio(server, 0xF0000000, 0xF0FFFFFF)
    port.claim_writes(server)
    assert fake.lib.fake_claim() == server
    port.set_server_state(server, True)
    locals_ = [port.events.bind(fake.slot_port(page, vcpu)) for vcpu in range(VCPUS)]
    assert port.server_exists(server)
    assert fake.calls() == [
        "create_ioreq_server(7, 0)",
        "xenforeignmemory_map_resource(7, 0, 0, 1, 1)",
        "map_io_range_to_ioreq_server(7, 0, 1, 4026531840, 4043309055)",
        "map_mem_type_to_ioreq_server(7, 0, 4, 2)",
        "set_ioreq_server_state(7, 0, 1)",
        *(f"xenevtchn_bind_interdomain(7, {100 + vcpu})" for vcpu in range(VCPUS)),
        "get_ioreq_server_info(7, 0)",
    ]
    port.release_writes(server)
    assert fake.lib.fake_claim() == -1
    port.unmap_mmio(server, 0xF0000000, 0xF0FFFFFF)
    port.set_server_state(server, False)
    for local in locals_:
        port.events.unbind(local)
    port.unmap_slots(server)
    port.destroy_server(server)
    assert not port.server_exists(server)
    fake.calls()
    port.close()
    port.close()
    assert fake.calls() == CLOSING
    assert fake.lib.fake_open_handles() == 0


def test_close_undoes_what_is_left(fake: Any) -> None:
    port = XenPort(DOMID, frame_limit=1)
    port.map_slots(port.create_server())
    fake.calls()
    port.close()
    assert fake.calls() == ["xenforeignmemory_unmap_resource(0)", *CLOSING]
    assert fake.lib.fake_open_handles() == 0


@pytest.mark.parametrize("call", ["xendevicemodel_open", "xenforeignmemory_open", "xenevtchn_open"])
def test_what_was_opened_is_closed_when_the_next_fails(fake: Any, call: str) -> None:
    fake.fail(call, errno.EACCES)
    with pytest.raises(HostError) as caught:
        XenPort(DOMID, frame_limit=1)
    assert caught.value.call == call
    assert caught.value.exit_code is ExitCode.PERMISSION
    assert "not permitted to open" in str(caught.value)
    assert fake.lib.fake_open_handles() == 0


def test_no_such_domain(fake: Any) -> None:
    with pytest.raises(DomainGoneError, match="xendevicemodel_nr_vcpus for domain 8: ESRCH: the domain is gone"):
        XenPort(8, frame_limit=1)
    assert fake.lib.fake_open_handles() == 0


@pytest.mark.parametrize("domid", [-1, 0x7FF0, 1 << 20])
def test_no_domain_has_this_number(fake: Any, domid: int) -> None:
    with pytest.raises(HostError, match="no domain can have this number"):
        XenPort(domid, frame_limit=1)
    assert fake.calls() == []


def test_slots_reach_the_server(fake: Any, port: XenPort) -> None:
    server = port.create_server()
    page = port.map_slots(server)
    assert fake.slot_port(page, 0) == 0
    port.set_server_state(server, True)
    assert [fake.slot_port(page, vcpu) for vcpu in range(VCPUS)] == [100, 101, 102]


def test_ninth_server(fake: Any, port: XenPort) -> None:
    assert [port.create_server() for _ in range(8)] == list(range(8))
    with pytest.raises(HostError, match="ENOSPC: the domain has its 8 ioreq servers already"):
        port.create_server()


# Xen's version, the store, confinement


@pytest.mark.parametrize(("minor", "served"), [("12", False), ("13", True), ("20", True)])
def test_version_floor(fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minor: str, served: bool) -> None:
    (tmp_path / "version").mkdir()
    for name, text in (("major", "4"), ("minor", minor), ("extra", ".1-rc")):
        (tmp_path / "version" / name).write_text(text + "\n")
    monkeypatch.setattr(library, "SYS_HYPERVISOR", tmp_path)
    if served:
        XenPort(DOMID, frame_limit=1).close()
        return
    with pytest.raises(HostError, match=r"this is Xen 4\.12\.1-rc, which can lose stores .*; 4\.13 or later") as caught:
        XenPort(DOMID, frame_limit=1)
    assert caught.value.exit_code is ExitCode.UNAVAILABLE
    assert fake.calls() == []


def test_a_xen_that_does_not_tell_its_version_must_answer(fake: Any) -> None:
    fake.fail("xendevicemodel_nr_vcpus", errno.EOPNOTSUPP)
    with pytest.raises(HostError, match=r"older than 4\.15"):
        XenPort(DOMID, frame_limit=1)


class Store:
    """As much of XenStore as XenPort uses."""

    nodes: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def read(self, path: str) -> str:
        if path not in self.nodes:
            raise HostError("xenstore read", None, Message(MessageType.ERROR, 0, 0, b"ENOENT\0").errno)
        return self.nodes[path]

    def exists(self, path: str) -> bool:
        return any(node == path or node.startswith(path + "/") for node in self.nodes)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        # 512 MiB are 2^17 frames, on top of the 2^20 below 4 GiB.
        ({"/local/domain/7/memory/static-max": "524288"}, (1 << 20) + (1 << 17)),
        ({"/local/domain/7/memory/static-max": "-1"}, "not a number of KiB"),
        ({"/local/domain/7/memory/static-max": "9" * 30}, "not a number of KiB"),
        ({"/local/domain/7/memory/static-max": ""}, "not a number of KiB"),
        ({"/local/domain/7/name": "guest"}, "give the frame limit by hand"),
    ],
)
def test_frame_limit(fake: Any, monkeypatch: pytest.MonkeyPatch, nodes: dict[str, str], expected: int | str) -> None:
    monkeypatch.setattr(port, "XenStore", Store)
    monkeypatch.setattr(Store, "nodes", nodes)
    if isinstance(expected, int):
        with XenPort(DOMID) as opened:
            assert opened.frame_limit == expected
    else:
        with pytest.raises(HostError, match=expected):
            XenPort(DOMID)
        assert fake.calls() == []


def test_frame_limit_of_no_domain(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "XenStore", Store)
    with pytest.raises(DomainGoneError, match="there is no such domain"):
        XenPort(DOMID)


def test_restricted_from_the_start(fake: Any) -> None:
    with XenPort(DOMID, frame_limit=1, restrict=True) as port:
        assert fake.calls() == [*OPENING, "xentoolcore_restrict_all(7)"]
        assert fake.lib.fake_restricted_to() == DOMID
        port.create_server()


def test_restrict_later_and_not_twice_to_others(fake: Any, port: XenPort) -> None:
    port.restrict()
    assert fake.lib.fake_restricted_to() == DOMID
    fake.fail("xentoolcore_restrict_all", errno.EOPNOTSUPP)
    with pytest.raises(HostError, match=r"Linux 4\.11 or later"):
        port.restrict()


# the claim and the types


def test_claim_of_another(fake: Any, port: XenPort) -> None:
    first, second = port.create_server(), port.create_server()
    port.claim_writes(first)
    with pytest.raises(HostError, match="EBUSY: another ioreq server claims the type") as caught:
        port.claim_writes(second)
    assert (caught.value.call, caught.value.domid) == ("xendevicemodel_map_mem_type_to_ioreq_server", DOMID)
    with pytest.raises(HostError, match="belongs to another"):
        port.release_writes(second)


def test_claim_on_shadow_paging(fake: Any, port: XenPort) -> None:
    server = port.create_server()
    fake.fail("xendevicemodel_map_mem_type_to_ioreq_server", errno.EOPNOTSUPP)
    with pytest.raises(HostError, match="shadow paging: write trapping needs HAP"):
        port.claim_writes(server)


def test_a_dying_domain_has_no_servers(fake: Any, port: XenPort) -> None:
    server = port.create_server()
    page = port.map_slots(server)
    port.map_mmio(server, 0x1000, 0x1FFF)
    port.set_server_state(server, True)
    port.events.bind(fake.slot_port(page, 0))
    port.events.drain()
    fake.lib.fake_kill(1)
    assert port.events.drain() == 1
    assert not port.server_exists(server)
    for attempt in (
        lambda: port.map_mmio(server, 0x2000, 0x2FFF),
        lambda: port.unmap_mmio(server, 0x1000, 0x1FFF),
        lambda: port.claim_writes(server),
        lambda: port.release_writes(server),
        lambda: port.set_server_state(server, False),
        lambda: port.destroy_server(server),
        lambda: fake.set_types(port, MemType.RAM_RW, 1, 2),
    ):
        with pytest.raises(DomainGoneError, match="the ioreq server is gone"):
            attempt()
    assert fake.slot_port(page, 0) == 100
    errors = fake.ffi.new("int[]", 2)
    port.unmap_frames(port.map_frames(1, 2, errors), 2)
    assert list(errors) == [errno.EINVAL, errno.EINVAL]
    port.unmap_slots(server)
    with pytest.raises(DomainGoneError):
        port.map_slots(server)


def test_a_domain_that_is_gone(fake: Any, port: XenPort) -> None:
    server = port.create_server()
    port.claim_writes(server)
    fake.lib.fake_kill(2)
    assert not port.server_exists(server)
    errors = fake.ffi.new("int[]", 3)
    gfns, _ = fake.gfns_of(1, 2, 3)
    for attempt in (
        port.create_server,
        lambda: port.set_server_state(server, True),
        lambda: port.unmap_mmio(server, 0, 1),
        lambda: port.set_mem_types(MemType.RAM_RW, gfns, 3, errors),
        lambda: port.map_frames(0, 3, errors),
        lambda: port.inject_msi(0xFEE00000, 0x41),
        lambda: port.events.bind(100),
    ):
        with pytest.raises(DomainGoneError, match="for domain 7: ESRCH: the domain is gone"):
            attempt()


def test_domain_goes_between_two_frames(fake: Any, port: XenPort) -> None:
    port.claim_writes(port.create_server())
    fake.fail("xendevicemodel_set_mem_type", errno.ESRCH, nth=2)
    gfns, errors = fake.gfns_of(1, 2, 3)
    with pytest.raises(DomainGoneError):
        port.set_mem_types(MemType.IOREQ_SERVER, gfns, 3, errors)
    assert list(errors) == [0, errno.ESRCH, errno.ESRCH]


def test_a_range_that_is_not_ours_is_no_death(fake: Any, port: XenPort) -> None:
    server = port.create_server()
    fake.fail("xendevicemodel_unmap_io_range_from_ioreq_server", errno.ENOENT)
    with pytest.raises(HostError, match="the server does not have this range") as caught:
        port.unmap_mmio(server, 0, 1)
    assert not isinstance(caught.value, DomainGoneError)


# the rest of libxendevicemodel


def test_every_wrapper_passes_its_arguments_in_order(fake: Any, port: XenPort) -> None:
    model = port.device_model
    server = port.create_server()
    fake.calls()
    model.map_range(server, 0x3C0, 0x3DF, ports=True)
    model.unmap_range(server, 0x3C0, 0x3DF, ports=True)
    model.map_pci(server, 0x00010113)
    model.unmap_pci(server, 0x00010113)
    port.inject_msi(0xFEE01000, 0x4041)
    model.inject_event(1, 14, 3, error_code=2, length=5, extra=0x1234)
    model.set_intx(0x10, 1, True)
    model.set_isa_irq(5, False)
    model.set_pci_link_route(2, 11)
    model.modified_memory(100, 4)
    model.modified_memory_bulk([(5, 1), (9, 2)])
    model.relocate_memory(10, 20, 3)
    model.pin_cache_attribute(1, 2, 6)
    model.shutdown(3)
    assert fake.calls() == [
        "map_io_range_to_ioreq_server(7, 0, 0, 960, 991)",
        "unmap_io_range_from_ioreq_server(7, 0, 0, 960, 991)",
        "map_pcidev_to_ioreq_server(7, 0, 1, 1, 2, 3)",
        "unmap_pcidev_from_ioreq_server(7, 0, 1, 1, 2, 3)",
        "inject_msi(7, 4276097024, 16449)",
        "inject_event(7, 1, 14, 3, 2, 5, 4660)",
        "set_pci_intx_level(7, 0, 0, 2, 1, 1)",
        "set_isa_irq_level(7, 5, 0)",
        "set_pci_link_route(7, 2, 11)",
        "modified_memory(7, 100, 4)",
        "modified_memory_bulk(7, 5, 1)",
        "modified_memory_bulk(7, 9, 2)",
        "relocate_memory(7, 3, 10, 20)",
        "pin_memory_cacheattr(7, 1, 2, 6)",
        "shutdown(7, 3)",
    ]
    assert model.track_dirty(0, 12) == b"\xa5\xa5"
    assert port.memory.resource_frames(0, server) == 2


def test_names_of_the_headers() -> None:
    lib = library.load().lib
    assert [lib.HVMMEM_ram_rw, lib.HVMMEM_ram_ro, lib.HVMMEM_mmio_dm, lib.HVMMEM_unused, lib.HVMMEM_ioreq_server] == [
        int(kind) for kind in MemType
    ]
    assert (lib.XEN_DMOP_IOREQ_MEM_ACCESS_WRITE, lib.HVM_IOREQSRV_BUFIOREQ_OFF, lib.XD_IOREQ_FRAME_FIRST) == (2, 0, 1)
