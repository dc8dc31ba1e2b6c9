"""The commands that ask a daemon, asked of one that serves: for people, and with --json."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support import daemon_process
from tests.support.daemon_process import DOMID, FRAMES, SOME
from tests.support.machine import L1, L4
from tests.support.tables import FRAME
from xengt_dm import __version__
from xengt_dm.cli import client, main
from xengt_dm.errors import ExitCode
from xengt_dm.trace.read import read_trace


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run directory of a daemon whose guest has announced one space and stored to its page table."""
    base = tmp_path_factory.mktemp("run")
    with started(base) as process:
        yield base
        process.terminate()
        assert process.wait(60) == 0


def started(base: Path) -> subprocess.Popen[str]:
    process = daemon_process.start(base, "strict", "quiet", stderr=subprocess.DEVNULL)
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


def test_a_recording(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    assert run(base, "record").output == "nothing is being recorded\n"
    started = run(base, "record", file, "--max-mib", "5", "--max-minutes", "1").output
    assert re.fullmatch(rf"recording to {file}, \d+ events? so far\n", started)
    assert f"\nrecording to {file}\n" in run(base, "status").output
    stopped = run(base, "record", "--stop").output
    assert re.fullmatch(rf"recorded \d+ events to {file}\n", stopped)
    assert "record" not in run(base, "status").output
    assert read_trace(file)[1]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--max-mib", "0", "x"], ExitCode.USAGE),
        (["--max-minutes", "5"], ExitCode.USAGE),
        (["/dev/null"], ExitCode.DATA),
        (["FIFO"], ExitCode.DATA),
        (["--stop"], ExitCode.USAGE),
    ],
)
def test_recordings_that_are_refused(base: Path, tmp_path: Path, words: list[str], status: ExitCode) -> None:
    os.mkfifo(tmp_path / "fifo")
    result = run(base, "record", *(str(tmp_path / "fifo") if word == "FIFO" else word for word in words))
    assert result.exit_code == status
    assert told(base, "status")["recording"] is None


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
    assert told(base, "spaces") == [{"mode": "l4", "root": L4 * FRAME, "refs": 1}]
    assert f"l4    {L4 * FRAME:#x}" in run(base, "spaces").output


@pytest.mark.parametrize("more", [[], ["--mode", "l4"], ["--root", hex(L4 * FRAME)], ["--root", str(L4 * FRAME)]])
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
    assert (space["mode"], space["root"]) == ("l4", L4 * FRAME)
    assert dump["audit_mismatches"] == 0
    first = space["mappings"][0]
    assert first == [FRAME, (FRAMES - 1) * FRAME, FRAME, 1, 0]
    assert sum(run[1] for run in space["mappings"]) == SOME * FRAME
    text = run(base, "dump").output
    assert f"l4 {L4 * FRAME:#x}" in text


def test_audit(base: Path) -> None:
    audit = told(base, "audit")
    assert audit["audit_mismatches"] == 0
    assert "the shadow says what the guest's tables say" in run(base, "audit").output


@pytest.mark.parametrize("words", [("walk", "0"), ("dump",), ("audit",)])
def test_looking_changes_nothing_unless_told_to_sync(base: Path, words: tuple[str, ...]) -> None:
    def counters() -> dict[str, int]:
        counted: dict[str, int] = told(base, "status")["counters"]
        return {name: value for name, value in counted.items() if not name.startswith("audit")}

    before = counters()
    told(base, *words)
    assert counters() == before
    told(base, *words, "--sync")
    assert counters() == {**before, "submissions": before["submissions"] + 1}


def answering(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[dict[str, Any]]:
    """Have a daemon give this answer to whatever is asked; what was asked."""
    asked: list[dict[str, Any]] = []

    def ask(base: Path, domid: int, command: str, **arguments: Any) -> object:
        asked.append({"command": command, **arguments})
        return answer

    monkeypatch.setattr(client, "ask", ask)
    return asked


def test_an_audit_says_how_many_tables_were_left_out(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"mode": "l4", "root": 4096, "mismatches": 0, "overdue": 0, "unsynced": 3}
    totals = {"audit_mismatches": 0, "audit_overdue": 0, "audit_unsynced": 3}
    asked = answering(monkeypatch, {"spaces": [space], **totals})
    text = run(base, "audit").output
    assert text.splitlines() == [
        "MODE  ROOT    MISMATCHES  OVERDUE  UNSYNCED",
        "l4    0x1000           0        0         3",
        "3 tables left out that may be out of sync; --sync compares them, too",
        "1 space: the shadow says what the guest's tables say",
    ]
    run(base, "audit", "--sync")
    assert asked == [{"command": "audit", "sync": False}, {"command": "audit", "sync": True}]


def test_an_audit_by_a_daemon_that_knows_no_unsynced_tables(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"mode": "l4", "root": 4096, "mismatches": 1, "overdue": 2}
    answering(monkeypatch, {"spaces": [space], "audit_mismatches": 1, "audit_overdue": 2})
    result = run(base, "audit", "--sync")
    assert result.exit_code == ExitCode.DIFFERS
    assert result.output.splitlines()[1:] == [
        "l4    0x1000           1        2         0",
        "1 entry of the shadow and the guest's tables differ",
        "2 entries of the shadow should map something by now",
    ]


@pytest.mark.parametrize("key", ["unsynced", "open"])
def test_protected_says_which_tables_are_unsynced(base: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Under its name of today, and by a daemon that has the older name only."""
    tables = [
        {"gfn": gfn, "level": level, "refs": 1, "open": unsynced, key: unsynced}
        for gfn, level, unsynced in ((3, 2, False), (4, 1, True), (5, 1, False))
    ]
    answering(monkeypatch, {"tables": tables})
    assert run(base, "protected").output.splitlines() == [
        "GFN  LEVEL  REFS  STATE",
        "0x3      2     1  protected",
        "0x4      1     1  unsynced",
        "0x5      1     1  protected",
        "3 tables in 3 frames: 2 protected, 1 unsynced",
    ]


def test_tables_are_protected(base: Path) -> None:
    assert L1 in range(L4, L4 + 4)
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
    assert f"xengt-dm start --domid {DOMID}" in result.output
    (found,) = told(tmp_path, "list")
    assert found["state"] == "dead"
