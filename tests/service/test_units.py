"""The units of systemd, judged by systemd itself."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest

from xengt_dm.errors import ExitCode
from xengt_dm.service.backoff import FINAL
from xengt_dm.service.sandbox import READERS
from xengt_dm.service.watch import STEPS_AT_MOST

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("*.s*") if path.suffix in (".service", ".slice"))
SERVICES = [name for name in UNITS if name.endswith(".service")]
#: Tenths; issue: 1.5 at most.
WORST_EXPOSURE = 15


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The units as they are installed, but for a stand-in for the program, which a verifier wants to see."""
    program = tmp_path / "xengt-dm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in UNITS:
        text = (SYSTEMD / name).read_text().replace("/usr/bin/xengt-dm", str(program))
        (tmp_path / name.replace("@.", "@3.")).write_text(text)
    return tmp_path


def analyze(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = ["systemd-analyze", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_has_nothing_to_say(name: str, folder: Path) -> None:
    done = analyze("verify", "--man=no", f"./{name.replace('@.', '@3.')}", cwd=folder)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_exposure(name: str, folder: Path) -> None:
    unit = f"./{name.replace('@.', '@3.')}"
    done = analyze("security", "--offline=true", f"--threshold={WORST_EXPOSURE}", unit, cwd=folder)
    assert done.returncode == 0, done.stdout
    assert re.search(r"Overall exposure level for \S+: [01]\.\d", done.stdout)


def test_a_bare_service_is_too_exposed(folder: Path) -> None:
    """The judge would be worth nothing if it found everything good."""
    (folder / "bare.service").write_text("[Service]\nExecStart=/bin/true\n")
    done = analyze("security", "--offline=true", f"--threshold={WORST_EXPOSURE}", "./bare.service", cwd=folder)
    assert done.returncode != 0


def service(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(SYSTEMD / name)
    return parser["Service"]


def test_what_no_restart_mends_is_not_restarted() -> None:
    instance = service("xengt-dm@.service")
    assert {int(word) for word in instance["RestartPreventExitStatus"].split()} == FINAL
    assert instance["Restart"] == "on-failure"
    assert ExitCode.INTERNAL not in FINAL
    assert ExitCode.UNAVAILABLE not in FINAL


def test_a_handover_is_followed_by_a_start() -> None:
    instance = service("xengt-dm@.service")
    assert instance["RestartForceExitStatus"] == instance["SuccessExitStatus"] == str(int(ExitCode.HANDOVER))
    assert ExitCode.HANDOVER not in FINAL
    assert instance["RestartSec"] == "50ms"
    assert "--backoff" in instance["ExecStart"].split()
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.read(SYSTEMD / "xengt-dm@.service")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.parametrize(
    ("result", "status", "reaped"),
    [
        ("success", "0", True),
        ("success", "TERM", True),
        ("success", "79", False),
        ("signal", "KILL", False),
        ("core-dump", "SEGV", False),
        ("watchdog", "ABRT", False),
        ("oom-kill", "KILL", False),
        ("timeout", "KILL", True),
        ("exit-code", "68", True),
        ("exit-code", "70", True),
        ("protocol", "", True),
    ],
)
def test_what_runs_before_a_successor_is_started(tmp_path: Path, result: str, status: str, reaped: bool) -> None:
    """systemd waits for it, and so does a vCPU. ``status``: $EXIT_STATUS, which a daemon that never ran has none of."""
    said, nsenter = tmp_path / "said", tmp_path / "nsenter"
    nsenter.write_text(f'#!/bin/sh\necho "$*" > {said}\n')
    nsenter.chmod(0o755)
    command = service("xengt-dm@.service")["ExecStopPost"]
    assert command.startswith("-+/bin/sh -c '")
    program = command.removeprefix("-+/bin/sh -c '").removesuffix("'").replace("/usr/bin/nsenter", str(nsenter))
    for name, value in (("${SERVICE_RESULT}", result), ("${EXIT_STATUS}", status), ("%i", "3")):
        program = program.replace(name, value)
    subprocess.run(["sh", "-e", "-c", program], check=True)
    wanted = f"--target 1 --mount -- /usr/bin/xengt-dm reap --domid 3 --after {result}\n"
    assert (said.read_text() if said.exists() else None) == (wanted if reaped else None)


def test_readers_of_stats_pages_are_the_exporter_alone() -> None:
    assert service("xengt-dm-exporter.service")["Group"] == READERS
    assert service("xengt-dm@.service")["Group"] == READERS
    assert re.search(rf"^u {READERS} ", (SYSTEMD / "xengt-dm.sysusers").read_text(), re.MULTILINE)


def test_the_watcher_may_have_as_many_tasks_as_it_needs() -> None:
    """Its main thread, and a thread and a program of systemd's for each step; some more for what a library does."""
    limit = re.search(r"^TasksMax=(\d+)$", (SYSTEMD / "xengt-dm-watch.service").read_text(), re.M)
    assert limit
    assert int(limit[1]) >= 2 * STEPS_AT_MOST + 8
