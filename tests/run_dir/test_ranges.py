"""The file in which older versions recorded a server's ranges: read as they wrote it, refused if it is not theirs."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.run_dir.ranges import FILE_NAME, MAGIC, ROOM, RangesFile

BAR0 = Range(RangeKind.MEMORY, 0xF000_0000, 0xF0FF_FFFF)
FUNCTION = Range(RangeKind.PCI, 0x10, 0x10)
PORTS = Range(RangeKind.PORT, 0xC000, 0xC03F)


def guard(gfn: int) -> Range:
    return Range(RangeKind.GUARD, gfn << 12, (gfn << 12) + 0xFFF)


def written(directory: Path, *ranges: Range | None) -> Path:
    """A file as an older version left it; None is an entry that is free again."""
    data = bytearray(8 * (2 + 2 * ROOM))
    struct.pack_into("<QQ", data, 0, MAGIC, ROOM)
    for i, each in enumerate(ranges):
        words = (each.kind << 60 | each.first, each.last + 1) if each else (guard(5).kind << 60 | guard(5).first, 0)
        struct.pack_into("<QQ", data, 16 + 16 * i, *words)
    file = directory / FILE_NAME
    file.write_bytes(data)
    return file


def test_a_successor_reads_what_is_there(tmp_path: Path) -> None:
    assert MAGIC.to_bytes(8, "little") == b"XDRANGE1"
    written(tmp_path, BAR0, FUNCTION, None, PORTS, guard(0), guard((1 << 40) - 1))
    assert RangesFile(tmp_path).read() == [BAR0, FUNCTION, PORTS, guard(0), guard((1 << 40) - 1)]


def test_it_is_removed(tmp_path: Path) -> None:
    written(tmp_path, BAR0)
    record = RangesFile(tmp_path)
    record.clear()
    record.clear()
    assert RangesFile(tmp_path).read() is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_one(tmp_path: Path) -> None:
    written(tmp_path, *(guard(gfn) for gfn in range(ROOM)))
    found = RangesFile(tmp_path).read()
    assert found is not None
    assert len(found) == ROOM
    assert found[7] == guard(7)


@pytest.mark.parametrize("change", ["shorter", "longer", "magic", "kind", "end", "empty", "missing", "link", "pipe"])
def test_what_is_no_record(tmp_path: Path, change: str) -> None:
    file = written(tmp_path, BAR0)
    data = bytearray(file.read_bytes())
    if change == "shorter":
        del data[-1]
    elif change == "longer":
        data.append(0)
    elif change == "magic":
        data[7] ^= 1
    elif change == "kind":
        data[16 + 7] = 0x70
    elif change == "end":
        data[24:32] = (1).to_bytes(8, "little")
    elif change == "empty":
        data.clear()
    file.write_bytes(data)
    if change == "missing":
        file.unlink()
    elif change == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to("elsewhere")
    elif change == "pipe":
        file.unlink()
        os.mkfifo(file)
    assert RangesFile(tmp_path).read() is None
