"""`reap`, `start` and `create` on their command lines."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner, Result

from xengt_dm.cli import create, reap, start
from xengt_dm.control.protocol import ControlError, RefusedError
from xengt_dm.errors import BusyError, ExitCode, HostError
from xengt_dm.run_dir.directory import open_directory
from xengt_dm.service import instances, toolstack

DOMID = 7
UUID = "0f8a3c1e-0000-4000-8000-00000000000a"
OTHER = "0f8a3c1e-0000-4000-8000-00000000000b"


class Store:
    """A store with these domains."""

    domids: frozenset[int] = frozenset()
    uuid = UUID

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def exists(self, path: str) -> bool:
        return int(path.rpartition("/")[2]) in self.domids

    def read(self, path: str) -> str:
        assert path == f"/local/domain/{DOMID}/vm"
        return f"/vm/{self.uuid}"


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(instances, "forget", found.append)
    monkeypatch.setattr("xengt_dm.xenstore.XenStore", Store)
    return found


def run_reap(base: Path, *words: str) -> Result:
    return CliRunner().invoke(reap.command, ["--domid", str(DOMID), "--run-dir", str(base), *words])


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(reap, "_release", lambda domid, _: found.append(domid))
    return found


def leave(base: Path, **files: str) -> Path:
    """A run directory as a daemon that was killed leaves it; the socket has nobody behind it."""
    directory = base / str(DOMID)
    directory.mkdir()
    for name, text in files.items():
        (directory / name.replace("_", "-")).write_text(text)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "control.sock"))
    return directory


def test_a_domain_that_is_gone_is_forgotten(tmp_path: Path, forgotten: list[int]) -> None:
    result = run_reap(tmp_path)
    assert (result.exit_code, forgotten) == (0, [DOMID])
    assert "domain 7 is gone" in result.output


def test_after_an_orderly_end_there_is_nothing_to_do(
    tmp_path: Path, forgotten: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "domids", frozenset({DOMID}))
    result = run_reap(tmp_path)
    assert (result.exit_code, forgotten) == (0, [])
    assert "nothing of a daemon is left" in result.output


def test_what_a_dead_daemon_left_is_released(
    tmp_path: Path, forgotten: list[int], ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "domids", frozenset({DOMID}))
    (tmp_path / str(DOMID)).mkdir()
    (tmp_path / str(DOMID) / "server-id").write_text("3\n")
    result = run_reap(tmp_path)
    assert (result.exit_code, forgotten, ended) == (0, [], [DOMID])
    assert "released its ioreq server 3" in result.output
    assert f"removed {tmp_path}/7 with server-id" in result.output
    assert not (tmp_path / str(DOMID)).exists()


def test_of_many_files_only_some_are_told(tmp_path: Path, forgotten: list[int]) -> None:
    """Whoever had taken over the daemon may have left a million of them."""
    for number in range(1500):
        (open_directory(tmp_path, DOMID) / f"{number:04}").touch()
    assert run_reap(tmp_path).output.splitlines()[0] == (
        f"domain 7: removed {tmp_path}/7 with {', '.join(f'{number:04}' for number in range(20))}, 1,480 more"
    )


def test_a_live_daemon_is_not_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reap, "ask", lambda *_: {})
    result = run_reap(tmp_path)
    assert isinstance(result.exception, BusyError)
    assert result.exception.exit_code is ExitCode.BUSY
    assert "xengt-dm stop --domid 7" in str(result.exception)


@pytest.mark.parametrize("error", [ControlError("it does not answer"), RefusedError("quiesced", "no")])
def test_nor_is_one_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ControlError) -> None:
    def ask(*_: object) -> None:
        raise error

    monkeypatch.setattr(reap, "ask", ask)
    directory = leave(tmp_path, server_id="3")
    result = run_reap(tmp_path)
    assert isinstance(result.exception, BusyError)
    assert "systemctl kill -s KILL xengt-dm@7" in str(result.exception)
    assert (directory / "server-id").exists()


def test_of_a_domain_that_is_gone_nothing_is_left(tmp_path: Path, forgotten: list[int], ended: list[int]) -> None:
    directory = leave(tmp_path, server_id=f"0 {UUID}", stats="x" * 4096)
    (directory / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (directory / "a\x1b[2J").mkdir()
    result = run_reap(tmp_path)
    assert (result.exit_code, forgotten, ended) == (0, [DOMID], [])
    assert f"removed {tmp_path}/7 with a\\x1b[2J, control.sock, link, server-id, stats\n" in result.output
    assert "domain 7 is gone; nothing of it is left" in result.output
    assert not directory.exists()
    assert (tmp_path / "precious" / "file").exists()


def test_the_server_of_another_domain_is_left_alone(
    tmp_path: Path, forgotten: list[int], ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "domids", frozenset({DOMID}))
    directory = leave(tmp_path, server_id=f"0 {OTHER}")
    result = run_reap(tmp_path)
    assert (result.exit_code, forgotten, ended) == (0, [], [])
    assert "is that of an earlier domain with this id; left alone" in result.output
    assert not directory.exists()


def test_a_store_that_does_not_answer_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Store):
        def exists(self, path: str) -> bool:
            raise HostError("xenstore directory", None, errno.ETIMEDOUT)

    forgotten: list[int] = []
    monkeypatch.setattr(instances, "forget", forgotten.append)
    monkeypatch.setattr("xengt_dm.xenstore.XenStore", Silent)
    directory = leave(tmp_path, server_id=f"0 {UUID}")
    for words in ([], ["--after", "success"], ["--after", "timeout"]):
        result = run_reap(tmp_path, *words)
        assert isinstance(result.exception, HostError)
        assert (forgotten, directory.exists()) == ([], True)


@pytest.mark.parametrize(
    ("there", "server_id", "result", "removed", "released_now"),
    [
        (False, f"3 {UUID}", "success", True, False),
        (False, f"3 {UUID}", "signal", True, False),
        (True, "", "success", True, False),
        (True, f"3 {UUID}", "success", True, True),  # SIGTERM came before it served
        (True, f"3 {UUID}", "timeout", True, True),
        (True, f"3 {UUID}", "signal", False, False),
        (True, f"3 {UUID}", "watchdog", False, False),
        (True, f"3 {UUID}", "exit-code", False, False),
        (True, "", "exit-code", False, False),
    ],
)
def test_after_each_end_of_a_unit(
    tmp_path: Path,
    forgotten: list[int],
    ended: list[int],
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    server_id: str,
    result: str,
    removed: bool,
    released_now: bool,
) -> None:
    monkeypatch.setattr(Store, "domids", frozenset({DOMID} if there else ()))
    directory = leave(tmp_path, **({"server_id": server_id} if server_id else {}))
    assert run_reap(tmp_path, "--after", result).exit_code == 0
    assert (not directory.exists(), bool(ended), bool(forgotten)) == (removed, released_now, not there)


def test_releasing_is_done_by_a_process_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It gives up being root; what it says and its status come through."""

    def release(domid: int, base: Path) -> None:
        Path(base / "pid").write_text(str(os.getpid()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reap, "_release_confined", release)
        reap._release(DOMID, tmp_path)
        assert (tmp_path / "pid").read_text() != str(os.getpid())

        def fail(domid: int, base: Path) -> None:
            raise HostError("open", domid, errno.EACCES)

        patch.setattr(reap, "_release_confined", fail)
        with pytest.raises(SystemExit) as caught:
            reap._release(DOMID, tmp_path)
    assert caught.value.code == ExitCode.PERMISSION
    assert "open for domain 7: EACCES" in capfd.readouterr().err


class Starter:
    """Starts nothing, and says what it was asked for."""

    def __init__(self) -> None:
        self.started: list[int] = []

    def start(self, domid: int) -> None:
        self.started.append(domid)

    def stop(self, domid: int) -> None: ...


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch) -> Starter:
    made = Starter()
    monkeypatch.setattr(instances, "starter", lambda: made)
    return made


def test_start(tmp_path: Path, starter: Starter) -> None:
    words = ["--domid", str(DOMID), "--run-dir", str(tmp_path)]
    assert CliRunner().invoke(start.command, words).output == "domain 7 is served\n"
    assert starter.started == [DOMID]


def test_start_of_one_that_died(tmp_path: Path, starter: Starter) -> None:
    """Its socket is still there, and nobody listens."""
    (tmp_path / str(DOMID)).mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / str(DOMID) / "control.sock"))
    CliRunner().invoke(start.command, ["--domid", str(DOMID), "--run-dir", str(tmp_path)])
    assert starter.started == [DOMID]


def test_start_of_one_that_serves(tmp_path: Path, starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "ask", lambda *_: {})
    CliRunner().invoke(start.command, ["--domid", str(DOMID), "--run-dir", str(tmp_path)])
    assert starter.started == []


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("", [], "domain 7 (guest) is served and runs\n"),
        ("", ["--paused"], "domain 7 (guest) is served and is paused\n"),
        ("xengt = 0\n", [], "domain 7 (guest) has no GPU, as its file says, and runs\n"),
    ],
)
def test_create(
    tmp_path: Path, starter: Starter, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str], said: str
) -> None:
    monkeypatch.setattr(toolstack.Xl, "_run", lambda *_, **__: str(DOMID))
    monkeypatch.setattr(instances, "remember", lambda *_, **__: None)
    config = tmp_path / "guest.cfg"
    config.write_text(f'name = "guest"\n{text}')
    assert CliRunner().invoke(create.command, [str(config), *words]).output == said
    answer = json.loads(CliRunner().invoke(create.command, [str(config), "--json", *words]).output)
    assert answer == {"domid": DOMID, "name": "guest", "served": not text, "paused": bool(words)}
