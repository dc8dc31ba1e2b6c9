"""What the registers of a Skylake GT2 do, as the driver's own waits and checks see it."""

from __future__ import annotations

import pytest

from tests.support.skylake_device import BASES, BCS, RCS, Outside, make, masked, write
from xengt_dm.vgpu.device import Vgpu, graphics_told
from xengt_dm.vgpu.registers import GraphicsMemory
from xengt_dm.vgpu.state import SIZE, DeviceState

ENGINES = range(4)
MI_MODE, STOP, IDLE = 0x9C, 1 << 8, 1 << 9
RESET_CTL, REQUEST, READY = 0xD0, 1, 2
ALL_ONES = 0xFFFFFFFF


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def device(outside: Outside) -> Vgpu:
    return make(outside)


# What is there after a reset

#: gt/intel_sseu.c, intel_device_info.c, gt/intel_gt_clock_utils.c and others: what a driver must read.
CONSTANTS = {
    0x9120: 0x02800000,  # a slice with three subslices
    0x9134: 0,  # with 8 execution units each
    0xA26C: 0x4,  # 12 MHz
    0x120010: 0,
    0x51000: 1 << 30 | 1 << 21 | 1 << 28,  # no pipe
    0x42000: 7 << 25,
    0x42300: 0,
    0xC000: 1,
    0x145998: 0,
    0x145E04: 0,
}


@pytest.mark.parametrize("offset", CONSTANTS)
def test_constants(device: Vgpu, offset: int) -> None:
    assert device.read(offset, 4) == CONSTANTS[offset]
    for value in (ALL_ONES, 0):
        write(device, offset, value)
        assert device.read(offset, 4) == CONSTANTS[offset]


@pytest.mark.parametrize("offset", [0x4094, 0x4B10, 0x4B14, 0x2024, 0x2064, 0x44200, 0x444E8, 0xC4008, 0x145948])
def test_what_reads_zero_at_first(device: Vgpu, offset: int) -> None:
    assert device.read(offset, 4) == 0


def test_capabilities_and_windows(outside: Outside) -> None:
    """i915_vgpu.c: 48-bit PPGTT and the status page, no huge pages; windows that do not overlap."""
    device = make(outside, GraphicsMemory(16, 32, 4))
    assert device.read(0x78010, 4) == 0xC
    assert [device.read(0x78040 + 4 * n, 4) for n in range(5)] == [0, 16 << 20, 16 << 20, 32 << 20, 4]
    nothing_mappable = make(outside, GraphicsMemory(0, 16))
    assert [nothing_mappable.read(0x78040 + 4 * n, 4) for n in range(5)] == [0, 0, 16 << 20, 16 << 20, 0]


@pytest.mark.parametrize("graphics", [GraphicsMemory(16, 16), GraphicsMemory(0, 48), GraphicsMemory(100, 24, 4)])
def test_a_successor_reads_what_the_guest_was_told(outside: Outside, graphics: GraphicsMemory) -> None:
    memory = bytearray(SIZE)
    make(outside, graphics, memory)
    assert graphics_told(DeviceState(memoryview(memory))) == graphics


@pytest.mark.parametrize("base", BASES)
def test_an_engine_after_a_reset(device: Vgpu, base: int) -> None:
    for at in (0x30, 0x34, 0x38, 0x3C, 0x234, 0x238, 0xB0, 0xB8, 0x74, 0x29C, 0xD0):
        assert device.read(base + at, 4) == 0, hex(at)
    assert device.read(base + 0x3A0, 4) == 0x0505
    assert device.read(base + 0xA8, 4) == ALL_ONES
    assert device.read(base + MI_MODE, 4) == IDLE
    assert device.read(base + 0x6C, 4) == ALL_ONES


# Engines


@pytest.mark.parametrize("engine", ENGINES)
def test_stop_ring(device: Vgpu, outside: Outside, engine: int) -> None:
    """gt/intel_engine_cs.c: STOP_RING by a masked write, then MODE_IDLE is polled."""
    mode = BASES[engine] + MI_MODE
    outside.busy = {engine}
    assert device.read(mode, 4) & IDLE == 0
    assert device.read(BASES[engine] + 0x6C, 4) == 0xFFFFFFFE
    write(device, mode, masked(STOP, STOP))
    assert outside.calls == [("stop", engine)]
    assert device.read(mode, 4) == STOP | IDLE
    write(device, mode, masked(STOP, 0))
    assert outside.calls == [("stop", engine), ("go on", engine), ("went on", engine)]
    assert device.read(mode, 4) == 0
    outside.busy.clear()
    assert device.read(mode, 4) == IDLE


def test_other_bits_of_the_mode_stop_nothing(device: Vgpu, outside: Outside) -> None:
    write(device, RCS + MI_MODE, masked(1 << 12, 1 << 12))
    write(device, RCS + MI_MODE, masked(IDLE, 0))
    write(device, RCS + MI_MODE, STOP)  # its mask bit is clear
    assert outside.calls == []
    assert device.read(RCS + MI_MODE, 4) == IDLE | 1 << 12


@pytest.mark.parametrize("base", BASES)
def test_a_reset_is_prepared(device: Vgpu, base: int) -> None:
    """gt/intel_reset.c gen8_engine_reset_prepare and _cancel."""
    write(device, base + RESET_CTL, masked(REQUEST, REQUEST))
    assert device.read(base + RESET_CTL, 4) == REQUEST | READY
    write(device, base + RESET_CTL, masked(REQUEST, 0))
    assert device.read(base + RESET_CTL, 4) == 0


def test_errors_are_cleared_by_ones(device: Vgpu) -> None:
    device._mmio.store(BCS + 0xB0, 4, 0x11)
    write(device, BCS + 0xB0, 1)
    assert device.read(BCS + 0xB0, 4) == 0x10
    write(device, BCS + 0xB0, ALL_ONES)
    assert device.read(BCS + 0xB0, 4) == 0


@pytest.mark.parametrize("base", BASES)
def test_the_clock(device: Vgpu, outside: Outside, base: int) -> None:
    """12 ticks in a microsecond, 36 bits, read in halves or as a whole; nobody sets it."""
    outside.now = 1_000_000_000
    assert device.read(base + 0x358, 4) == 12_000_000
    outside.now = 10**13
    ticks = 12 * 10**10
    assert ticks >> 36
    assert device.read(base + 0x358, 4) | device.read(base + 0x35C, 4) << 32 == ticks & (1 << 36) - 1
    write(device, base + 0x358, 5)
    assert device.read(base + 0x358, 8) == ticks & (1 << 36) - 1


# The rest


@pytest.mark.parametrize(("offset", "engine"), [(0x4260, 0), (0x426C, 1), (0x4264, 2), (0x4270, 3)])
def test_tlbs(device: Vgpu, outside: Outside, offset: int, engine: int) -> None:
    write(device, offset, 1)
    assert device.read(offset, 4) == 0
    assert outside.calls == [("tlb", engine)]
    write(device, offset, 0)
    assert len(outside.calls) == 1


def test_the_tlb_of_an_engine_that_is_not_there(device: Vgpu, outside: Outside) -> None:
    write(device, 0x4268, 1)
    assert device.read(0x4268, 4) == 0
    assert outside.calls == []


@pytest.mark.parametrize(("command", "result"), [(0x1A, 0), (0x9, 0), (0x21, 0), (0x0, 1), (0xFF, 1)])
def test_pcode(device: Vgpu, command: int, result: int) -> None:
    """intel_pcode.c: READY must clear, and the low byte is the result; data of a read is zero."""
    write(device, 0x138128, 0x55)
    write(device, 0x13812C, 0x66)
    write(device, 0x138124, 1 << 31 | 3 << 8 | command)
    assert device.read(0x138124, 4) == 3 << 8 | result
    read = command in (0x1A, 0x9)
    assert [device.read(at, 4) for at in (0x138128, 0x13812C)] == ([0, 0] if read else [0x55, 0x66])


def test_a_mailbox_that_is_not_ready_does_nothing(device: Vgpu) -> None:
    write(device, 0x138124, 0xFF)
    assert device.read(0x138124, 4) == 0xFF


@pytest.mark.parametrize("offset", range(0x45400, 0x45410, 4))
def test_power_wells(device: Vgpu, offset: int) -> None:
    """Linux 6.1: the state bit of a request that was written must follow it."""
    for well in range(16):
        request, state = 2 << 2 * well, 1 << 2 * well
        write(device, offset, request)
        assert device.read(offset, 4) == request | state
        write(device, offset, state)
        assert device.read(offset, 4) == 0


@pytest.mark.parametrize(("request_at", "ack"), [(0xA278, 0xD84), (0xA270, 0xD88), (0xA188, 0x130044)])
def test_forcewake(device: Vgpu, request_at: int, ack: int) -> None:
    """intel_uncore.c: bits are set and cleared by masked writes, and acknowledged."""
    write(device, request_at, masked(1, 1))
    write(device, request_at, masked(1 << 15, 1 << 15))
    assert device.read(ack, 4) == 1 << 15 | 1
    write(device, ack, 0)
    assert device.read(ack, 4) == 1 << 15 | 1
    write(device, request_at, masked(ALL_ONES & 0xFFFF, 0))
    assert device.read(ack, 4) == 0


@pytest.mark.parametrize("offset", [0x444E8, 0xC4008, *(0x44308 + 16 * n for n in range(4))])
def test_identity_registers_are_cleared_by_ones(device: Vgpu, offset: int) -> None:
    """A driver writes all ones to each at load, twice, and expects zero."""
    device._mmio.store(offset, 4, 0x101)
    write(device, offset, 1)
    assert device.read(offset, 4) == 0x100
    write(device, offset, ALL_ONES)
    write(device, offset, ALL_ONES)
    assert device.read(offset, 4) == 0


#: The lists of work-arounds that a driver reads back, gt/intel_workarounds.c: they hold what is written.
@pytest.mark.parametrize("offset", [0xFDC, 0x4090, 0x4DDC, 0x940C, 0x4AB0, 0x4024, 0xB004, 0xB11C, 0xB118, 0xB008])
def test_work_arounds_hold(device: Vgpu, offset: int) -> None:
    write(device, offset, 0x12345678)
    assert device.read(offset, 4) == 0x12345678


@pytest.mark.parametrize(
    "offset", [0x20D4, 0x20E0, 0x20C0, 0x2580, 0x7000, 0x7004, 0x7008, 0x7014, 0x7300, 0x7304, 0xE180, 0xE184, 0xE194]
)
def test_masked_registers(device: Vgpu, offset: int) -> None:
    write(device, offset, masked(0x00F0, 0xFFFF))
    write(device, offset, masked(0x0010, 0))
    assert device.read(offset, 4) == 0x00E0


@pytest.mark.parametrize(
    ("offset", "bits"), [(0xE400, 0xFFFF), (0xE404, ALL_ONES), (0x2418, 1), (0x5280, ALL_ONES & ~3)]
)
def test_registers_with_fewer_bits(device: Vgpu, offset: int, bits: int) -> None:
    write(device, offset, ALL_ONES)
    assert device.read(offset, 4) == bits


def test_every_register_can_be_shown(device: Vgpu, outside: Outside) -> None:
    """And that changes nothing."""
    before = [device.value(row) for row in device.rows]
    assert len(before) > 800
    assert [device.value(row) for row in device.rows] == before
    assert outside.calls == []
