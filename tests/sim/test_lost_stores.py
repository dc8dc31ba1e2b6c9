"""A store whose answer takes several slices, and what another vCPU stores to the same place meanwhile.

The daemon dies between two slices, or hands over. Its successor must not perform the first store again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.sim import PATIENCE, Console, SimProcess
from tests.support.sim_space import DATA, L1, L2, L3, L4, announce, told
from tests.support.tables import FRAME, address, pte
from xengt_dm.control.client import ask
from xengt_dm.errors import ExitCode

#: After the first slice of a request the daemon serves others until the test has made the file "end"; then it does so.
HOOK = """
import os, pathlib, signal
from xengt_dm.ioreq.loop import ServeLoop
take_turns, here = ServeLoop.take_turns, pathlib.Path(%r)
def turns(self):
    if not (here / "go").exists():
        return take_turns(self)
    while not (here / "end").exists():
        self._look()
        if len(self._jobs) > 1:
            first = self._jobs.popleft()
            self._slice(self._jobs.popleft())
            self._jobs.appendleft(first)
    if (here / "end").read_text() == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
ServeLoop.take_turns = turns
"""
#: A frame of a chunk that nobody has asked for yet.
UNKNOWN = 3000


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimProcess]:
    with SimProcess(tmp_path / "sim", "--guest", "scripted", "--frames", "4096", "--vcpus", "2", "--rep-stores") as it:
        yield it


def build(console: Console) -> None:
    """A space, and below it 6 directories with 200 leaf tables each, which are not linked."""
    for table, child in ((L4, L3), (L3, L2), (L2, L1)):
        console.run(0, "store", address(table), 8, pte(child))
    for directory in range(6):
        console.ask("write", gpa=address(DIRECTORIES, directory), data=pte(16 + directory).to_bytes(8, "little").hex())
        leaves = b"".join(pte(32 + 200 * directory + leaf).to_bytes(8, "little") for leaf in range(200))
        console.ask("write", gpa=(16 + directory) * FRAME, data=leaves.hex())
    announce(console)


DIRECTORIES = 8
STORES: dict[str, tuple[int, int, tuple[Any, ...]]] = {
    "a leaf table, to an unknown frame": (address(L1, 8), pte(UNKNOWN), ("store",)),
    "a directory, to many tables": (address(L4, 1), pte(DIRECTORIES), ("store",)),
    "elements of a repeated store": (address(L1, 8), pte(UNKNOWN), ("rep_stos", 4)),
}


@pytest.mark.parametrize("end", ["kill", "hand over"])
@pytest.mark.parametrize("what", STORES)
def test_the_later_store_stays(sim: SimProcess, base: Path, tmp_path: Path, what: str, end: str) -> None:
    at, value, (instruction, *count) = STORES[what]
    with sim.console() as first, sim.console() as second:
        with sim.serve(base, hook=HOOK % str(tmp_path)) as daemon:
            build(first)
            (tmp_path / "go").touch()
            first.begin(0, instruction, at, 8, *count, value)
            while second.run(1, "load", at, 8) != value:
                pass
            second.run(1, "store", at, 8, pte(DATA))
            (tmp_path / "end.new").write_text(end)
            (tmp_path / "end.new").rename(tmp_path / "end")
            if end == "hand over":
                ask(base, 1, "upgrade")
            daemon.process.communicate(timeout=PATIENCE)
            assert daemon.process.returncode == (-signal.SIGKILL if end == "kill" else ExitCode.HANDOVER)
        with sim.serve(base) as daemon:
            first.receive()
            assert second.run(1, "load", at, 8) == pte(DATA)
            told(base, "audit")  # fails if it finds a mismatch
            assert daemon.stop()[0] == ExitCode.OK
