"""The register tables: what must hold of every row."""

from __future__ import annotations

import itertools

import pytest

from xengt_dm.vgpu.behaviours import ON_READ, ON_WRITE
from xengt_dm.vgpu.mmio import Mmio
from xengt_dm.vgpu.registers import BAR0_SIZE, REGISTERS, Register, skylake
from xengt_dm.vgpu.state import UNASSIGNED

TABLES = {"ppgtt": REGISTERS, "skylake": skylake.REGISTERS}


@pytest.fixture(params=TABLES)
def rows(request: pytest.FixtureRequest) -> tuple[Register, ...]:
    return TABLES[request.param]


def test_each_row(rows: tuple[Register, ...]) -> None:
    for row in rows:
        assert row.source.strip(), row.name
        assert row.size in (1, 2, 4, 8), row.name
        assert row.offset % row.size == 0, row.name
        assert row.end <= UNASSIGNED.start, row.name
        assert row.on_read in ("", *ON_READ), row.name
        assert row.on_write in ("", *ON_WRITE), row.name
        assert not row.writable & row.write_one_to_clear, row.name
        assert row.block, row.name
        for field in row.fields:
            assert 8 * row.size > field.high >= field.low >= 0, f"{row.name}.{field.name}"


def test_rows_do_not_overlap(rows: tuple[Register, ...]) -> None:
    by_offset = sorted(rows, key=lambda row: row.offset)
    assert all(row.end <= after.offset for row, after in itertools.pairwise(by_offset))


def test_names_are_unique(rows: tuple[Register, ...]) -> None:
    assert len({row.name for row in rows}) == len(rows)


def test_fields_of_a_register_have_names_of_their_own_and_share_no_bit(rows: tuple[Register, ...]) -> None:
    for row in rows:
        assert len({field.name for field in row.fields}) == len(row.fields), row.name
        bits = [bit for field in row.fields for bit in range(field.low, field.high + 1)]
        assert len(bits) == len(set(bits)), row.name


def test_every_behaviour_is_used() -> None:
    assert {row.on_read for row in skylake.REGISTERS} - {""} == set(ON_READ)
    assert {row.on_write for row in skylake.REGISTERS} - {""} == set(ON_WRITE)


GOOD = Register("one", 0x10, 4, "a test")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"size": 3}, "its size"),
        ({"size": 0}, "its size"),
        ({"offset": 0x12}, "not aligned"),
        ({"offset": BAR0_SIZE}, "outside"),
        ({"offset": -4}, "outside"),
        ({"source": ""}, "no source"),
        ({"reset": 1 << 32}, "reset value"),
        ({"reset": -1}, "reset value"),
        ({"write_one_to_clear": 1}, "both"),
        ({"writable": 0, "write_one_to_clear": 1 << 32}, "does not fit"),
        ({"masked": True, "size": 2}, "4 bytes"),
        ({"masked": True, "writable": 0, "write_one_to_clear": 1}, "4 bytes"),
        ({"masked": True, "reset": 0x10000}, "bits 31:16"),
        ({"on_read": "write"}, "on read"),
        ({"on_write": "read"}, "on write"),
        ({"whole": True}, "whole"),
    ],
)
def test_a_row_that_makes_no_sense(change: dict[str, object], problem: str) -> None:
    def construct(row: Register) -> Mmio:
        return Mmio(memoryview(bytearray(BAR0_SIZE)), [row], ["read"], ["write"])

    construct(GOOD)
    construct(GOOD._replace(on_read="read", on_write="write", whole=True))
    with pytest.raises(ValueError, match=problem):
        construct(GOOD._replace(**change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (Register("two", 0x12, 2, "a test"), "overlap"),
        (Register("two", 0x10, 8, "a test"), "overlap"),
        (Register("one", 0x14, 4, "a test"), "one name"),
    ],
)
def test_rows_that_do_not_go_together(other: Register, problem: str) -> None:
    for rows in ([GOOD, other], [other, GOOD]):
        with pytest.raises(ValueError, match=problem):
            Mmio(memoryview(bytearray(64)), rows, [], [])
