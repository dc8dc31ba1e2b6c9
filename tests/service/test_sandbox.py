"""Giving up root for good. The restricted handles are in tests/xen/test_life.py and in the lab's `service`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xengt_dm.errors import HostError
from xengt_dm.run_dir.owner import user_of
from xengt_dm.service import sandbox

#: Runs in a process of its own, because there is no way back. Says what it still can do.
PROGRAM = """
import json, os, sys
from pathlib import Path
from xengt_dm.service import sandbox

def can(call, *arguments):
    try:
        call(*arguments)
    except PermissionError:
        return False
    return True

own, other = map(Path, sys.argv[1:])
was_root = sandbox.enter(7, own)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "was_root": was_root,
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(),
    "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")],
    "no_new_privileges": int(status["NoNewPrivs"]),
    "back_to_root": os.getresuid()[0] != 0 and can(os.setuid, 0),
    "own": can((own / "stats").write_text, "mine"),
    "owner": (own / "server-id").lstat().st_uid,
    "other": can((other / "server-id").read_text),
    "memory": can(os.open, "/dev/mem", os.O_RDWR) if Path("/dev/mem").exists() else False,
}))
"""


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and len(parent.parts) > 2:
            parent.chmod(0o755)  # pytest keeps its folders from other users
    for name in ("7", "8"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "server-id").write_text("3\n")
    return tmp_path / "7", tmp_path / "8"


@pytest.fixture
def left(directories: tuple[Path, Path]) -> dict[str, Any]:
    """What a process has left that went in."""
    command = [sys.executable, "-c", PROGRAM, *map(str, directories)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nothing_is_left_but_the_domain(left: dict[str, Any]) -> None:
    root = os.geteuid() == 0
    user = user_of(7) if root else os.geteuid()
    assert left["was_root"] == root
    assert left["uids"] == [user] * 3
    assert left["owner"] == user
    assert left["own"]
    assert left["no_new_privileges"] == 1
    assert left["capabilities"] == [0] * 4
    assert not left["back_to_root"]
    assert not left["memory"]
    if root:
        assert left["groups"] == []
        assert 0 not in left["gids"]
        assert not left["other"]


def test_every_domain_has_a_user_of_its_own() -> None:
    users = [sandbox.user_of(domid) for domid in (0, 1, 0x7FEF)]
    assert len(set(users)) == 3
    assert all(1 << 16 < user < 1 << 31 for user in users)


def test_no_half_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails ends the attempt, whoever we are then."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "no")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda *_, **__: None)
    monkeypatch.setattr(os, "setgroups", refuse)
    monkeypatch.setattr(os, "setresuid", lambda *_: pytest.fail("went on"))
    with pytest.raises(HostError, match="setgroups for domain 7: EPERM: cannot give up root"):
        sandbox.enter(7, tmp_path)
