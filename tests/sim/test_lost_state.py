"""What a successor and `reap` do without a state that they can believe, and what `reap` does with one."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.sim import Console, SimProcess, environment
from tests.support.sim_space import (
    DATA,
    L1,
    L3,
    SCRATCH,
    TABLES,
    announce,
    build,
    events,
    left_state,
    live_and_die,
    told,
    walked,
    walked_once_rebuilt,
)
from tests.support.tables import FRAME, address, pte
from xengt_dm.adoption import MOST_ADOPTIONS
from xengt_dm.cli.reap import give_back
from xengt_dm.errors import BusyError, ExitCode
from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.run_dir.ranges import FILE_NAME as OLD_RANGES
from xengt_dm.run_dir.ranges import MAGIC as OLD_MAGIC
from xengt_dm.run_dir.ranges import ROOM as OLD_ROOM


def cut(file: Path) -> None:
    os.truncate(file, 123 * 4096)


def fill(file: Path) -> None:
    file.write_bytes(random.Random(1).randbytes(file.stat().st_size // 16) * 16)


def another_domain(file: Path) -> None:
    with left_state(file.parent) as state:
        state.memory[40:48] = struct.pack("<Q", 2)


def another_uuid(file: Path) -> None:
    with left_state(file.parent) as state:
        state.memory[48] ^= 1


def another_server(file: Path) -> None:
    with left_state(file.parent) as state:
        state.is_of(5)


def no_server(file: Path) -> None:
    with left_state(file.parent) as state:
        state.is_of((1 << 64) - 1)


def another_generation(file: Path) -> None:
    with left_state(file.parent) as state:
        state.life.generation = 10


def another_bar0(file: Path) -> None:
    with left_state(file.parent) as state:
        state.life.bar0 += 4096


def another_range(file: Path) -> None:
    with left_state(file.parent) as state:
        state.ranges[100:102] = memoryview(struct.pack("<QQ", 7 << 60, 1)).cast("Q")


def another_space(file: Path) -> None:
    with left_state(file.parent) as state:
        state.spaces[16:24] = memoryview(struct.pack("<8Q", 1, 1, 77, 0, 0, 0, 0, 0)).cast("Q")


def another_frame(file: Path) -> None:
    with left_state(file.parent) as state:
        state.protected[-1] = 0x80


def too_often(file: Path) -> None:
    with left_state(file.parent) as state:
        state.life.adoptions = MOST_ADOPTIONS


def link(file: Path) -> None:
    file.rename(file.parent / "elsewhere")
    file.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut, "in a file of 503808"),
        (fill, "no state"),
        (another_domain, "a state of domain 2"),
        (another_uuid, "a state of an earlier domain"),
        (another_server, "a state of ioreq server 5; the one that is there is 0"),
        (no_server, "its daemon died before the server was ready"),
        (another_generation, "generation 10"),
        (another_bar0, "BAR0 at 0xf0001000"),
        (another_range, "its ranges are none"),
        (another_space, "live spaces"),
        (another_frame, "that the domain cannot have"),
        (too_often, f"{MOST_ADOPTIONS} successors in a row died with it"),
        (link, "it is a symbolic link"),
        (Path.unlink, "there is none"),
    ],
)
def test_a_state_that_is_not_believed(
    sim: SimProcess, console: Console, base: Path, directory: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    """The device starts anew, and all that trapped is released; and that is the state of the next successor."""
    live_and_die(sim, console, base)
    spoil(directory / "state")
    with sim.serve(base) as daemon:
        assert console.state()["protected"] == []
        assert console.run(0, "load", SCRATCH, 4) == 0
        assert told(base, "spaces") == []
        status = told(base, "status")
        assert status["state_kept"] is False
        assert reason in status["state_refused"]
        assert status["counters"]["refused_states"] == 1
        announce(console)
        assert walked(base, 0) == DATA * FRAME
        said = daemon.kill()
    assert reason in events(said)["state.refused"]["reason"]
    with sim.serve(base) as daemon:
        assert told(base, "status")["state_kept"] is True
        assert walked_once_rebuilt(base, 0) == DATA * FRAME
        status, said = daemon.stop()
    assert status == ExitCode.OK, said
    left = console.state()
    assert (left["protected"], left["owner"], left["counters"]["dropped_stores"]) == ([], None, 0)


def test_its_successors_that_serve_are_counted_from_zero(
    sim: SimProcess, console: Console, base: Path, directory: Path
) -> None:
    live_and_die(sim, console, base)
    with left_state(directory) as state:
        state.life.adoptions = MOST_ADOPTIONS - 1
    for _ in range(3):
        with sim.serve(base) as daemon:
            assert told(base, "status")["state_kept"] is True
            daemon.kill()
    with left_state(directory) as state:
        assert (state.life.adoptions, state.life.successors) == (0, 3)


def test_a_state_that_is_cut_while_a_daemon_serves(
    sim: SimProcess, console: Console, base: Path, directory: Path
) -> None:
    """The daemon dies once. Its successor does without that state, and serves the register that killed it."""
    with sim.console() as cpu:
        with sim.serve(base) as daemon:
            build(console)
            os.truncate(directory / "state", 4096)
            cpu.begin(0, "store", SCRATCH, 4, 7)
            daemon.process.communicate(timeout=60)
            assert daemon.process.returncode == -signal.SIGBUS
        with sim.serve(base) as daemon:
            cpu.receive()
            assert console.run(0, "load", SCRATCH, 4) == 7
            assert told(base, "status")["state_kept"] is False
            assert daemon.stop()[0] == ExitCode.OK
    assert console.state()["protected"] == []


def test_a_domain_has_one_daemon(sim: SimProcess, console: Console, base: Path) -> None:
    with sim.serve(base):
        build(console)
        words = ["--sim", str(sim.directory), "--domid", "1", "--run-dir", str(base)]
        command = [sys.executable, "-m", "xengt_dm", "run", *words]
        second = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert second.returncode == ExitCode.BUSY
        assert "xengt-dm stop --domid 1" in second.stderr
        assert walked(base, 0) == DATA * FRAME


def test_the_successor_of_a_daemon_without_a_state(
    sim: SimProcess, console: Console, base: Path, directory: Path
) -> None:
    """It recorded its ranges in a file of their own, which is read once."""
    live_and_die(sim, console, base)
    (directory / "state").unlink()
    port = sim.port()
    guard = Range(RangeKind.GUARD, 9 * FRAME, 10 * FRAME - 1)
    port.map_mmio(0, guard.first, guard.last)
    port.close()
    data = bytearray(8 * (2 + 2 * OLD_ROOM))
    struct.pack_into(
        "<6Q", data, 0, OLD_MAGIC, OLD_ROOM, 1 << 60 | 0xF0000000, 0xF1000000, 3 << 60 | guard.first, 0xA000
    )
    (directory / OLD_RANGES).write_bytes(data)
    with sim.serve(base) as daemon:
        assert not (directory / OLD_RANGES).exists()
        announce(console)
        assert walked(base, 0) == DATA * FRAME
        assert daemon.stop()[0] == ExitCode.OK
    left = console.state()
    assert (left["protected"], left["owner"]) == ([], None)


# Reaping


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_dead_daemon_protected_is_given_back(
    sim: SimProcess, console: Console, base: Path, directory: Path, kept: bool
) -> None:
    """With a store waiting, which is performed."""
    live_and_die(sim, console, base)
    if not kept:
        os.truncate(directory / "state", 4096)
    with sim.console() as cpu, closing(sim.port()) as port:
        cpu.begin(0, "store", address(L1, 1), 8, pte(L3))
        lines = [*give_back(port, directory)]
        cpu.receive()
    assert console.run(0, "load", address(L1, 1), 8) == pte(L3)
    assert lines == [
        "domain 1: unprotected 4 pages, and removed 0 guard ranges and 1 range of the device"
        if kept
        else "domain 1: unprotected whatever trapped; its state is of no use: a state of "
        f"{state_size(lines)} bytes in a file of 4096"
    ]
    left = console.state()
    assert (left["protected"], left["owner"], left["counters"]["dropped_stores"]) == ([], None, 0)
    assert [path.name for path in directory.iterdir() if path.name != "control.sock"] == ["stats"]


def state_size(lines: list[str]) -> str:
    return lines[0].rpartition("a state of ")[2].partition(" ")[0]


def test_a_living_daemon_is_not_reaped(sim: SimProcess, console: Console, base: Path, directory: Path) -> None:
    with sim.serve(base), closing(sim.port()) as port:
        build(console)
        with pytest.raises(BusyError):
            [*give_back(port, directory)]
        assert walked(base, 0) == DATA * FRAME
        assert console.state()["protected"] == TABLES
