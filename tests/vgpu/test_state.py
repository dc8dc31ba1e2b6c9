"""The layout of the state buffer, and its header."""

from __future__ import annotations

import struct

import pytest

from xengt_dm.errors import DataError
from xengt_dm.vgpu.registers import BAR0_SIZE
from xengt_dm.vgpu.state import BAR0, LAYOUT, MAGIC, SIZE, VERSION, DeviceState


def test_regions_lie_one_after_the_other_in_whole_pages() -> None:
    end = 0
    for region in LAYOUT.values():
        assert region.offset == end
        assert region.size > 0
        assert region.size % 4096 == 0
        end = region.end
    assert end == SIZE


def test_bar0_is_its_three_parts() -> None:
    assert BAR0.size == BAR0_SIZE == 16 << 20
    assert [LAYOUT[name].offset - BAR0.offset for name in ("registers", "unassigned", "ggtt")] == [0, 2 << 20, 8 << 20]
    assert LAYOUT["ggtt"].end == BAR0.end


def test_magic() -> None:
    assert MAGIC.to_bytes(8, "little") == b"xdmState"


def test_a_state_that_was_created_is_valid_and_zero() -> None:
    buffer = bytearray(SIZE + 100)
    DeviceState.create(memoryview(buffer)).bar0[5] = 1
    assert struct.unpack_from("<QIQ", buffer) == (MAGIC, VERSION, SIZE)
    buffer[: struct.calcsize("<QIQ")] = bytes(struct.calcsize("<QIQ"))
    assert buffer.index(1) == BAR0.offset + 5
    assert sum(buffer) == 1
    with pytest.raises(DataError, match="no device state"):
        DeviceState(memoryview(buffer))


@pytest.mark.parametrize(("at", "what"), [(0, "no device state"), (8, "of version"), (12, "bytes")])
def test_a_header_of_another_layout(at: int, what: str) -> None:
    buffer = bytearray(SIZE)
    DeviceState.create(memoryview(buffer))
    assert DeviceState(memoryview(buffer)).bar0.nbytes == BAR0_SIZE
    buffer[at] ^= 1
    with pytest.raises(DataError, match=what):
        DeviceState(memoryview(buffer))


@pytest.mark.parametrize("buffer", [memoryview(bytes(SIZE)), memoryview(bytearray(SIZE - 1))])
def test_a_buffer_that_cannot_hold_a_state(buffer: memoryview) -> None:
    with pytest.raises(ValueError, match="writable bytes"):
        DeviceState.create(buffer)
    with pytest.raises(ValueError, match="writable bytes"):
        DeviceState(buffer)
