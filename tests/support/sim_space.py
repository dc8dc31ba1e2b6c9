"""A space that a test builds in a sim's scripted guest, and what an operator is told of it."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.support.sim import Console, SimProcess
from tests.support.tables import FRAME, address, pte
from xengt_dm.cli import main
from xengt_dm.errors import ExitCode
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.state.buffer import State
from xengt_dm.vgpu import registers as reg

#: Frames of the tables of an L4 space, root first, and of a page that it maps.
L4, L3, L2, L1, DATA = range(2, 7)
TABLES = [L4, L3, L2, L1]
#: A register without any effect.
SCRATCH = DEFAULT_BAR0 + 0x2030


def told(base: Path, *words: object, domid: int = 1) -> Any:
    command = [*map(str, words), "--domid", str(domid), "--run-dir", str(base), "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == ExitCode.OK, result.output
    return json.loads(result.output)


def walked(base: Path, va: int, domid: int = 1) -> Any:
    """The gpa to which a GPU address leads in the only space."""
    (space,) = told(base, "walk", va, domid=domid)["spaces"]
    return space["page"]["gpa"]


def walked_once_rebuilt(base: Path, va: int) -> Any:
    """As :func:`walked`, once a successor has built the shadows again. Each look is a round trip to the daemon."""
    for _ in range(2000):
        (space,) = told(base, "walk", va)["spaces"]
        if space["page"] is not None:
            return space["page"]["gpa"]
    raise AssertionError("the shadows are not built again")


def announce(console: Console, root: int = L4) -> None:
    console.run(0, "store", DEFAULT_BAR0 + reg.PDP0, 8, root * FRAME)
    console.run(0, "store", DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, int(reg.Notification.PPGTT_L4_CREATE))


def build(console: Console) -> None:
    """Link the tables of a space, map a page, and announce the space."""
    for table, child in zip(TABLES, [*TABLES[1:], DATA], strict=True):
        console.run(0, "store", address(table), 8, pte(child))
    announce(console)


@contextmanager
def left_state(directory: Path) -> Iterator[State]:
    """The state that a dead daemon left, for a test to change."""
    with (directory / "state").open("r+b") as file:
        yield State(memoryview(mmap.mmap(file.fileno(), 0)))


def events(said: str) -> dict[str, dict[str, Any]]:
    """What a daemon logged, by the name of the event."""
    return {line["event"]: line for line in map(json.loads, said.splitlines())}


def live_and_die(sim: SimProcess, console: Console, base: Path, *options: str) -> None:
    """A daemon serves, the guest announces a space and writes a register, and the daemon is killed."""
    with sim.serve(base, *options) as daemon:
        build(console)
        console.run(0, "store", SCRATCH, 4, 0x1234)
        daemon.kill()
