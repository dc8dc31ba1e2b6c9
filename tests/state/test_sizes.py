"""A state of a size that its domain cannot have: how little a successor takes to find that out."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import pytest

from xengt_dm.state.buffer import State
from xengt_dm.state.file import FILE_NAME, open_state
from xengt_dm.state.layout import Capacities, Layout
from xengt_dm.units import PAGE_SIZE

DOMID = 7
FRAMES = 64
CAPACITIES = Capacities(frames=FRAMES, spaces=3)


@pytest.mark.parametrize("frames", [1 << 20, 1 << 34])
def test_a_file_of_a_size_that_the_domain_cannot_have(tmp_path: Path, frames: int) -> None:
    """It has no blocks but that of the header, and gets none; nor is a copy made of it."""
    layout = Layout(Capacities(frames, 65536))
    header = State.create(memoryview(bytearray(Layout(CAPACITIES).size)), CAPACITIES, domid=DOMID).memory[:PAGE_SIZE]
    struct.pack_into("<3Q", header, 16, layout.size, frames, 65536)
    (tmp_path / FILE_NAME).touch(0o600)
    (tmp_path / FILE_NAME).write_bytes(header)
    os.truncate(tmp_path / FILE_NAME, layout.size)
    before = (tmp_path / FILE_NAME).stat().st_blocks
    tracemalloc.start()
    with open_state(tmp_path, DOMID, (os.geteuid(),)) as file:
        assert file.left_server is None
        assert file.read(FRAMES) is None
        assert file.problem == f"a state for {frames} frames; the domain has {FRAMES}"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert (tmp_path / FILE_NAME).stat().st_blocks == before
