"""What waits for the thread that writes a trace."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

from tests.support.machine import PATIENCE
from xengt_dm.trace.background import BackgroundWriter
from xengt_dm.trace.events import Header, Mmio
from xengt_dm.trace.read import read_trace
from xengt_dm.trace.write import TraceWriter
from xengt_dm.units import PAGE_SIZE

PAGES = 2000


def test_pages_that_wait_give_the_garbage_collector_nothing_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look at all of them in the thread that serves the guest. The order of lines and pages stays."""
    file, go_on, write = tmp_path / "trace.jsonl", threading.Event(), os.write

    def stuck(descriptor: int, data: bytes) -> int:
        assert go_on.wait(PATIENCE)
        return write(descriptor, data)

    pages = [i.to_bytes(8, "little") * (PAGE_SIZE // 8) for i in range(1, PAGES + 1)]
    writer = BackgroundWriter(TraceWriter(file, Header(8, PAGES)))
    monkeypatch.setattr("xengt_dm.trace.write.os.write", stuck)
    gc.collect()
    before = len(gc.get_objects())
    for gfn, content in enumerate(pages):
        writer.write_page(gfn, None if gfn % 2 else bytes(PAGE_SIZE), content)
        if gfn % 500 == 0:
            writer.write(Mmio(0x100, 4, gfn), 2)
    assert len(gc.get_objects()) - before < PAGES / 4
    go_on.set()
    writer.close()
    assert writer.wait(PATIENCE)
    events = read_trace(file)[1]
    assert [event.value for event in events if isinstance(event, Mmio)] == [0, 0, 500, 500, 1000, 1000, 1500, 1500]
    assert len(events) == PAGES + 8
