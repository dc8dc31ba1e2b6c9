"""Accesses by the rows' masks, against a model that goes through every bit of every byte."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xengt_dm.vgpu.mmio import Mmio
from xengt_dm.vgpu.registers.register import ALL_BITS, Register

SIZE = 64


class Access(NamedTuple):
    offset: int
    size: int
    value: int | None
    """What is written; None for a read."""


class Model:
    """The same registers, slow and obvious."""

    def __init__(self, rows: list[Register], hole: range) -> None:
        self.rows = rows
        self.hole = hole
        self.memory = [0] * SIZE

    def value(self, offset: int, size: int) -> int:
        return sum(self.memory[offset + i] << 8 * i for i in range(size))

    def write(self, access: Access) -> list[tuple[str, int, int]]:
        """Returns the behaviours that follow: name of the register, old value, new value."""
        assert access.value is not None
        written = {access.offset + i: access.value >> 8 * i & 0xFF for i in range(access.size)}
        old = list(self.memory)
        heard = [row for row in self.rows if row.on_write and self._is_heard(row, set(written))]
        befores = [self.value(row.offset, row.size) for row in heard]
        for at, byte in written.items():
            for bit in range(8):
                self._write_bit(at, bit, byte >> bit & 1, written, old)
        return [
            (row.name, before, self.value(row.offset, row.size)) for row, before in zip(heard, befores, strict=True)
        ]

    def _is_heard(self, row: Register, written: set[int]) -> bool:
        mine = set(range(row.offset, row.offset + row.size))
        return mine <= written if row.whole else bool(mine & written)

    def _write_bit(self, at: int, bit: int, to: int, written: dict[int, int], old: list[int]) -> None:
        if at in self.hole:
            return
        was = old[at] >> bit & 1
        now = to
        for row in self.rows:
            if row.offset <= at < row.offset + row.size:
                number = 8 * (at - row.offset) + bit
                now = was
                if row.writable >> number & 1 and self._is_enabled(row, at, bit, written):
                    now = to
                if row.write_one_to_clear >> number & 1 and to:
                    now = 0
        self.memory[at] = self.memory[at] & ~(1 << bit) | now << bit

    def _is_enabled(self, row: Register, at: int, bit: int, written: dict[int, int]) -> bool:
        if not row.masked:
            return True
        return at - row.offset < 2 and bool(written.get(at + 2, 0) >> bit & 1)


bits = st.integers(0, ALL_BITS)


@st.composite
def registers(draw: st.DrawFn) -> list[Register]:
    """Rows at any place in which they do not overlap."""
    rows: list[Register] = []
    at = 0
    while at < SIZE:
        size = draw(st.sampled_from([1, 2, 4, 8]))
        at += draw(st.sampled_from([0, 0, 1, 4, 9]))
        at += -at % size
        if at + size > SIZE:
            break
        full = (1 << 8 * size) - 1
        clears = draw(st.sampled_from([0, 0, full]) | bits) & full
        writable = draw(st.sampled_from([ALL_BITS, ALL_BITS, 0, ALL_BITS & ~1]) | bits) & ~clears
        on_write = draw(st.sampled_from(["", "heard"]))
        row = Register(
            f"r{at}",
            at,
            size,
            "a test",
            reset=draw(bits) & full,
            writable=writable,
            write_one_to_clear=clears,
            on_read=draw(st.sampled_from(["", "", "asked"])),
            on_write=on_write,
            whole=bool(on_write) and draw(st.booleans()),
        )
        if size == 4 and draw(st.booleans()):
            row = row._replace(masked=True, write_one_to_clear=0, reset=row.reset & 0xFFFF)  # type: ignore[operator]
        rows.append(row)
        at += size
    return rows


@st.composite
def accesses(draw: st.DrawFn) -> Access:
    size = draw(st.sampled_from([1, 2, 4, 8]))
    value = draw(st.none() | bits | st.sampled_from([0, ALL_BITS, 0xFFFF0000FFFF0000]))
    return Access(draw(st.integers(0, SIZE - size)), size, None if value is None else value & (1 << 8 * size) - 1)


#: Where no memory is.
holes = st.sampled_from([range(0), range(0), range(16, 32), range(40, 48), range(SIZE - 16, SIZE)])


@given(registers(), holes, st.lists(accesses(), max_size=12))
def test_against_the_model(rows: list[Register], hole: range, asked: list[Access]) -> None:
    buffer = bytearray(SIZE)
    rows = [row for row in rows if not set(range(row.offset, row.end)) & set(hole)]
    mmio = Mmio(memoryview(buffer), rows[::-1], ["asked"], ["heard"], hole)
    model = Model(rows, hole)
    mmio.reset({})
    for row in rows:
        assert isinstance(row.reset, int)
        model.memory[row.offset : row.offset + row.size] = row.reset.to_bytes(row.size, "little")
    assert list(buffer) == model.memory
    for access in asked:
        if access.value is None:
            assert mmio.load(access.offset, access.size) == model.value(access.offset, access.size)
            refreshed = [row.name for row in mmio.refreshes(access.offset, access.size)]
            last = access.offset + access.size
            assert refreshed == [
                row.name for row in rows if row.on_read and row.offset < last and row.end > access.offset
            ]
        else:
            heard = [(one.register.name, one.old, one.new) for one in mmio.write(*access)]
            assert heard == model.write(access)
            assert list(buffer) == model.memory


# Examples, for people


def one(**fields: object) -> tuple[Mmio, bytearray]:
    """A register of 4 bytes at 8 in memory that is all ones otherwise."""
    buffer = bytearray(b"\xff" * 16)
    row = Register("one", 8, source="a test", **fields)  # type: ignore[arg-type]
    mmio = Mmio(memoryview(buffer), [row], [], ["heard"])
    mmio.reset({"some": 0x1234})
    return mmio, buffer


def test_a_reset_value_of_the_host() -> None:
    mmio, buffer = one(reset="some")
    assert buffer == b"\xff" * 8 + b"\x34\x12\0\0" + b"\xff" * 4
    with pytest.raises(KeyError):
        mmio.reset({})


def test_writable_bits() -> None:
    mmio, buffer = one(writable=0xF0, reset=0x05)
    mmio.write(8, 4, 0xFFFFFFAA)
    assert mmio.load(8, 4) == 0xA5
    mmio.write(6, 4, 0)
    assert buffer == b"\xff" * 6 + b"\0\0" + b"\x05\0\0\0" + b"\xff" * 4


def test_write_one_to_clear() -> None:
    mmio, _ = one(writable=0, write_one_to_clear=0xFF, reset=0x1F7)
    mmio.write(8, 4, 0x30F)
    assert mmio.load(8, 4) == 0x1F0
    mmio.write(8, 1, 0)
    assert mmio.load(8, 4) == 0x1F0


@pytest.mark.parametrize(
    ("offset", "size", "value", "expected"),
    [
        (8, 4, 0x0101_0001, 0x00F1),  # bit 0 set; bit 8 enabled and written as 0
        (8, 4, 0x0000_FFFF, 0x00F0),
        (8, 4, 0xFFFF_0000, 0x0000),
        (8, 2, 0xFFFF, 0x00F0),
        (10, 2, 0xFFFF, 0x00F0),
        (8, 8, 0xFFFF_0003, 0x0003),
        (9, 4, 0xFF_FFFF_FF, 0xFFF0),  # bytes 1 to 3: only byte 1 has its enable byte
    ],
)
def test_a_masked_register(offset: int, size: int, value: int, expected: int) -> None:
    mmio, _ = one(masked=True, reset=0x00F0)
    mmio.write(offset, size, value)
    assert mmio.load(8, 4) == expected


def test_what_follows_a_write() -> None:
    mmio, _ = one(on_write="heard", writable=0xFF, reset=0x101)
    ((register, old, new),) = mmio.write(8, 4, 0x203)
    assert (register.name, old, new) == ("one", 0x101, 0x103)
    assert [written.new for written in mmio.write(11, 1, 5)] == [0x103]
    assert not mmio.write(12, 4, 0)
    mmio, _ = one(on_write="heard", whole=True)
    assert not mmio.write(8, 2, 1)
    assert [written.new for written in mmio.write(7, 8, 0x500)] == [5]
