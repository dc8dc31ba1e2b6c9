"""The record of a server's ranges: whole at any moment at which its writer may die, and refused if it is none."""

from __future__ import annotations

import errno
import mmap
import random
import subprocess
import sys
from pathlib import Path

import pytest

from xengt_dm.errors import HostError
from xengt_dm.ioreq.ranges import Range, RangeKind, RangesRegion
from xengt_dm.state.layout import RANGE_ENTRIES

BAR0 = Range(RangeKind.MEMORY, 0xF000_0000, 0xF0FF_FFFF)
FUNCTION = Range(RangeKind.PCI, 0x10, 0x10)
PORTS = Range(RangeKind.PORT, 0xC000, 0xC03F)
ROOM = 64


def guard(gfn: int) -> Range:
    return Range(RangeKind.GUARD, gfn << 12, (gfn << 12) + 0xFFF)


@pytest.fixture
def words() -> memoryview:
    return memoryview(bytearray(16 * ROOM)).cast("Q")


def test_a_successor_reads_what_is_there(words: memoryview) -> None:
    record = RangesRegion(words)
    record.start([BAR0])
    for each in (FUNCTION, guard(5), PORTS, guard(0), guard((1 << 40) - 1)):
        record.add(each)
    record.add(BAR0)  # once more
    record.remove(guard(5))
    record.remove(guard(6))  # which was never there
    assert RangesRegion(words).read() == [BAR0, FUNCTION, PORTS, guard(0), guard((1 << 40) - 1)]


def test_it_starts_anew(words: memoryview) -> None:
    first = RangesRegion(words)
    first.start([BAR0, guard(5)])
    second = RangesRegion(words)
    second.start(second.read() or [])
    second.remove(guard(5))
    assert RangesRegion(words).read() == [BAR0]
    second.clear()
    second.clear()
    assert RangesRegion(words).read() == []


def test_what_is_recorded_stays_recorded_at_a_start(words: memoryview) -> None:
    """No store touches the entries of ranges that are wanted."""

    class Watched:
        """The words, written down."""

        def __init__(self) -> None:
            self.stored: set[int] = set()

        def tolist(self) -> list[int]:
            return words.tolist()

        def __setitem__(self, at: int, value: int) -> None:
            self.stored.add(at // 2)
            words[at] = value

    record = RangesRegion(words)
    record.start([])
    for gfn in range(6):
        record.add(guard(gfn))
    watched = Watched()
    RangesRegion(watched).start([guard(1), guard(4), guard(9)])  # type: ignore[arg-type]
    assert not watched.stored & {1, 4}
    assert sorted(RangesRegion(words).read() or []) == [guard(1), guard(4), guard(9)]


def test_an_entry_twice_counts_once(words: memoryview) -> None:
    record = RangesRegion(words)
    record.start([BAR0])
    words[8:10] = words[0:2]
    record = RangesRegion(words)
    assert record.read() == [BAR0, BAR0]
    record.start([BAR0])
    record.remove(BAR0)
    assert record.read() == []


def test_there_is_room_again_for_what_was_removed(words: memoryview) -> None:
    record = RangesRegion(words)
    record.start(guard(gfn) for gfn in range(ROOM))
    with pytest.raises(HostError) as caught:
        record.add(BAR0)
    assert caught.value.errno == errno.ENOSPC
    record.remove(guard(7))
    record.add(BAR0)
    found = RangesRegion(words).read()
    assert found is not None
    assert len(found) == ROOM
    assert found[7] == BAR0


@pytest.mark.parametrize("seed", range(5))
def test_random_words_are_ranges_or_none(words: memoryview, seed: int) -> None:
    noise = random.Random(seed)
    for at in range(len(words)):
        words[at] = noise.choice([0, noise.getrandbits(64), noise.getrandbits(60), 1 << 60, 3 << 60 | 4096])
    record = RangesRegion(words)
    assert record.read() is None
    record.start([BAR0])
    assert record.read() == [BAR0]


WRITER = """
import mmap, pathlib, sys
from xengt_dm.ioreq.ranges import Range, RangeKind, RangesRegion

with pathlib.Path(sys.argv[1]).open("r+b") as file:
    words = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
room = len(words) // 2
record = RangesRegion(words)
record.start([Range(RangeKind.MEMORY, 0xF000_0000, 0xF0FF_FFFF)])
guards = [Range(RangeKind.GUARD, gfn << 12, (gfn << 12) + 0xFFF) for gfn in range(room - 1)]
while True:
    for i, guard in enumerate(guards):
        record.add(guard)
        print(flush=True)
        record.remove(guards[i - 2])
"""


def test_it_outlives_its_writer(tmp_path: Path) -> None:
    """A process that dies in the middle of its work leaves what it had, and perhaps what it was about to remove."""
    path = tmp_path / "state"
    path.write_bytes(bytes(16 * RANGE_ENTRIES))
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(500):
            assert writer.stdout.readline()
        writer.kill()
    with path.open("r+b") as file:
        found = RangesRegion(memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")).read()
    assert found is not None
    assert found[0] == BAR0
    guards = {each.first >> 12 for each in found[1:]}
    assert any(guards <= {(last - i) % (RANGE_ENTRIES - 1) for i in range(3)} for last in guards)


@pytest.mark.parametrize(("at", "value"), [(0, 7 << 60), (0, 4 << 60), (1, 1), (1, 0xF000_0000)])
def test_what_is_no_range(words: memoryview, at: int, value: int) -> None:
    record = RangesRegion(words)
    record.start([BAR0])
    words[at] = value
    assert RangesRegion(words).read() is None
