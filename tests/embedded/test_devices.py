"""Device memory and ports: registers, repeated instructions on them, PCI configuration space."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.support.device_model import PCI_CONFIG, PIO, DeviceModel, Request, write
from tests.support.tables import FRAME
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.units import sbdf

BAR = 0xF0000000
VGPU = sbdf(0, 2, 0)


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(32, 1) as made:
        yield made


@pytest.fixture
def model(domain: EmbeddedDomain) -> DeviceModel:
    return DeviceModel(domain, ranges=[(BAR, BAR + 0xFFFFFF)])


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_register(model: DeviceModel, size: int) -> None:
    mask = (1 << 8 * size) - 1
    values: list[int] = []

    def program(v: Vcpu) -> None:
        v.mmio_write(BAR + 0x78, size, 0x8877665544332211)
        values.append(v.mmio_read(BAR + 0x78, size))

    got = model.serve(program, on_request=lambda request: 0xF1F2F3F4F5F6F7F8 if request.read else None)
    assert got == [write(BAR + 0x78, size, 0x8877665544332211), Request(BAR + 0x78, size, 0, read=True)]
    assert values == [0xF1F2F3F4F5F6F7F8 & mask]


def test_a_read_over_a_page_s_end_is_put_together(model: DeviceModel) -> None:
    values: list[int] = []
    got = model.serve(
        lambda v: values.append(v.load(BAR + 0xFFD, 8)), on_request=lambda request: 0x0807060504030201 + request.size
    )
    assert [(request.addr, request.size) for request in got] == [
        (BAR + 0xFFD, 2),
        (BAR + 0xFFF, 1),
        (BAR + 0x1000, 4),
        (BAR + 0x1004, 1),
    ]
    assert values == [0x02_04030205_02_0203]


def test_a_read_of_half_memory_half_register(domain: EmbeddedDomain) -> None:
    model = DeviceModel(domain, ranges=[(32 * FRAME, 33 * FRAME - 1)], claim=False)
    domain.write(32 * FRAME - 4, b"\x01\x02\x03\x04")
    values: list[int] = []
    got = model.serve(lambda v: values.append(v.load(32 * FRAME - 4, 8)), on_request=lambda request: 0x0D0C0B0A)
    assert got == [Request(32 * FRAME, 4, 0, read=True)]
    assert values == [0x0D0C0B0A04030201]


def test_rep_stos_to_a_register_is_one_request_with_a_count(model: DeviceModel, domain: EmbeddedDomain) -> None:
    assert model.serve(lambda v: v.rep_stos(BAR + 0xFF0, 4, 6, 7)) == [
        write(BAR + 0xFF0, 4, 7, count=4),
        write(BAR + 0x1000, 4, 7, count=2),
    ]
    assert model.serve(lambda v: v.rep_stos(BAR + 8, 4, 3, 7, down=True)) == [write(BAR + 8, 4, 7, count=3, down=True)]
    assert model.serve(lambda v: v.rep_stos(0xE0000000, 8, 100, 7)) == []
    assert domain.dropped_stores == 1


def test_rep_movs_between_memory_and_a_register_carries_a_pointer(model: DeviceModel) -> None:
    assert model.serve(lambda v: v.rep_movs(BAR, 5 * FRAME - 8, 4, 4)) == [
        Request(BAR, 4, 5 * FRAME - 8, count=2, pointer=True),
        Request(BAR + 8, 4, 5 * FRAME, count=2, pointer=True),
    ]
    assert model.serve(lambda v: v.rep_movs(5 * FRAME, BAR + 16, 8, 2)) == [
        Request(BAR + 16, 8, 5 * FRAME, read=True, count=2, pointer=True)
    ]


def test_rep_movs_from_nobody_reads_ones(model: DeviceModel, domain: EmbeddedDomain) -> None:
    assert model.serve(lambda v: v.rep_movs(5 * FRAME, 0xE0000000, 4, 3)) == []
    assert domain.read(5 * FRAME, 16) == b"\xff" * 12 + bytes(4)


def test_rep_movs_between_registers_goes_by_the_element(model: DeviceModel) -> None:
    got = model.serve(
        lambda v: v.rep_movs(BAR + 0x100, BAR, 4, 2),
        on_request=lambda request: request.addr - BAR + 1 if request.read else None,
    )
    assert got == [
        Request(BAR, 4, 0, read=True),
        write(BAR + 0x100, 4, 1),
        Request(BAR + 4, 4, 0, read=True),
        write(BAR + 0x104, 4, 5),
    ]


def test_rep_movs_between_pages_of_memory(model: DeviceModel, domain: EmbeddedDomain) -> None:
    data = bytes(range(200))
    domain.write(5 * FRAME, data)
    assert model.serve(lambda v: v.rep_movs(7 * FRAME - 100, 5 * FRAME, 1, 200)) == []
    assert domain.read(7 * FRAME - 100, 200) == data
    # Overlapping and downwards, as memmove would.
    model.serve(lambda v: v.rep_movs(5 * FRAME + 199 + 8, 5 * FRAME + 199, 1, 200, down=True))
    assert domain.read(5 * FRAME + 8, 200) == data


def test_ports(model: DeviceModel, domain: EmbeddedDomain) -> None:
    model.port.map_ports(model.server, 0x3C0, 0x3DF)
    values: list[int] = []

    def program(v: Vcpu) -> None:
        v.outp(0x3C0, 1, 0x1FF)
        values.append(v.inp(0x3DA, 2))
        v.outp(0x3DE, 4, 1)
        values.append(v.inp(0x60, 1))

    got = model.serve(program, on_request=lambda request: 0x12345 if request.read else None)
    assert got == [Request(0x3C0, 1, 0xFF, type=PIO), Request(0x3DA, 2, 0, read=True, type=PIO)]
    assert values == [0x2345, 0xFF]


def test_pci_configuration_space(model: DeviceModel) -> None:
    model.port.map_pci(model.server, VGPU)
    values: list[int] = []

    def program(v: Vcpu) -> None:
        v.outp(0xCF8, 4, 0x80001000)
        values.append(v.inp(0xCFC, 2))
        values.append(v.inp(0xCFE, 2))
        v.outp(0xCF8, 4, 0x80001010)
        v.outp(0xCFC, 4, 0xFFFFFFFF)
        v.outp(0xCF8, 1, 0)  # latches nothing
        v.outp(0xCFD, 1, 5)
        v.outp(0xCF8, 4, 0x80001800)  # 00:03.0 is not there
        values.append(v.inp(0xCFC, 4))
        v.outp(0xCF8, 4, 0x00001000)  # not enabled: plain ports
        values.append(v.inp(0xCFC, 4))

    got = model.serve(program, on_request=lambda request: 0x8086 + (request.addr & 2) if request.read else None)
    space = VGPU << 32
    assert got == [
        Request(space, 2, 0, read=True, type=PCI_CONFIG),
        Request(space | 2, 2, 0, read=True, type=PCI_CONFIG),
        Request(space | 0x10, 4, 0xFFFFFFFF, type=PCI_CONFIG),
        Request(space | 0x11, 1, 5, type=PCI_CONFIG),
    ]
    assert values == [0x8086, 0x8088, 0xFFFFFFFF, 0xFFFFFFFF]
    model.port.unmap_pci(model.server, VGPU)
    assert model.serve(lambda v: (v.outp(0xCF8, 4, 0x80001000), v.inp(0xCFC, 4))) == []  # type: ignore[arg-type]


def test_a_program_reaches_pci_registers_by_their_number(model: DeviceModel) -> None:
    model.port.map_pci(model.server, VGPU)
    values: list[int] = []

    def program(v: Vcpu) -> None:
        v.pci_write(VGPU, 0x06, 2, 0x8765)
        values.append(v.pci_read(VGPU, 0x0B, 1))

    got = model.serve(program, on_request=lambda request: 3 if request.read else None)
    assert got == [
        Request(VGPU << 32 | 6, 2, 0x8765, type=PCI_CONFIG),
        Request(VGPU << 32 | 0xB, 1, 0, read=True, type=PCI_CONFIG),
    ]
    assert values == [3]


@pytest.mark.parametrize(("number", "register"), [(1 << 16, 0), (VGPU, 256), (-1, 0)])
def test_ports_reach_neither_segments_nor_extended_space(domain: EmbeddedDomain, number: int, register: int) -> None:
    with pytest.raises(ValueError, match="ports reach no"):
        domain.vcpu(0).pci_read(number, register, 4)


def test_the_kinds_of_ranges_do_not_meet(domain: EmbeddedDomain) -> None:
    """One number, three kinds; and what is claimed twice, or given back twice, is refused in each."""
    port: DomainPort = domain.port()
    server = port.create_server()
    port.map_mmio(server, VGPU, VGPU)
    port.map_ports(server, VGPU, VGPU)
    port.map_pci(server, VGPU)
    for again in (
        lambda: port.map_mmio(server, VGPU, VGPU),
        lambda: port.map_ports(server, VGPU, VGPU),
        lambda: port.map_pci(server, VGPU),
    ):
        with pytest.raises(HostError) as caught:
            again()
        assert caught.value.errno == errno.EEXIST
    for gives_back in (
        lambda: port.unmap_mmio(server, VGPU, VGPU),
        lambda: port.unmap_ports(server, VGPU, VGPU),
        lambda: port.unmap_pci(server, VGPU),
    ):
        gives_back()
        with pytest.raises(HostError) as caught:
            gives_back()
        assert caught.value.errno == errno.ENOENT


def test_string_io_carries_a_pointer_but_for_its_last_element(domain: EmbeddedDomain, model: DeviceModel) -> None:
    model.port.map_ports(model.server, 0x3C0, 0x3DF)
    domain.write(6 * FRAME, b"\x11\x22\x33\x44")
    assert model.serve(lambda v: v.rep_outs(0x3C4, 6 * FRAME - 8, 4, 3)) == [
        Request(0x3C4, 4, 6 * FRAME - 8, count=2, pointer=True, type=PIO),
        Request(0x3C4, 4, 0x44332211, type=PIO),
    ]
    assert model.serve(lambda v: v.rep_ins(0x3C4, 6 * FRAME, 2, 1), on_request=lambda request: 0x8765) == [
        Request(0x3C4, 2, 0, read=True, type=PIO)
    ]
    assert domain.read(6 * FRAME, 4) == b"\x65\x87\x33\x44"
    assert model.serve(lambda v: v.rep_ins(0x2F8, 6 * FRAME, 1, 3)) == []
    assert domain.read(6 * FRAME, 4) == b"\xff\xff\xff\x44"


@pytest.mark.parametrize("parts", [(256, 0, 0), (0, 32, 0), (0, 0, 8), (0, 0, 0, 0x10000), (-1, 0, 0)])
def test_no_function_has_such_a_number(parts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no PCI function"):
        sbdf(*parts)


def test_the_number_of_a_function() -> None:
    assert (sbdf(0, 2, 0), sbdf(0xFF, 31, 7), sbdf(0, 2, 0, segment=1)) == (0x10, 0xFFFF, 0x10010)
