"""The commands that ask a daemon, asked of one that serves: for people, and with --json."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support import daemon_process
from tests.support.daemon_process import DOMID, FRAME, FRAMES, PT, ROOT, SOME
from xengt_dm import __version__
from xengt_dm.cli import main
from xengt_dm.errors import ExitCode


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run directory of a daemon whose guest has announced one space and stored to its page table."""
    base = tmp_path_factory.mktemp("run")
    with started(base) as process:
        yield base
        process.terminate()
        assert process.wait(60) == 0


def started(base: Path) -> subprocess.Popen[str]:
    program = [sys.executable, daemon_process.__file__, str(base), "strict", "quiet"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "storing\n"
    return process


def run(base: Path, *words: object) -> Result:
    domid = [] if words[0] == "list" else ["--domid", str(DOMID)]
    return CliRunner().invoke(main, [*map(str, words), *domid, "--run-dir", str(base)])


def told(base: Path, *words: object) -> Any:
    result = run(base, *words, "--json")
    assert result.exit_code == ExitCode.OK, result.output
    return json.loads(result.output)


#: The guest's stores 1..SOME: entry n names frame n, modulo the frames that there are, writable.
ENTRY = 70
GPA = ENTRY % FRAMES * FRAME


def test_status(base: Path) -> None:
    status = told(base, "status")
    assert (status["domid"], status["mode"], status["vcpus"], status["version"]) == (DOMID, "strict", 2, __version__)
    counters = status["counters"]
    assert counters["store_traps"] == SOME
    assert counters["traps"] == counters["store_traps"] + counters["mmio_traps"]
    assert counters["protected_pages"] == counters["tables"] == 4
    text = run(base, "status").output
    assert f"domain {DOMID}: served for" in text
    assert "strict shadows, generation 8, 2 vCPUs" in text
    assert "store_traps" in text


def test_list(base: Path) -> None:
    (found,) = told(base, "list")
    assert (found["domid"], found["state"]) == (DOMID, "serving")
    assert "serving" in run(base, "list").output


def test_spaces(base: Path) -> None:
    assert told(base, "spaces") == [{"mode": "l4", "root": ROOT * FRAME, "refs": 1}]
    assert f"l4    {ROOT * FRAME:#x}" in run(base, "spaces").output


@pytest.mark.parametrize("more", [[], ["--mode", "l4"], ["--root", hex(ROOT * FRAME)], ["--root", str(ROOT * FRAME)]])
def test_walk(base: Path, more: list[str]) -> None:
    va = ENTRY * FRAME + 0x123
    (space,) = told(base, "walk", hex(va), *more)["spaces"]
    assert space["page"] == {"va": va, "gpa": GPA + 0x123, "writable": 1, "cache": 0}
    text = run(base, "walk", va, *more).output
    assert f"{GPA + 0x123:#x}" in text
    assert "rw" in text


def test_walk_to_nowhere(base: Path) -> None:
    (space,) = told(base, "walk", "0x7f0000000000")["spaces"]
    assert space["page"] is None
    assert "not mapped" in run(base, "walk", "0x7f0000000000").output


@pytest.mark.parametrize("more", [["--mode", "l3"], ["--root", "0x1000"], ["--root", "1,2,3,4"]])
def test_walk_in_a_space_that_there_is_not(base: Path, more: list[str]) -> None:
    result = run(base, "walk", "0", *more)
    assert result.exit_code == ExitCode.DATA
    assert "no such address space is live" in result.output


def test_dump(base: Path) -> None:
    dump = told(base, "dump")
    (space,) = dump["spaces"]
    assert (space["mode"], space["root"]) == ("l4", ROOT * FRAME)
    assert dump["audit_mismatches"] == 0
    first = space["mappings"][0]
    assert first == [FRAME, (FRAMES - 1) * FRAME, FRAME, 1, 0]
    assert sum(run[1] for run in space["mappings"]) == SOME * FRAME
    text = run(base, "dump").output
    assert f"l4 {ROOT * FRAME:#x}" in text


def test_audit(base: Path) -> None:
    audit = told(base, "audit")
    assert audit["audit_mismatches"] == 0
    assert "the shadow says what the guest's tables say" in run(base, "audit").output


def test_tables_are_protected(base: Path) -> None:
    assert PT in range(ROOT, ROOT + 4)
    assert told(base, "status")["counters"]["protected_pages"] == 4


def test_stop(tmp_path: Path) -> None:
    """Returns when the daemon has ended, and everybody knows."""
    with started(tmp_path) as process:
        assert told(tmp_path, "stop") == {"domid": DOMID, "ended": True}
        out, _ = process.communicate(timeout=60)
    left = json.loads(out)
    assert (left["protected"], left["owner"], left["wrong"]) == ([], None, 0)
    result = run(tmp_path, "status")
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert f"nothing serves domain {DOMID}" in result.output


def test_stop_without_waiting(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        assert "is stopping" in run(tmp_path, "stop", "--no-wait").output
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_a_daemon_that_was_killed_says_so(tmp_path: Path) -> None:
    """Its socket is still there, and nobody behind it: what to do is in the message."""
    with started(tmp_path) as process:
        process.kill()
        process.communicate(timeout=60)
    result = run(tmp_path, "status")
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert f"xengt-dm run --domid {DOMID}" in result.output
    (found,) = told(tmp_path, "list")
    assert found["state"] == "dead"
