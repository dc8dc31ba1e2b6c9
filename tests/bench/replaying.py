"""``xengt-dm replay`` of a trace that is nothing but stores to one leaf table, as a process from start to end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.measure import Figure, best, wall
from tests.support.tables import FRAME, pte
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import DEFAULT_MAX_TABLES
from xengt_dm.sim.replay import replay
from xengt_dm.trace.events import Dump, Event, Header, Mmio, Store
from xengt_dm.trace.read import read_trace
from xengt_dm.vgpu import registers as reg

RAM_FRAMES = 4096
ROOT, LEAF = 1, 4
TARGET = 20_000.0


def run(quick: bool) -> Iterator[Figure]:
    stores = 500 if quick else 200_000
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "stores.jsonl"
        path.write_text("".join(f"{line}\n" for line in _lines(stores)))
        header, events = read_trace(path)
        for sync in Sync:
            command = [sys.executable, "-m", "xengt_dm", "replay", str(path), "--mode", sync.value]
            whole, parse, play = best(
                rounds,
                partial(wall, partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)),
                partial(wall, partial(read_trace, path)),
                partial(wall, partial(replay, header, events, sync=sync, max_tables=DEFAULT_MAX_TABLES)),
            )
            how = f"{whole:.2f} s for {stores:,} stores; of which reading {parse:.2f}, playing {play:.2f}"
            yield Figure("replay", sync.value, stores / whole, "stores/s", how, TARGET, at_least=True)


def _lines(stores: int) -> Iterator[str]:
    yield Header(generation=8, ram_frames=RAM_FRAMES).line()
    events: list[Event] = [Store(gfn * FRAME, 8, pte(gfn + 1)) for gfn in range(ROOT, LEAF)]
    events += [Mmio(reg.PDP0, 8, ROOT * FRAME), Mmio(reg.G2V_NOTIFY, 4, reg.Notification.PPGTT_L4_CREATE)]
    yield from (event.line() for event in events)
    for i in range(stores):
        yield Store(LEAF * FRAME + i % 512 * 8, 8, pte(i * 7 % RAM_FRAMES)).line()
    yield Dump("end").line()
