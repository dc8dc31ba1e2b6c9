"""What a daemon that a guest took over may leave at the names of files: its successor serves, and so does `reap`."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.sim import PATIENCE, Console, SimProcess
from tests.support.sim_space import DATA, SCRATCH, live_and_die, told, walked_once_rebuilt
from tests.support.tables import FRAME
from xengt_dm.cli.reap import give_back
from xengt_dm.errors import ExitCode

NAMES = ("server-id.new", "stats", "stats.new", "state.new", "control.sock", "control.sock.new", "ranges")
KINDS: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "full directory": lambda path: (path / "deeper").mkdir(parents=True),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "file": lambda path: path.write_bytes(b"x"),
}


def put(directory: Path, kind: str, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        (directory / name).unlink(missing_ok=True)
        KINDS[kind](directory / name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_successor_serves(sim: SimProcess, console: Console, base: Path, directory: Path, kind: str) -> None:
    live_and_die(sim, console, base)
    put(directory, kind)
    with sim.serve(base) as daemon:
        assert told(base, "status")["state_kept"] is True
        assert console.run(0, "load", SCRATCH, 4) == 0x1234
        assert walked_once_rebuilt(base, 0) == DATA * FRAME
        assert daemon.stop()[0] == ExitCode.OK
    assert console.state()["protected"] == []


#: The control socket cannot be made.
NO_SOCKET = """
from xengt_dm.daemon import main as daemon
from xengt_dm.errors import HostError
async def fail(*arguments, **options):
    raise HostError("listen", 1, 28)
daemon.serve_control = fail
"""


def test_one_that_fails_leaves_all_to_the_next(sim: SimProcess, console: Console, base: Path) -> None:
    live_and_die(sim, console, base)
    daemon = sim.serve(base, hook=NO_SOCKET)
    said = daemon.process.communicate(timeout=PATIENCE)[1]
    assert daemon.process.returncode == ExitCode.UNAVAILABLE, said
    daemon.__exit__()
    with sim.serve(base):
        assert told(base, "status")["state_kept"] is True
        assert console.run(0, "load", SCRATCH, 4) == 0x1234


def test_what_is_protected_is_given_back(sim: SimProcess, console: Console, base: Path, directory: Path) -> None:
    live_and_die(sim, console, base)
    put(directory, "FIFO")
    with closing(sim.port()) as port:
        assert len([*give_back(port, directory)]) == 1
    left = console.state()
    assert (left["protected"], left["owner"]) == ([], None)


@pytest.mark.parametrize("kind", [None, "FIFO", "full directory"])
def test_the_record_of_the_server_is_lost(
    sim: SimProcess, console: Console, base: Path, directory: Path, kind: str | None
) -> None:
    """Its state says which server it is about. Without that, the claim of an unknown server would be in the way."""
    live_and_die(sim, console, base)
    if kind is None:
        (directory / "server-id").unlink()
    else:
        put(directory, kind, ("server-id",))
    with sim.serve(base) as daemon:
        assert told(base, "status")["state_kept"] is True
        assert console.run(0, "load", SCRATCH, 4) == 0x1234
        assert daemon.stop()[0] == ExitCode.OK
    left = console.state()
    assert (left["protected"], left["owner"]) == ([], None)
