"""What a successor makes of the state that a killed daemon left, and what it does without."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.sim import Console, SimProcess
from tests.support.sim_space import (
    DATA,
    L1,
    L2,
    L4,
    SCRATCH,
    TABLES,
    announce,
    build,
    events,
    left_state,
    live_and_die,
    told,
    walked_once_rebuilt,
)
from tests.support.tables import FRAME, address, pte
from xengt_dm.cli import main
from xengt_dm.errors import ExitCode
from xengt_dm.instance import MOST_REBUILDS
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.state.layout import Layout, size_of
from xengt_dm.vgpu import registers as reg


def test_the_device_goes_on(sim: SimProcess, console: Console, base: Path) -> None:
    """Registers keep their values, spaces live without an announcement, frames trap all the time."""
    live_and_die(sim, console, base)
    assert console.state()["protected"] == TABLES
    for kills in range(1, 4):
        console.run(1, "load", address(L1), 8)  # the guest goes on meanwhile
        with sim.serve(base) as daemon:
            assert console.run(0, "load", SCRATCH, 4) == 0x1233 + kills
            console.run(0, "store", SCRATCH, 4, 0x1234 + kills)
            assert walked_once_rebuilt(base, 0) == DATA * FRAME
            assert console.state()["protected"] == TABLES
            console.run(1, "store", address(L1, kills), 8, pte(L2))
            assert walked_once_rebuilt(base, kills * FRAME) == L2 * FRAME
            assert [space["refs"] for space in told(base, "spaces")] == [1]
            assert told(base, "audit", "--sync")["audit_mismatches"] == 0
            status = told(base, "status")
            assert (status["state_kept"], status["state_refused"]) == (True, None)
            assert status["counters"]["refused_states"] == 0
            said = daemon.kill()
        assert events(said)["state.kept"]["spaces"] == 1
    with sim.serve(base) as daemon:
        assert daemon.stop()[0] == ExitCode.OK
    left = console.state()
    assert (left["protected"], left["owner"], left["counters"]["dropped_stores"]) == ([], None, 0)
    assert not {"state", "server-id"} & {path.name for path in (base / "1").iterdir()}


def test_a_state_of_the_version_before(sim: SimProcess, console: Console, base: Path, directory: Path) -> None:
    """An upgrade of the package: the state of the older daemon is converted, and the guest notices nothing."""
    live_and_die(sim, console, base)
    state = directory / "state"
    with left_state(directory) as newest:
        capacities = newest.layout.capacities
    size = size_of(2, capacities)
    with state.open("r+b") as file:
        file.truncate(size)
        file.seek(8)
        file.write(struct.pack("<I4xQ", 2, size))
    with sim.serve(base) as daemon:
        assert console.run(0, "load", SCRATCH, 4) == 0x1234
        assert walked_once_rebuilt(base, 0) == DATA * FRAME
        assert [space["refs"] for space in told(base, "spaces")] == [1]
        assert told(base, "status")["state_kept"] is True
        assert state.stat().st_size == Layout(capacities).size
        daemon.kill()


def test_a_space_that_is_destroyed_after_the_kill(sim: SimProcess, console: Console, base: Path) -> None:
    live_and_die(sim, console, base)
    with sim.serve(base) as daemon:
        console.run(0, "store", DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, int(reg.Notification.PPGTT_L4_DESTROY))
        assert told(base, "spaces") == []
        daemon.kill()
    with sim.serve(base):
        assert told(base, "spaces") == []
        status = told(base, "status")
        assert (status["counters"]["tables"], status["counters"]["ignored_notifications"]) == (0, 0)


def test_the_mode_is_what_the_operator_made_it(sim: SimProcess, console: Console, base: Path) -> None:
    with sim.serve(base) as daemon:
        assert told(base, "mode", "relaxed") == {"mode": "relaxed"}
        daemon.kill()
    with sim.serve(base, "--mode", "strict") as daemon:
        assert told(base, "status")["mode"] == "relaxed"
        assert told(base, "mode", "strict") == {"mode": "strict"}
        daemon.kill()
    with sim.serve(base, "--mode", "relaxed") as daemon:
        assert told(base, "status")["mode"] == "strict"
        daemon.stop()
    with sim.serve(base, "--mode", "relaxed"):
        assert told(base, "status")["mode"] == "relaxed"


def test_what_the_guest_knows_of_the_device_stays(sim: SimProcess, console: Console, base: Path) -> None:
    live_and_die(sim, console, base)
    options = ["--generation", "9", "--bar0", "0xe0000000", "--set", "shadow.max_spaces=7"]
    with sim.serve(base, *options, "--max-tables", "77") as daemon:
        assert console.run(0, "load", SCRATCH, 4) == 0x1234
        assert told(base, "status")["generation"] == 8
        said = daemon.kill()
    overrides = [line for line in map(json.loads, said.splitlines()) if line["event"] == "state.overrides"]
    assert [(each["key"], each["holds"], each["wanted"]) for each in overrides] == [
        ("device.bar0_gpa", "0xf0000000", "0xe0000000"),
        ("device.generation", "8", "9"),
        ("shadow.max_spaces", "4096", "7"),
    ]


def test_quiesced_stays_quiesced(sim: SimProcess, console: Console, base: Path) -> None:
    with sim.serve(base) as daemon:
        build(console)
        assert told(base, "quiesce") == {"state": "quiesced", "spaces": 1}
        daemon.kill()
    assert console.ask("log_dirty", on=True)  # it is being saved
    with sim.serve(base) as daemon:
        assert told(base, "status")["state"] == "quiesced"
        assert (console.state()["protected"], console.state()["owner"]) == ([], None)
        console.run(0, "store", SCRATCH, 4, 5)
        daemon.kill()
    assert console.ask("log_dirty", on=False)
    with sim.serve(base) as daemon:
        assert told(base, "resume") == {"state": "serving", "spaces": 1}
        assert walked_once_rebuilt(base, 0) == DATA * FRAME
        assert console.run(0, "load", SCRATCH, 4) == 5
        assert console.state()["protected"] == TABLES
        daemon.kill()
    with sim.serve(base):
        assert told(base, "status")["state"] == "serving"
        assert walked_once_rebuilt(base, 0) == DATA * FRAME


def wait_until_released(console: Console) -> None:
    """The end of a quiesce that goes on by itself. Each look takes a round trip to the sim, so this is no busy loop."""
    for _ in range(20_000):
        left = console.state()
        if (left["protected"], left["owner"]) == ([], None):
            return
    raise AssertionError(left)


def test_killed_in_the_middle_of_a_quiesce(sim: SimProcess, console: Console, base: Path, directory: Path) -> None:
    """Once it has begun it is brought to its end; the operator got no answer."""
    live_and_die(sim, console, base)
    with left_state(directory) as state:
        state.life.quiesced = True
    with sim.serve(base):
        assert told(base, "status")["state"] == "quiesced"
        wait_until_released(console)
        assert told(base, "resume") == {"state": "serving", "spaces": 1}
        assert walked_once_rebuilt(base, 0) == DATA * FRAME


@pytest.mark.parametrize("quiesced", [False, True])
def test_killed_between_a_claim_and_its_record(
    sim: SimProcess, console: Console, base: Path, directory: Path, quiesced: bool
) -> None:
    """Either after the claim or before its release; nothing is protected then."""
    with sim.serve(base) as daemon:
        console.run(0, "store", SCRATCH, 4, 0x1234)
        daemon.kill()
    with left_state(directory) as state:
        assert state.life.claimed
        state.life.claimed = False
        state.life.quiesced = quiesced
    with sim.serve(base):
        if quiesced:
            wait_until_released(console)
            assert told(base, "resume")["state"] == "serving"
        build(console)
        assert console.state()["owner"] is not None
        assert console.state()["protected"] == TABLES
        assert console.run(0, "load", SCRATCH, 4) == 0x1234


def test_a_recording_ends_with_its_daemon(tmp_path: Path, sim: SimProcess, base: Path) -> None:
    trace = tmp_path / "trace.gz"
    with sim.serve(base) as daemon:
        told(base, "record", trace)
        daemon.kill()
    with sim.serve(base) as daemon:
        status = told(base, "status")
        assert status["recording"] is None
        cut = status["recording_cut"]
        assert (cut["file"], cut["cut"], cut["events"], cut["complete"]) == (str(trace), "killed", None, False)
        assert status["counters"]["cut_recordings"] == 1
        for command in (["record"], ["record", "--stop"], ["status"]):
            result = CliRunner().invoke(main, [*command, "--domid", "1", "--run-dir", str(base)])
            assert f"the recording to {trace} ended by itself: the daemon that recorded died" in result.output
        told(base, "record", tmp_path / "second")
        assert told(base, "record", "--stop")["cut"] is None
        said = daemon.kill()
    assert events(said)["record.cut"]["file"] == str(trace)
    with sim.serve(base) as daemon:  # that one was over
        assert told(base, "status")["recording_cut"] is None


def test_page_tables_that_kill_who_reads_them(sim: SimProcess, console: Console, base: Path, directory: Path) -> None:
    """After so many deaths a successor leaves the shadows to the next submission; the one after it tries again."""
    live_and_die(sim, console, base)
    for deaths, shadowed in ((MOST_REBUILDS - 1, True), (MOST_REBUILDS, False)):
        with left_state(directory) as state:
            assert state.life.rebuilds == 0
            state.life.rebuilds = deaths
        with sim.serve(base) as daemon:
            if shadowed:
                assert walked_once_rebuilt(base, 0) == DATA * FRAME
            else:
                (space,) = told(base, "walk", 0)["spaces"]
                assert space["page"] is None
            assert console.state()["protected"] == (TABLES if shadowed else [])
            (space,) = told(base, "walk", 0, "--sync")["spaces"]
            assert space["page"]["gpa"] == DATA * FRAME
            assert ("state.not_rebuilt" in events(daemon.kill())) != shadowed
    with sim.serve(base):
        assert walked_once_rebuilt(base, 0) == DATA * FRAME


def test_a_dead_one_with_two_references(sim: SimProcess, console: Console, base: Path) -> None:
    """What was announced twice lives until it is taken back twice."""
    destroy = (0, "store", DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, int(reg.Notification.PPGTT_L4_DESTROY))
    with sim.serve(base) as daemon:
        build(console)
        announce(console, L4)
        daemon.kill()
    for refs in (2, 1):
        with sim.serve(base) as daemon:
            assert [space["refs"] for space in told(base, "spaces")] == [refs]
            console.run(*destroy)
            daemon.kill()
    with sim.serve(base):
        assert told(base, "spaces") == []
