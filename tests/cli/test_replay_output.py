"""Where `replay` writes its dumps, and what is there when it fails."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.test_edges import PROGRAM, TRACE, shell
from xengt_dm.cli import main, replay
from xengt_dm.errors import ExitCode


def test_a_dump_that_is_full() -> None:
    done = shell(f"{PROGRAM} replay {TRACE} --dump /dev/full")
    assert done.returncode == ExitCode.DATA
    assert "/dev/full: cannot be written: No space left on device" in done.stderr


def test_minus_is_the_standard_stream(tmp_path: Path) -> None:
    by_name = shell(f"cd {tmp_path} && {PROGRAM} replay {TRACE} --dump named.json")
    piped = shell(f"cd {tmp_path} && {PROGRAM} replay - --dump - < {TRACE}")
    assert (piped.returncode, piped.stderr) == (0, by_name.stdout)
    assert json.loads(piped.stdout) == json.loads((tmp_path / "named.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["named.json"]


def test_a_replay_as_json(tmp_path: Path) -> None:
    dump = tmp_path / "dump.json"
    done = shell(f"{PROGRAM} replay {TRACE} --json --mode relaxed --dump {dump}")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    dumped = json.loads(dump.read_text())
    assert told == {
        "mode": "relaxed",
        "events": len(TRACE.read_text().splitlines()) - 1,
        "dumps": len(dumped["dumps"]),
        "counters": dumped["counters"],
    }
    done = shell(f"{PROGRAM} replay {TRACE} --json --dump -")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "both write to standard output" in done.stderr


def test_a_dump_is_opened_before_the_work(tmp_path: Path) -> None:
    """And told of first: the trace that would be read before is none."""
    (tmp_path / "bad.jsonl").write_text("what?\n")
    done = shell(f"{PROGRAM} replay {tmp_path}/bad.jsonl --dump {tmp_path}/none/dump.json")
    assert done.returncode == ExitCode.DATA
    assert "none/dump.json: cannot be written: No such file or directory" in done.stderr


def test_work_that_fails_leaves_the_dump_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("what?\n")
    (tmp_path / "old.json").write_text("old")
    for name in ("old.json", "new.json"):
        assert shell(f"{PROGRAM} replay {tmp_path}/bad.jsonl --dump {tmp_path}/{name}").returncode == ExitCode.DATA
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "old.json"]
    assert (tmp_path / "old.json").read_text() == "old"
    assert shell(f"{PROGRAM} replay {TRACE} --dump {tmp_path}/old.json").returncode == 0
    assert "dumps" in json.loads((tmp_path / "old.json").read_text())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_leaves_the_dump_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def pieces(value: object) -> Iterator[bytes]:
        yield b"[" * 100_000  # more than a buffer holds
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(replay, "json_pieces", pieces)
    old = tmp_path / "old.json"
    old.write_text("old")
    for name in ("old.json", "new.json"):
        result = CliRunner().invoke(main, ["replay", str(TRACE), "--dump", str(tmp_path / name)])
        assert result.exit_code == ExitCode.DATA
        assert f"{name}: cannot be written: {os.strerror(number)}" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert old.read_text() == "old"


def test_a_dump_keeps_links_and_modes(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    old = tmp_path / "real" / "old.json"
    old.write_text("old")
    old.chmod(0o640)
    link, hanging = tmp_path / "link.json", tmp_path / "hanging.json"
    link.symlink_to("real/old.json")
    hanging.symlink_to("real/new.json")
    for path in (link, hanging):
        assert shell(f"umask 027; {PROGRAM} replay {TRACE} --dump {path}").returncode == 0
        assert path.is_symlink()
        assert "dumps" in json.loads(path.read_text())
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(path.name for path in old.parent.iterdir()) == ["new.json", "old.json"]


def test_a_dump_to_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = shell(f"cat {tmp_path}/pipe > {tmp_path}/read & {PROGRAM} replay {TRACE} --dump {tmp_path}/pipe; wait")
    assert done.returncode == 0
    assert "dumps" in json.loads((tmp_path / "read").read_text())
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert shell(f"{PROGRAM} replay {TRACE} --dump /dev/null").returncode == 0
    done = shell(f"{PROGRAM} replay {TRACE} --dump {tmp_path}")
    assert (done.returncode, done.stderr) == (
        ExitCode.DATA,
        f"xengt-dm: {tmp_path}: cannot be written: Is a directory\n",
    )


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_dump_to_standard_output_by_name(tmp_path: Path, name: str) -> None:
    """Also if it is a file, which then has what was in it before."""
    out = tmp_path / "out"
    out.write_text("before\n")
    assert shell(f"{PROGRAM} replay {TRACE} --dump {name} >> {out}").returncode == 0
    first, dumps = out.read_text().splitlines()
    assert first == "before"
    assert "dumps" in json.loads(dumps)
    assert shell(f"{PROGRAM} replay {TRACE} --json --dump {name}").returncode == ExitCode.USAGE


def test_a_dump_to_another_descriptor_by_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = shell(f"exec 3> {out}; echo first >&3; {PROGRAM} replay {TRACE} --dump /dev/fd/3; echo last >&3")
    assert done.returncode == 0
    first, dumps, last = out.read_text().splitlines()
    assert (first, last) == ("first", "last")
    assert "dumps" in json.loads(dumps)
