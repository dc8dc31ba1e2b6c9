"""A guest that stores as fast as it can is served in bursts, and everybody else gets on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.sim import Console, Daemon, SimProcess
from tests.support.sim_space import DATA, L1, SCRATCH, build, told
from tests.support.tables import FRAME, address, pte
from xengt_dm.errors import ExitCode
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.vgpu import registers as reg

#: What vCPU 0 stores to: a leaf table, or plain registers.
TARGETS = {"table": address(L1, 1), "registers": SCRATCH}


class Hammer:
    """vCPU 0, which stores 500 values to ``target``, again and again."""

    def __init__(self, cpu: Console, target: int) -> None:
        self._cpu = cpu
        self._target = target
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.rounds = 0
        self._thread.start()

    def _run(self) -> None:
        while not self._enough.is_set():
            self._cpu.run(0, "fill", self._target, 500, pte(DATA))
            self.rounds += 1

    def rest(self) -> None:
        self._enough.set()
        self._thread.join()


@contextmanager
def hammered(tmp_path: Path, base: Path, target: str) -> Iterator[tuple[Console, Daemon, Hammer]]:
    with (
        SimProcess(tmp_path / "sim", "--guest", "scripted") as sim,
        sim.console() as console,
        sim.console() as cpu,
        sim.serve(base) as daemon,
    ):
        build(console)
        hammer = Hammer(cpu, TARGETS[target])
        try:
            yield console, daemon, hammer
        finally:
            hammer.rest()


def traps(base: Path) -> int:
    counters = told(base, "status")["counters"]
    return int(counters["store_traps"] + counters["mmio_traps"])


@pytest.mark.parametrize("target", TARGETS)
def test_the_operator_and_the_other_vcpu_are_served(tmp_path: Path, base: Path, target: str) -> None:
    with hammered(tmp_path, base, target) as (console, daemon, hammer):
        seen = [traps(base) for _ in range(20)]
        assert sorted(seen) == seen
        while traps(base) == seen[0]:  # the guest gets on, too
            pass
        for _ in range(20):
            assert console.run(1, "load", DEFAULT_BAR0 + reg.PVINFO, 8) == reg.PVINFO_MAGIC
        assert told(base, "audit")["audit_mismatches"] == 0
        hammer.rest()
        assert daemon.stop()[0] == ExitCode.OK


@pytest.mark.parametrize("target", TARGETS)
def test_a_signal_ends_the_daemon_in_the_middle_of_a_burst(tmp_path: Path, base: Path, target: str) -> None:
    with hammered(tmp_path, base, target) as (console, daemon, hammer):
        traps(base)
        status, said = daemon.stop()
        assert status == ExitCode.OK, said
        hammer.rest()
        left = console.state()
        assert (left["protected"], left["owner"], left["device_models"]) == ([], None, 0)
        if target == "table":
            assert left["counters"]["dropped_stores"] == 0
            assert console.ask("read", gpa=L1 * FRAME + 8, size=8) == pte(DATA).to_bytes(8, "little").hex()
