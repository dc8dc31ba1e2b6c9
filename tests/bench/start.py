"""What it costs to start an instance, and to have one that does nothing: CPU time until it serves, private memory.

The daemon is a process of its own, started as a service manager starts it, on a sim. What it is compared with is a
Python that imports nothing. Instructions on real Xen, which are exact, are in the figures of `tests/lab/run cost`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Figure
from tests.support.sim import PATIENCE, SimProcess, environment
from tests.support.zygote import Waiter

MILLI = 1e-6  #: of a nanosecond
MOST_PRIVATE_MB = 18.0
_IDLE_SECONDS = 20.0


def run(quick: bool) -> Iterator[Figure]:
    rounds, idle = (1, 0.1) if quick else (7, _IDLE_SECONDS)
    waiter = Waiter()
    with tempfile.TemporaryDirectory() as folder, SimProcess(Path(folder) / "sim") as sim:
        words = ["run", "--sim", str(sim.directory), "--domid", str(sim.domid), "--run-dir", folder]
        starts, alone = [], []
        for turn in range(rounds):
            alone.append(_python_alone())
            process = subprocess.Popen(
                [sys.executable, "-m", "xengt_dm", *words],
                stderr=subprocess.DEVNULL,
                env={**environment(), **waiter.environment},
            )
            try:
                assert waiter.ready()
                starts.append(_cpu_ns(process.pid))
                if turn == rounds - 1:
                    private, shared = _memory(process.pid)
                    before, begun = _cpu_ns(process.pid), time.perf_counter()
                    time.sleep(idle)
                    rate = (_cpu_ns(process.pid) - before) / (time.perf_counter() - begun)
            finally:
                process.terminate()
                process.wait(PATIENCE)
    waiter.close()
    best, least = min(starts), min(alone)
    how = f"{best * MILLI:.0f} ms of CPU time, Python alone {least * MILLI:.0f}"
    yield Figure("start", "until it serves", best / least, "x Python alone", how)
    how = f"{private - shared} KiB of its own pages, and {shared} of files that no other process has mapped"
    yield Figure("start", "private memory, idle", private * 1024 / 1e6, "MB", how, target=MOST_PRIVATE_MB)
    yield Figure("start", "idle", rate / 1000, "us of CPU time a second", "looks whether its domain is there")


def _python_alone() -> int:
    code = "import sys, time; print(time.process_time_ns())"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment()).stdout)


def _cpu_ns(pid: int) -> int:
    """The CPU time of a process with one thread. Source: Documentation/scheduler/sched-stats.rst of Linux."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def _memory(pid: int) -> tuple[int, int]:
    """KiB that only this process has, and those among them that are clean, so pages of files."""
    values = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        values[name] = int(value.split()[0])
    return values["Private_Dirty"] + values["Private_Clean"], values["Private_Clean"]
