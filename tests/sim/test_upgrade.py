"""Upgrades of daemons on a sim: one leaves its domain, the next goes on, and the guest notices a pause at most."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner

from tests.support.sim import Console, Daemon, SimProcess, environment
from tests.support.sim_space import (
    DATA,
    L1,
    L2,
    L3,
    L4,
    SCRATCH,
    TABLES,
    build,
    events,
    left_state,
    told,
    walked_once_rebuilt,
)
from tests.support.tables import FRAME, address, pte
from xengt_dm import __version__
from xengt_dm._core import ffi
from xengt_dm._core import lib as core
from xengt_dm._embedded import lib
from xengt_dm.cli import main
from xengt_dm.control.client import ask
from xengt_dm.control.protocol import SOCKET_NAME, request_line
from xengt_dm.control.socket import connect
from xengt_dm.errors import ExitCode
from xengt_dm.service.backoff import FAILURE_SECONDS
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.stats.page import copy_page
from xengt_dm.vgpu import registers as reg


def leave(base: Path, daemon: Daemon) -> str:
    """Have a daemon leave its domain; returns what it said."""
    assert ask(base, 1, "upgrade") == {"pid": daemon.process.pid, "version": __version__}
    said = daemon.process.communicate(timeout=60)[1]
    assert daemon.process.returncode == ExitCode.HANDOVER, said
    return said


def check_left(console: Console, directory: Path) -> None:
    """Nothing was given back, and nothing of it forgotten."""
    left = console.state()
    assert (left["protected"], left["owner"]) == (TABLES, 0)
    assert {"state", "server-id", "stats"} <= {path.name for path in directory.iterdir()}
    assert not copy_page(directory / "stats").ended, "somebody should serve the domain, and its metrics say so"


def check_given_back(console: Console, base: Path) -> None:
    left = console.state()
    assert (left["protected"], left["owner"], left["device_models"]) == ([], None, 0)
    assert left["counters"]["dropped_stores"] == 0
    assert not {"state", "server-id"} & {path.name for path in (base / "1").iterdir()}


def test_the_next_one_goes_on(sim: SimProcess, console: Console, base: Path, directory: Path) -> None:
    """Twice: what the first one left, the second one can leave again."""
    with sim.serve(base) as daemon:
        build(console)
        console.run(0, "store", SCRATCH, 4, 0x1234)
        assert told(base, "status")["handover_seconds"] is None
        said = leave(base, daemon)
    assert events(said)["daemon.handing_over"]["version"] == __version__
    assert "daemon.stopping" not in events(said)
    check_left(console, directory)
    for upgrades in range(2):
        with sim.serve(base) as daemon:
            assert console.run(0, "load", SCRATCH, 4) == 0x1234
            assert walked_once_rebuilt(base, upgrades * FRAME) == (L2 if upgrades else DATA) * FRAME
            console.run(1, "store", address(L1, upgrades + 1), 8, pte(L2))
            assert walked_once_rebuilt(base, (upgrades + 1) * FRAME) == L2 * FRAME
            assert [space["refs"] for space in told(base, "spaces")] == [1]
            assert told(base, "audit", "--sync")["audit_mismatches"] == 0
            status = told(base, "status")
            assert 0 < status["handover_seconds"] < 60
            assert (status["state_kept"], status["state_refused"]) == (True, None)
            leave(base, daemon)
        check_left(console, directory)
        with left_state(directory) as state:
            assert (state.life.deaths, state.life.adoptions) == (0, 0)
    with sim.serve(base) as daemon:
        status, said = daemon.stop()
        assert status == ExitCode.OK, said
    check_given_back(console, base)


def test_requests_that_wait(sim: SimProcess, console: Console, base: Path) -> None:
    """Stores that come when nobody serves are performed by the next one."""
    with sim.console() as first, sim.console() as second:
        with sim.serve(base) as daemon:
            build(console)
            leave(base, daemon)
        first.begin(0, "store", address(L1, 1), 8, pte(L2))
        second.begin(1, "store", SCRATCH, 4, 7)
        for vcpu in range(2):
            assert console.ask("wait_phase", vcpu=vcpu, phase=lib.XD_PHASE_BLOCKED, seconds=20) == 0
        with sim.serve(base) as daemon:
            first.receive()
            second.receive()
            assert walked_once_rebuilt(base, FRAME) == L2 * FRAME
            assert console.run(0, "load", SCRATCH, 4) == 7
            daemon.stop()
    check_given_back(console, base)


def test_a_guest_that_never_stops(tmp_path: Path, base: Path) -> None:
    """Its vCPUs announce, store and destroy all the time; it checks each store itself."""
    with SimProcess(tmp_path / "sim", "--guest", "stores") as sim, sim.console() as console:
        rounds = 0
        for _ in range(4):
            with sim.serve(base) as daemon:
                rounds += 1
                progress = console.ask("wait_for_rounds", rounds=rounds)
                rounds = max(rounds, progress["least_rounds"])
                leave(base, daemon)
        with sim.serve(base) as daemon:
            progress = console.ask("wait_for_rounds", rounds=rounds + 9)
            assert progress["fault"] is None
            assert told(base, "audit")["audit_mismatches"] == 0
            assert daemon.stop()[0] == ExitCode.OK
        left = console.state()
        assert (left["protected"], left["owner"]) == ([], None)
        assert sim.end() == (0, "")


def test_quiesced(sim: SimProcess, console: Console, base: Path) -> None:
    with sim.serve(base) as daemon:
        build(console)
        told(base, "quiesce")
        leave(base, daemon)
    with sim.serve(base) as daemon:
        assert told(base, "status")["state"] == "quiesced"
        assert (console.state()["protected"], console.state()["owner"]) == ([], None)
        assert told(base, "resume") == {"state": "serving", "spaces": 1}
        assert walked_once_rebuilt(base, 0) == DATA * FRAME
        daemon.stop()
    check_given_back(console, base)


def test_a_recording(tmp_path: Path, sim: SimProcess, console: Console, base: Path) -> None:
    """It ends with a mark, whole; the next daemon tells of it, and can record again."""
    trace = tmp_path / "trace"
    with sim.serve(base) as daemon:
        told(base, "record", trace)
        build(console)
        said = leave(base, daemon)
    assert events(said)["record.cut"]["reason"] == "the daemon that recorded left its domain to another"
    assert json.loads(trace.read_text().splitlines()[-1])["id"] == "cut: upgrade"
    assert CliRunner().invoke(main, ["replay", str(trace)]).exit_code == ExitCode.OK
    with sim.serve(base) as daemon:
        cut = told(base, "status")["recording_cut"]
        assert (cut["file"], cut["cut"], cut["complete"]) == (str(trace), "upgrade", True)
        told(base, "record", tmp_path / "second")
        assert told(base, "record", "--stop")["cut"] is None
        daemon.stop()


#: So many leaf tables take many turns of the event loop to shadow.
MANY = 6 * 512
#: Each finds the announcement begun with a chance of at least one half.
ATTEMPTS = 20
FIRST_L2, FIRST_L1 = 16, 32


def slot_state(sim: SimProcess, vcpu: int) -> int:
    """What the slot of a vCPU says, of server 0, while nobody serves."""
    port = sim.port()
    state = core.xd_slot_state(ffi.cast("char *", port.map_slots(0)), vcpu)
    port.close()
    return int(state)


def test_in_the_middle_of_a_request(tmp_path: Path, base: Path) -> None:
    """The announcement of a space with many tables. The daemon finds it together with the request to leave.

    trio serves the tasks that one look wakes in a random order. Where the operator comes first, the daemon leaves
    before it takes the announcement: the next one serves that from its beginning, and the test begins again.
    """
    with (
        SimProcess(tmp_path / "sim", "--guest", "scripted", "--frames", "8192") as sim,
        sim.console() as console,
        sim.console() as cpu,
    ):
        with sim.serve(base) as daemon:
            for number in range(MANY // 512):
                console.run(0, "store", address(L3, number), 8, pte(FIRST_L2 + number))
                page = b"".join(pte(FIRST_L1 + 512 * number + n).to_bytes(8, "little") for n in range(512))
                console.ask("write", gpa=address(FIRST_L2 + number), data=page.hex())
            console.run(0, "store", address(L4), 8, pte(L3))
            console.run(0, "store", DEFAULT_BAR0 + reg.PDP0, 8, L4 * FRAME)
            leave(base, daemon)
        for _attempt in range(ATTEMPTS):
            announce_and_leave(sim, console, cpu, base)
            if begun := slot_state(sim, 0) == core.XD_STATE_INPROCESS:
                break
            with sim.serve(base) as daemon:
                cpu.receive()
                console.run(0, "store", DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, int(reg.Notification.PPGTT_L4_DESTROY))
                leave(base, daemon)
        assert begun
        with sim.serve(base) as daemon:
            cpu.receive()
            assert [space["refs"] for space in told(base, "spaces")] == [1]
            assert told(base, "audit", "--sync")["audit_mismatches"] == 0
            assert told(base, "status")["counters"]["tables"] == 2 + MANY // 512 + MANY
            assert daemon.stop()[0] == ExitCode.OK
        check_given_back(console, base)


def announce_and_leave(sim: SimProcess, console: Console, cpu: Console, base: Path) -> None:
    """Starts a daemon, and lets it find an announcement and the request to leave at the same time."""
    with sim.serve(base) as daemon, connect(base / "1" / SOCKET_NAME, 60) as operator:
        operator.sendall(request_line("status", {}))
        assert b'"serving"' in operator.recv(1 << 16)
        daemon.process.send_signal(signal.SIGSTOP)
        cpu.begin(0, "store", DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, int(reg.Notification.PPGTT_L4_CREATE))
        assert console.ask("wait_phase", vcpu=0, phase=lib.XD_PHASE_BLOCKED, seconds=20) == 0
        operator.sendall(request_line("upgrade", {}))
        daemon.process.send_signal(signal.SIGCONT)
        said = daemon.process.communicate(timeout=60)[1]
        assert daemon.process.returncode == ExitCode.HANDOVER, said


def test_killed_while_it_leaves(sim: SimProcess, console: Console, base: Path, directory: Path) -> None:
    """A kill after the answer comes to the same as the end that it was about to come to."""
    with sim.serve(base) as daemon:
        build(console)
        ask(base, 1, "upgrade")
        daemon.process.kill()
        daemon.process.communicate(timeout=60)
    check_left(console, directory)
    with sim.serve(base) as daemon:
        assert walked_once_rebuilt(base, 0) == DATA * FRAME
        daemon.stop()
    check_given_back(console, base)


def upgrade(sim: SimProcess, base: Path, *words: str) -> str:
    """What the command says; it starts the next one itself."""
    command = [sys.executable, "-m", "xengt_dm", "upgrade", "--sim", str(sim.directory), "--run-dir", str(base), *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.OK, done.stderr
    return done.stdout


def test_the_command(sim: SimProcess, console: Console, base: Path) -> None:
    """With nobody else to start the next one."""
    with sim.serve(base) as daemon:
        build(console)
        (done,) = json.loads(upgrade(sim, base, "1", "--json"))
        daemon.process.communicate(timeout=60)
        assert daemon.process.returncode == ExitCode.HANDOVER
    assert (done["domid"], done["from"], done["to"]) == (1, __version__, __version__)
    assert 0 < done["unserved_seconds"] < 60
    assert told(base, "status")["pid"] == done["pid"] != daemon.process.pid
    assert walked_once_rebuilt(base, 0) == DATA * FRAME
    line = upgrade(sim, base, "--all")
    assert line.startswith(f"domain 1: still {__version__}, process ")
    assert "its vCPUs were not served for" in line
    assert told(base, "status")["pid"] != done["pid"]
    assert told(base, "stop") == {"domid": 1, "ended": True}
    check_given_back(console, base)


def test_deaths_in_a_row_are_waited_for(sim: SimProcess, console: Console, base: Path, directory: Path) -> None:
    """Only where a service manager starts daemons again; and a daemon that hands over has not died."""
    said = ""
    for deaths in range(4):
        with sim.serve(base, "--backoff") as daemon:
            with left_state(directory) as state:
                assert state.life.deaths == deaths
            said = daemon.kill()
        assert ("daemon.waiting" in events(said)) == (deaths > 2)
    assert (events(said)["daemon.waiting"]["deaths"], events(said)["daemon.waiting"]["seconds"]) == (3, 0.1)
    with sim.serve(base) as daemon:
        said = leave(base, daemon)
    assert "daemon.waiting" not in events(said)
    with sim.serve(base, "--backoff") as daemon, left_state(directory) as state:
        assert state.life.deaths == 1
        daemon.stop()


def test_a_daemon_that_cannot_serve_ends_later(sim: SimProcess, base: Path, directory: Path) -> None:
    with sim.serve(base):
        words = ["--sim", str(sim.directory), "--domid", "1", "--run-dir", str(base), "--backoff"]
        started = time.monotonic()
        result = CliRunner().invoke(main, ["run", *words])
        assert result.exit_code == ExitCode.BUSY
        assert time.monotonic() - started >= FAILURE_SECONDS
