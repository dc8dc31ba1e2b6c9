"""Resets of a Skylake GT2: of an engine, of everything, and by a driver that comes after one that died."""

from __future__ import annotations

import pytest

from tests.support.skylake_device import (
    BASES,
    BCS,
    GDRST,
    RCS,
    VCS,
    VECS,
    WINDOWS,
    Outside,
    make,
    make_on,
    masked,
    write,
)
from xengt_dm.steps import finish
from xengt_dm.vgpu.device import Vgpu
from xengt_dm.vgpu.state import SIZE

ENGINES = range(4)
FULL, ENGINE_BITS, GUC = 1 << 0, (1 << 1, 1 << 3, 1 << 2, 1 << 4), 1 << 5


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def device(outside: Outside) -> Vgpu:
    return make(outside)


def dirty(device: Vgpu) -> None:
    for base in BASES:
        write(device, base + 0x29C, masked(1 << 15, 1 << 15))
        write(device, base + 0x80, 0x123000)
        device._mmio.store(base + 0x34, 4, 0x40)
        device._mmio.store(base + 0x238, 4, 0x20)
        write(device, base + 0x600, 7, 8)
    for table in (0xC800, 0xC900, 0xCB00, 0xCC00):
        write(device, table, 9)
    write(device, 0x7014, masked(1 << 12, 1 << 12))
    write(device, 0x9424, 1)
    write(device, 0x44304, 0xF6F6F6F6)
    write(device, 0x100000, 3, 8)
    write(device, 0x7834, 1)


def is_reset(device: Vgpu, base: int) -> bool:
    values = [device.read(base + at, 4) for at in (0x29C, 0x80, 0x34, 0x238, 0x600)]
    mocs = device.read({RCS: 0xC800, VCS: 0xC900, VECS: 0xCB00, BCS: 0xCC00}[base], 4)
    if any(values):
        assert all(values)
        assert mocs == 9
    else:
        assert mocs == 0
    return not any(values)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_reset(device: Vgpu, outside: Outside, engine: int) -> None:
    """Twice, as the driver does it; and nothing else changes."""
    dirty(device)
    for _ in range(2):
        write(device, GDRST, ENGINE_BITS[engine])
        assert device.read(GDRST, 4) == 0
    assert outside.calls == [("reset", engine)] * 2
    assert [is_reset(device, base) for base in BASES] == [number == engine for number in ENGINES]
    assert device.read(0x7014, 4) == (0 if engine == 0 else 1 << 12)
    assert device.read(0x9424, 4) == 1
    assert device.read(BASES[engine] + 0x3A0, 4) == 0x0505


def test_several_engines_are_reset(device: Vgpu, outside: Outside) -> None:
    dirty(device)
    write(device, GDRST, ENGINE_BITS[1] | ENGINE_BITS[3] | 1 << 7)
    assert outside.calls == [("reset", 1, 3)]
    assert [is_reset(device, base) for base in BASES] == [False, True, False, True]


def test_everything_is_reset(device: Vgpu, outside: Outside) -> None:
    """But interrupt registers, PVINFO, fences and the GGTT stay."""
    dirty(device)
    write(device, 0x4080, 0xF)
    write(device, 0x78830, 5)
    write(device, 0x800000, 0x1001, 8)
    before = outside.wide
    write(device, GDRST, FULL)
    assert outside.calls == [("reset", 0, 1, 2, 3)]
    assert all(is_reset(device, base) for base in BASES)
    assert [device.read(at, 4) for at in (GDRST, 0x9424, 0x7014, 0x4080, 0x7834)] == [0] * 5
    assert device.read(0x9120, 4) == 0x02800000
    assert (before, outside.wide) == (True, False)
    assert [device.read(at, 4) for at in (0x44304, 0x100000, 0x78830, 0x800000)] == [0xF6F6F6F6, 3, 5, 0x1001]


def test_a_driver_that_comes_after_one_that_died(device: Vgpu, outside: Outside) -> None:
    """It looks at PVINFO, resets everything, and announces its spaces; the resets after that are for hangs."""
    assert device.read(0x78000, 8) == int.from_bytes(b"vGTvGTvG", "little")
    write(device, GDRST, ENGINE_BITS[0])
    write(device, GDRST, FULL)
    write(device, GDRST, FULL)
    assert outside.calls == [("reset", 0), ("reset", 0, 1, 2, 3), ("end",), ("ended",), ("reset", 0, 1, 2, 3)]
    outside.calls.clear()
    device.read(0x78000, 8)
    write(device, 0x78818, 9)
    write(device, GDRST, FULL)
    assert outside.calls == [("ignored",), ("reset", 0, 1, 2, 3)]


def test_a_look_at_pvinfo_outlives_a_kill(outside: Outside) -> None:
    """And so does a reset that a predecessor did not bring to its end."""
    memory = bytearray(SIZE)
    first = make(outside, WINDOWS, memory)
    first.read(0x78004, 1)
    rest = make_on(outside, WINDOWS, memory).write(GDRST, 4, FULL)
    assert rest is not None
    next(rest)
    rest.close()
    finish(make_on(outside, WINDOWS, memory).write(GDRST, 4, FULL))
    assert outside.calls == [*[("reset", 0, 1, 2, 3), ("end",)] * 2, ("ended",)]


def test_others_who_look_are_no_driver(device: Vgpu, outside: Outside) -> None:
    for row in device.rows:
        device.value(row)
    write(device, GDRST, FULL)
    assert ("end",) not in outside.calls


def test_the_guc_is_reset(device: Vgpu, outside: Outside) -> None:
    dirty(device)
    write(device, GDRST, GUC)
    assert outside.calls == []
    assert device.read(GDRST, 4) == 0
    assert device.read(0xC000, 4) & 1
    assert not any(is_reset(device, base) for base in BASES)
