"""The record of a server's ranges: whole at any moment at which its writer may die, and refused if it is not ours."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from xengt_dm.errors import HostError
from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.run_dir.ranges import FILE_NAME, ROOM, RangesFile

BAR0 = Range(RangeKind.MEMORY, 0xF000_0000, 0xF0FF_FFFF)
FUNCTION = Range(RangeKind.PCI, 0x10, 0x10)
PORTS = Range(RangeKind.PORT, 0xC000, 0xC03F)


def guard(gfn: int) -> Range:
    return Range(RangeKind.GUARD, gfn << 12, (gfn << 12) + 0xFFF)


def test_a_successor_reads_what_is_there(tmp_path: Path) -> None:
    record = RangesFile(tmp_path)
    record.start([BAR0])
    for each in (FUNCTION, guard(5), PORTS, guard(0), guard((1 << 40) - 1)):
        record.add(each)
    record.add(BAR0)  # once more
    record.remove(guard(5))
    record.remove(guard(6))  # which was never there
    assert RangesFile(tmp_path).read() == [BAR0, FUNCTION, PORTS, guard(0), guard((1 << 40) - 1)]


def test_it_starts_anew(tmp_path: Path) -> None:
    first = RangesFile(tmp_path)
    first.start([BAR0, guard(5)])
    second = RangesFile(tmp_path)
    second.start(second.read() or [])
    second.remove(guard(5))
    first.add(guard(9))  # in a file that nobody reads any more
    assert RangesFile(tmp_path).read() == [BAR0]
    second.clear()
    second.clear()
    assert RangesFile(tmp_path).read() is None
    assert list(tmp_path.iterdir()) == []


def test_there_is_room_again_for_what_was_removed(tmp_path: Path) -> None:
    record = RangesFile(tmp_path)
    record.start(guard(gfn) for gfn in range(ROOM))
    with pytest.raises(HostError) as caught:
        record.add(BAR0)
    assert caught.value.errno == errno.ENOSPC
    record.remove(guard(7))
    record.add(BAR0)
    found = RangesFile(tmp_path).read()
    assert found is not None
    assert len(found) == ROOM
    assert found[7] == BAR0


WRITER = """
import pathlib, sys
from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.run_dir.ranges import ROOM, RangesFile

record = RangesFile(pathlib.Path(sys.argv[1]))
record.start([Range(RangeKind.MEMORY, 0xF000_0000, 0xF0FF_FFFF)])
guards = [Range(RangeKind.GUARD, gfn << 12, (gfn << 12) + 0xFFF) for gfn in range(ROOM - 1)]
while True:
    for i, guard in enumerate(guards):
        record.add(guard)
        print(flush=True)
        record.remove(guards[i - 2])
"""


def test_it_outlives_its_writer(tmp_path: Path) -> None:
    """A process that dies in the middle of its work leaves what it had, and perhaps what it was about to remove."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(500):
            assert writer.stdout.readline()
        writer.kill()
    found = RangesFile(tmp_path).read()
    assert found is not None
    assert found[0] == BAR0
    guards = {each.first >> 12 for each in found[1:]}
    assert any(guards <= {(last - i) % (ROOM - 1) for i in range(3)} for last in guards)


@pytest.mark.parametrize(
    "impossible",
    [
        Range(RangeKind.PCI, 0x10, 0x11),
        Range(RangeKind.PCI, 1 << 32, 1 << 32),
        Range(RangeKind.PORT, 0xFFFF, 0x10000),
        Range(RangeKind.MEMORY, 0x2000, 0x1FFF),
    ],
    ids=str,
)
def test_a_range_that_no_server_has_is_no_record(tmp_path: Path, impossible: Range) -> None:
    record = RangesFile(tmp_path)
    record.start([BAR0, FUNCTION, PORTS])
    assert RangesFile(tmp_path).read() == [BAR0, FUNCTION, PORTS]
    record.add(impossible)
    assert RangesFile(tmp_path).read() is None


@pytest.mark.parametrize("change", ["shorter", "longer", "magic", "kind", "empty", "missing"])
def test_what_is_no_record(tmp_path: Path, change: str) -> None:
    record = RangesFile(tmp_path)
    record.start([BAR0])
    file = tmp_path / FILE_NAME
    data = bytearray(file.read_bytes())
    if change == "shorter":
        del data[-1]
    elif change == "longer":
        data.append(0)
    elif change == "magic":
        data[7] ^= 1
    elif change == "kind":
        data[16 + 7] = 0x70
    elif change == "empty":
        data.clear()
    file.write_bytes(data)
    if change == "missing":
        file.unlink()
    assert RangesFile(tmp_path).read() is None


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    RangesFile(tmp_path).start([])
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
