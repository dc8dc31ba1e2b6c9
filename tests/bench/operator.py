"""How long an operator waits for `status` while a vCPU stores to a leaf table as fast as it can.

Guest, daemon and operator are three processes, which all want to run; the daemon is a real one, started by its command.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measure import Figure, wall
from tests.support.sim import Console, SimProcess
from tests.support.sim_space import DATA, L1, build
from tests.support.tables import address, pte
from xengt_dm.control.client import ask

MILLI = 1e3
#: Of the slowest in a hundred.
LIMIT_MS = 5.0
PAUSE_SECONDS = 0.005
_STORES = 20_000


def run(quick: bool) -> Iterator[Figure]:
    asked = 20 if quick else 1000
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "run"
        with (
            SimProcess(Path(folder) / "sim", "--guest", "scripted") as sim,
            sim.console() as console,
            sim.serve(base),
        ):
            build(console)
            before = _stores(base)
            with _storing(console):
                began = time.monotonic()
                waits = sorted(_wait(base) for _ in range(asked))
                took = time.monotonic() - began
            stores = _stores(base) - before
    cuts = statistics.quantiles(waits, n=100)
    how = f"p50 {cuts[49] * MILLI:.2f}, most {waits[-1] * MILLI:.2f}; {stores / took:,.0f} stores/s meanwhile"
    yield Figure("operator", "`status`, p99", cuts[98] * MILLI, "ms", how, target=LIMIT_MS)


def _wait(base: Path) -> float:
    """The seconds that `status` takes, after a pause in which the daemon serves the guest alone."""
    time.sleep(PAUSE_SECONDS)
    return wall(lambda: ask(base, 1, "status"))


def _stores(base: Path) -> int:
    return int(ask(base, 1, "status")["counters"]["store_traps"])


@contextmanager
def _storing(console: Console) -> Iterator[None]:
    """vCPU 0 stores all the time."""
    enough = threading.Event()

    def store() -> None:
        while not enough.is_set():
            console.run(0, "fill", address(L1, 1), _STORES, pte(DATA))

    thread = threading.Thread(target=store)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
