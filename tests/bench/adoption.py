"""How long a guest waits when its daemon is killed: from SIGKILL to the first answer of the successor.

A vCPU stores to a table when the daemon is dead. The successor is a process of its own, started as a service manager
starts it, and is compared with a start that finds nothing to adopt. So is one that is forked by a process with all
modules in it: that leaves out Python's start, and shows what the adoption itself takes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench.measure import Figure
from tests.support.sim import Console, SimProcess, environment
from tests.support.tables import ENTRIES, FRAME, address, pte
from tests.support.zygote import Waiter, Zygote
from xengt_dm.control.client import ask
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.vgpu import registers as reg

MILLI = 1e3
TARGET = 1.2
_LOOK_SECONDS = 0.05
#: The tables of a space: root, then the directory of directories, then these and what they link.
ROOT, LEVEL3, FIRST = 16, 17, 18


class _Starts:
    """Starts daemons for one sim: each a Python of its own, or by fork."""

    def __init__(self, sim: SimProcess, base: Path, zygote: Zygote | None, waiter: Waiter) -> None:
        self._words = ["run", "--sim", str(sim.directory), "--domid", str(sim.domid), "--run-dir", str(base)]
        self._log = base / "log"
        self._zygote = zygote
        self._waiter = waiter
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def start(self) -> None:
        self._waiter.forget()
        if self._zygote is not None:
            self._pid = self._zygote.fork(self._words, log=self._log, env=self._waiter.environment)
            return
        command = [sys.executable, "-m", "xengt_dm", *self._words]
        with self._log.open("ab") as log:
            variables = {**environment(), **self._waiter.environment}
            self._process = subprocess.Popen(command, stderr=log, env=variables)
        self._pid = self._process.pid

    def end(self, number: int) -> None:
        os.kill(self._pid, number)
        if self._process is not None:
            self._process.wait()
        elif self._zygote is not None:
            self._zygote.wait(self._pid)


def run(quick: bool) -> Iterator[Figure]:
    sizes = (0, 64) if quick else (0, 1000, 50_000)
    repeats = 1 if quick else 7
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        waiter = Waiter()
        stack.callback(waiter.close)
        zygote = stack.enter_context(Zygote())
        for how, by in (("forked", zygote), ("started", None)):
            for tables in sizes:
                best, dying, alone, size = _adoptions(folder / f"{how}-{tables}", by, waiter, tables, repeats)
                yield Figure(
                    "adoption",
                    f"SIGKILL to the first answer, {tables:,} tables, {how}",
                    best / alone,
                    "x start alone",
                    f"{best * MILLI:.1f} ms, {dying * MILLI:.1f} of it the end of the killed process; the start "
                    f"{alone * MILLI:.1f}; run directory {size >> 10:,} KiB",
                    target=TARGET if by is None else None,
                )


def _start(folder: Path, zygote: Zygote | None, waiter: Waiter) -> float:
    """Seconds until a daemon serves that finds nothing."""
    base = folder / "alone"
    base.mkdir(parents=True, exist_ok=True)
    with SimProcess(folder / "alone-sim", "--guest", "scripted", "--frames", "1024") as sim:
        starts = _Starts(sim, base, zygote, waiter)
        begun = time.perf_counter()
        starts.start()
        assert waiter.ready()
        seconds = time.perf_counter() - begun
        starts.end(signal.SIGTERM)
    return seconds


def _adoptions(
    folder: Path, zygote: Zygote | None, waiter: Waiter, tables: int, repeats: int
) -> tuple[float, float, float, int]:
    """The best of each: seconds from SIGKILL to the first answer, to the end of the killed process, and of a start
    alone, which comes in turns with it. And the bytes of the run directory's files.
    """
    base = folder / "run"
    base.mkdir(parents=True)
    leaves = max(tables - 2, 0)
    frames = FIRST + leaves + leaves // ENTRIES + 1024
    with (
        SimProcess(folder / "sim", "--guest", "scripted", "--frames", str(frames)) as sim,
        sim.console() as console,
        sim.console() as vcpu,
    ):
        starts = _Starts(sim, base, zygote, waiter)
        starts.start()
        assert waiter.ready()
        target = _build(console, leaves) if tables else DEFAULT_BAR0 + reg.PDP0
        waits, dying, alone = [], [], []
        for turn in range(repeats):
            alone.append(_start(folder, zygote, waiter))
            _wait_for_tables(base, sim.domid, tables)
            begun = time.perf_counter()
            starts.end(signal.SIGKILL)
            dying.append(time.perf_counter() - begun)
            vcpu.begin(0, "store", target, 8, pte(turn % 16))
            starts.start()
            vcpu.receive()
            waits.append(time.perf_counter() - begun)
            assert waiter.ready()
        size = sum(path.stat().st_blocks * 512 for path in (base / "1").iterdir() if path.is_file())
        starts.end(signal.SIGTERM)
    return min(waits), min(dying), min(alone), size


def _build(console: Console, leaves: int) -> int:
    """A space of so many leaf tables; returns the gpa of an entry of one."""
    directories = -(-leaves // ENTRIES)
    first_leaf = FIRST + directories

    def write(gfn: int, entries: list[int]) -> None:
        console.ask("write", gpa=address(gfn), data=b"".join(each.to_bytes(8, "little") for each in entries).hex())

    write(ROOT, [pte(LEVEL3)])
    write(LEVEL3, [pte(FIRST + n) for n in range(directories)])
    for n in range(directories):
        some = range(first_leaf + n * ENTRIES, min(first_leaf + (n + 1) * ENTRIES, first_leaf + leaves))
        write(FIRST + n, [pte(gfn) for gfn in some])
    console.run(0, "store", DEFAULT_BAR0 + reg.PDP0, 8, ROOT * FRAME)
    console.run(0, "store", DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, int(reg.Notification.PPGTT_L4_CREATE))
    return address(first_leaf, 3)


def _wait_for_tables(base: Path, domid: int, tables: int) -> None:
    """Until the shadows are there again, so that each kill finds as many."""
    while ask(base, domid, "status")["counters"]["tables"] < tables:
        time.sleep(_LOOK_SECONDS)
