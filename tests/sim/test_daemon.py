"""A daemon on a sim, whole: what an operator sees of it, and what a SIGKILL leaves to its successor."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.scraping import get, serving_http
from tests.support.sim import SimProcess, environment
from tests.support.sim_space import DATA, L1, L2, L3, L4, TABLES, announce, build, told, walked, walked_once_rebuilt
from tests.support.tables import FRAME, address, pte
from xengt_dm._core import ffi
from xengt_dm._core import lib as core
from xengt_dm._embedded import lib
from xengt_dm.cli import main
from xengt_dm.errors import ExitCode
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.vgpu import registers as reg


def test_an_operator_sees_what_the_guest_does(tmp_path: Path, base: Path) -> None:
    with (
        SimProcess(tmp_path / "sim", "--guest", "scripted", domid=5) as sim,
        sim.console() as console,
        sim.serve(base) as daemon,
    ):
        build(console)
        assert console.run(0, "load", DEFAULT_BAR0 + reg.PVINFO, 8) == reg.PVINFO_MAGIC
        assert console.state()["protected"] == TABLES
        console.run(1, "store", address(L1, 1), 8, pte(L2))

        status = told(base, "status", domid=5)
        assert (status["domid"], status["vcpus"], status["counters"]["store_traps"]) == (5, 2, 1)
        assert [space["root"] for space in told(base, "spaces", domid=5)] == [L4 * FRAME]
        assert walked(base, FRAME, domid=5) == L2 * FRAME
        assert told(base, "audit", domid=5)["audit_mismatches"] == 0

        status, _ = daemon.stop()
        assert status == ExitCode.OK
        left = console.state()
        assert (left["protected"], left["owner"], left["device_models"]) == ([], None, 0)
        assert not (base / "5" / "server-id").exists()
        console.run(1, "store", address(L1, 1), 8, pte(DATA))
        assert console.run(1, "load", address(L1, 1), 8) == pte(DATA)
        assert console.state()["counters"]["dropped_stores"] == 0


@pytest.mark.parametrize("rep_stores", [False, True])
def test_a_successor_answers_what_waits(tmp_path: Path, base: Path, rep_stores: bool) -> None:
    """One store waits in a slot, and one vCPU stores into a table that nobody serves any more."""
    more = ["--rep-stores"] if rep_stores else []
    with (
        SimProcess(tmp_path / "sim", "--guest", "scripted", *more) as sim,
        sim.console() as console,
        sim.console() as first,
        sim.console() as second,
    ):
        with sim.serve(base) as daemon:
            build(console)
            daemon.kill()
        first.begin(0, "store", address(L1, 1), 8, pte(L2))
        second.begin(1, "store", address(L1, 2), 8, pte(L3))
        for vcpu in range(2):
            assert console.ask("wait_phase", vcpu=vcpu, phase=lib.XD_PHASE_BLOCKED, seconds=20) == 0
        assert console.state()["device_models"] == 0
        with sim.serve(base) as daemon:
            first.receive()
            second.receive()
            announce(console)
            assert walked_once_rebuilt(base, FRAME) == L2 * FRAME
            assert walked_once_rebuilt(base, 2 * FRAME) == L3 * FRAME
            assert told(base, "audit")["audit_mismatches"] == 0
            status, said = daemon.stop()
        assert status == ExitCode.OK, said
        left = console.state()
        assert (left["protected"], left["owner"], left["counters"]["dropped_stores"]) == ([], None, 0)


def test_a_guest_that_stores_for_ever_outlives_its_daemons(tmp_path: Path, base: Path) -> None:
    with SimProcess(tmp_path / "sim", "--guest", "stores") as sim, sim.console() as console:
        rounds = 0
        for _ in range(4):
            with sim.serve(base) as daemon:
                rounds += 1
                progress = console.ask("wait_for_rounds", rounds=rounds)
                rounds = max(rounds, progress["least_rounds"])
                daemon.kill()
        with sim.serve(base) as daemon:
            # A life of a space after the last kill: its announcement, and the check of all that was stored.
            progress = console.ask("wait_for_rounds", rounds=rounds + 9)
            assert progress["fault"] is None
            assert told(base, "audit")["audit_mismatches"] == 0
            status, said = daemon.stop()
        assert status == ExitCode.OK, said
        left = console.state()
        assert (left["protected"], left["owner"]) == ([], None)
        status, said = sim.end()
        assert (status, said) == (0, "")


def test_the_command_says_how_the_domain_is_served(tmp_path: Path) -> None:
    with SimProcess(tmp_path / "sim", domid=9) as sim:
        assert f"xengt-dm run --sim {tmp_path / 'sim'} --domid 9" in sim.line
        assert sim.end() == (0, "")
    assert list((tmp_path / "sim").iterdir()) == []


def test_a_domain_has_one_sim(tmp_path: Path) -> None:
    with SimProcess(tmp_path / "sim", domid=9):
        result = CliRunner().invoke(main, ["sim", "--dir", str(tmp_path / "sim"), "--domid", "9"])
        assert result.exit_code == ExitCode.BUSY


def test_no_sim_has_the_domain(tmp_path: Path, base: Path) -> None:
    with SimProcess(tmp_path / "sim", domid=9):
        words = ["run", "--sim", str(tmp_path / "sim"), "--domid", "8", "--run-dir", str(base)]
        result = CliRunner().invoke(main, words)
    assert result.exit_code == ExitCode.NO_DOMAIN


def test_a_successor_answers_what_was_begun(tmp_path: Path, base: Path) -> None:
    """The predecessor took a store, wrote it to memory, and died before its answer."""
    with (
        SimProcess(tmp_path / "sim", "--guest", "scripted") as sim,
        sim.console() as console,
        sim.console() as cpu,
    ):
        with sim.serve(base) as daemon:
            build(console)
            daemon.kill()
        cpu.begin(0, "store", address(L1, 1), 8, pte(L2))
        assert console.ask("wait_phase", vcpu=0, phase=lib.XD_PHASE_BLOCKED, seconds=20) == 0
        port = sim.port()
        page = ffi.cast("char *", port.map_slots(0))
        taken = ffi.new("xd_taken[]", core.XD_SLOTS_PER_PAGE)
        assert core.xd_slots_take(page, 2, False, taken, ffi.NULL, ffi.NULL) == 1
        assert core.xd_slot_state(page, 0) == core.XD_STATE_INPROCESS
        console.ask("write", gpa=address(L1, 1), data=pte(L2).to_bytes(8, "little").hex())
        port.close()
        with sim.serve(base):
            cpu.receive()
            assert console.run(0, "load", address(L1, 1), 8) == pte(L2)
            announce(console)
            assert walked_once_rebuilt(base, FRAME) == L2 * FRAME


def test_a_daemon_on_a_sim_has_nothing_of_the_embedded_hypervisor(tmp_path: Path, base: Path) -> None:
    with SimProcess(tmp_path / "sim") as sim, sim.serve(base) as daemon:
        libraries = Path(f"/proc/{daemon.process.pid}/maps").read_text()
        assert "_core." in libraries
        assert "_embedded." not in libraries
        assert "_xen." not in libraries


def test_a_daemon_whose_sim_ends(tmp_path: Path, base: Path) -> None:
    with SimProcess(tmp_path / "sim") as sim, sim.serve(base, "--set", "domain.check_interval_ms=50") as daemon:
        sim.process.kill()
        said = daemon.process.communicate(timeout=60)[1]
        assert (daemon.process.returncode, "domain gone" in said) == (ExitCode.OK, True), said


def test_a_domain_that_ends(tmp_path: Path, base: Path) -> None:
    with (
        SimProcess(tmp_path / "sim", "--guest", "scripted") as sim,
        sim.console() as console,
        sim.serve(base, "--set", "domain.check_interval_ms=50") as daemon,
    ):
        build(console)
        console.ask("destroy")
        said = daemon.process.communicate(timeout=60)[1]
        assert (daemon.process.returncode, "domain gone" in said) == (ExitCode.OK, True), said


def test_the_exporter_finds_it(tmp_path: Path, base: Path) -> None:
    with (
        SimProcess(tmp_path / "sim", "--guest", "scripted", domid=3) as sim,
        sim.console() as console,
        sim.serve(base),
        serving_http(base) as server,
    ):
        build(console)
        console.run(1, "store", address(L1, 1), 8, pte(L2))
        metrics = get(server.server_port).decode()
    assert 'xengt_up{domid="3"} 1.0' in metrics


def test_an_instance_in_the_background(tmp_path: Path, base: Path) -> None:
    with SimProcess(tmp_path / "sim", "--guest", "scripted") as sim, sim.console() as console:
        words = ["--domid", "1", "--run-dir", str(base)]
        for _ in range(2):
            command = [sys.executable, "-m", "xengt_dm", "start", "--sim", str(tmp_path / "sim"), *words]
            started = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
            assert (started.returncode, started.stdout) == (0, "domain 1 is served\n"), started.stderr
        build(console)
        assert told(base, "status")["counters"]["tables"] == 4
        result = CliRunner().invoke(main, ["stop", *words])
        assert result.exit_code == 0, result.output
        assert console.state()["owner"] is None
        assert "daemon.serving" in (tmp_path / "sim" / "1.log").read_text()


@pytest.mark.parametrize("options", [("--frames", "4096"), ("--frames", "1048576", "--vcpus", "17")])
def test_a_domain_that_the_guest_cannot_run_on(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, ["sim", "--dir", str(tmp_path), "--guest", "stores", *options])
    assert result.exit_code == ExitCode.USAGE


def test_the_record_of_another_domain_with_this_id_is_not_believed(tmp_path: Path, base: Path) -> None:
    directory = tmp_path / "sim"
    records = []
    for _ in range(2):
        with SimProcess(directory, "--guest", "scripted") as sim, sim.console() as console:
            port = sim.port()
            port.create_server()  # of somebody else, with the number that the record names
            with sim.serve(base) as daemon:
                records.append((base / "1" / "server-id").read_text().split())
                assert records[-1][1] == port.uuid
                build(console)
                assert walked(base, 0) == DATA * FRAME
                daemon.kill()
            port.close()
            sim.end(signal.SIGKILL)
    assert records[0][0] == records[1][0] == "1"
    assert records[0][1] != records[1][1]
