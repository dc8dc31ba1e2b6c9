"""The device's memory, in parts."""

from __future__ import annotations

import pytest

from xengt_dm.state.layout import DEVICE
from xengt_dm.vgpu.registers import BAR0_SIZE
from xengt_dm.vgpu.state import BAR0, SIZE, UNASSIGNED, DeviceState


def test_bar0_is_its_three_parts() -> None:
    assert BAR0.size == BAR0_SIZE == 16 << 20
    assert [DEVICE[name].offset - BAR0.offset for name in ("registers", "unassigned", "ggtt")] == [0, 2 << 20, 8 << 20]
    assert DEVICE["ggtt"].end == BAR0.end
    assert BAR0.end <= DEVICE["bounce"].offset
    assert DEVICE["bounce"].end == SIZE
    assert range(2 << 20, 8 << 20) == UNASSIGNED


def test_a_state_is_its_memory() -> None:
    buffer = bytearray(SIZE + 100)
    DeviceState(memoryview(buffer)).bar0[5] = 1
    assert buffer.index(1) == BAR0.offset + 5
    assert sum(buffer) == 1


@pytest.mark.parametrize("buffer", [memoryview(bytes(SIZE)), memoryview(bytearray(SIZE - 1))])
def test_a_buffer_that_cannot_hold_a_state(buffer: memoryview) -> None:
    with pytest.raises(ValueError, match="writable bytes"):
        DeviceState(buffer)
