"""The state in a buffer: its layout, its header, and the views of its regions."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from xengt_dm.errors import DataError
from xengt_dm.state.buffer import HEADER_SIZE, NO_SERVER, State, read_header
from xengt_dm.state.layout import MAGIC, MOST_FRAMES, MOST_SPACES, ROWS, VERSION, Capacities, Layout
from xengt_dm.state.life import Life
from xengt_dm.state.markdown import layout_table
from xengt_dm.units import PAGE_SIZE

SMALL = Capacities(frames=64, spaces=3)
UUID = bytes(range(16))
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def made(capacities: Capacities = SMALL) -> tuple[State, bytearray]:
    buffer = bytearray(Layout(capacities).size + 100)
    return State.create(memoryview(buffer), capacities, domid=7, uuid=UUID), buffer


@pytest.mark.parametrize(
    "capacities", [Capacities(1, 1), SMALL, Capacities(8 * PAGE_SIZE, 64), Capacities(8 * PAGE_SIZE + 1, 65)]
)
def test_regions_lie_one_after_the_other_in_whole_pages(capacities: Capacities) -> None:
    layout = Layout(capacities)
    end = 0
    for row in ROWS:
        region = layout[row.name]
        assert region.offset == end
        assert region.size > 0
        assert region.size % PAGE_SIZE == 0
        end = region.end
    assert end == layout.size == layout["device"].end
    assert layout["spaces"].size >= 64 * capacities.spaces
    assert layout["protected"].size * 8 >= capacities.frames


def test_what_is_reserved_is_all_but_one_region() -> None:
    layout = Layout(SMALL)
    before, after = layout.reserved()
    assert (before.offset, before.end) == (0, layout["unassigned"].offset)
    assert (after.offset, after.end) == (layout["unassigned"].end, layout.size)


def test_magic() -> None:
    assert MAGIC.to_bytes(8, "little") == b"xdmState"


def test_a_state_that_was_created_is_valid_and_zero() -> None:
    state, buffer = made()
    layout = state.layout
    assert struct.unpack_from("<QI4x4Q16sQ", buffer) == (MAGIC, VERSION, layout.size, 64, 3, 7, UUID, NO_SERVER)
    assert State(memoryview(buffer)).header == state.header
    assert sum(buffer[HEADER_SIZE:]) == 0


def test_a_creation_that_was_interrupted_leaves_no_state() -> None:
    _, buffer = made()
    buffer[:8] = bytes(8)
    with pytest.raises(DataError, match="no state"):
        State(memoryview(buffer))


@pytest.mark.parametrize(
    ("at", "value", "what"),
    [
        (0, 0, "no state"),
        (8, 1, "a state of version 1; this program has version"),
        (16, 4096, "a state of 4096 bytes"),
        (24, 0, "for 0 frames"),
        (24, MOST_FRAMES + 1, "frames"),
        (24, (1 << 64) - 1, "frames"),
        (24, 8 * PAGE_SIZE + 1, "bytes"),
        (32, 0, "0 spaces"),
        (32, MOST_SPACES + 1, "spaces"),
        (32, MOST_SPACES, "bytes"),
    ],
)
def test_a_header_of_another_layout(at: int, value: int, what: str) -> None:
    _, buffer = made()
    read_header(memoryview(buffer))
    struct.pack_into("<Q", buffer, at, value)
    for attempt in (read_header, State):
        with pytest.raises(DataError, match=what):
            attempt(memoryview(buffer))


def test_a_buffer_shorter_than_it_says() -> None:
    _, buffer = made()
    with pytest.raises(DataError, match="of which 8192 are there"):
        State(memoryview(buffer)[:8192])


def test_a_buffer_that_cannot_hold_a_state() -> None:
    size = Layout(SMALL).size
    for buffer in (memoryview(bytes(size)), memoryview(bytearray(size - 1))):
        with pytest.raises(ValueError, match="writable bytes"):
            State.create(buffer, SMALL)
    for buffer in (memoryview(bytes(size)), memoryview(bytearray(PAGE_SIZE - 1))):
        with pytest.raises(ValueError, match="writable bytes"):
            State(buffer)


def test_every_view_is_of_its_region() -> None:
    state, buffer = made()
    layout = state.layout
    for number, name in enumerate(("journal", "ranges", "spaces", "protected", "device"), 1):
        view = getattr(state, name)
        assert view.nbytes == layout[name].size
        view[-1] = number
        assert buffer[layout[name].end - view.itemsize] == number
    state.words[layout["life"].offset // 8] = 1
    assert state.life.relaxed
    assert sum(buffer[HEADER_SIZE:]) == 1 + 1 + 2 + 3 + 4 + 5


def test_the_server_of_a_state() -> None:
    state, buffer = made()
    assert state.server is None
    state.is_of(0)
    assert State(memoryview(buffer)).server == 0


def test_the_words_of_life() -> None:
    state, buffer = made()
    life = state.life
    names = [name for name, value in vars(Life).items() if hasattr(value, "__set__") and name[0] != "_"]
    names.remove("recording_name")
    before = bytes(buffer)
    for name in names:
        value = 1 if isinstance(getattr(life, name), bool) else (1 << 64) - 1
        setattr(life, name, value)
        assert [other for other in names if getattr(life, other)] == [name]
        changed = {i // 8 for i, byte in enumerate(buffer) if byte != before[i]}
        assert len(changed) == 1
        setattr(life, name, 0)
    assert len(names) == 14
    assert buffer == before


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("", ""),
        ("/tmp/a trace.gz", "/tmp/a trace.gz"),
        ("\N{SNOWMAN}", "\N{SNOWMAN}"),
        ("a\udcff", "a\\xff"),
        ("x" * 5000, "x" * 1024),
    ],
)
def test_the_name_of_a_recording(name: str, read: str) -> None:
    state, buffer = made()
    state.life.recording_name = "y" * 2000
    state.life.recording_name = name
    assert State(memoryview(buffer)).life.recording_name == read


def test_the_layout_in_the_document(checkout: Path) -> None:
    path = checkout / "docs" / "crash-only.md"
    before, _, rest = path.read_text().partition(BEGIN)
    written, _, after = rest.partition(END)
    if os.environ.get("XENGT_WRITE"):
        path.write_text(before + BEGIN + layout_table() + END + after)
    assert written == layout_table(), "docs/crash-only.md is not what the layout says; it says how to write it anew"
