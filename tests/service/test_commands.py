"""`reap`, `start` and `create` on their command lines."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner, Result

from xengt_dm.cli import create, reap, start
from xengt_dm.errors import ConfigError
from xengt_dm.service import instances, toolstack

DOMID = 7


class Store:
    """A store with these domains."""

    domids: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def exists(self, path: str) -> bool:
        return int(path.rpartition("/")[2]) in self.domids


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(instances, "forget", found.append)
    monkeypatch.setattr("xengt_dm.xenstore.XenStore", Store)
    return found


def run_reap(base: Path) -> Result:
    return CliRunner().invoke(reap.command, ["--domid", str(DOMID), "--run-dir", str(base)])


def test_a_domain_that_is_gone_is_forgotten(tmp_path: Path, forgotten: list[int]) -> None:
    result = run_reap(tmp_path)
    assert (result.exit_code, forgotten) == (0, [DOMID])
    assert "domain 7 is gone" in result.output


def test_after_an_orderly_end_there_is_nothing_to_do(
    tmp_path: Path, forgotten: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "domids", frozenset({DOMID}))
    (tmp_path / str(DOMID)).mkdir()
    result = run_reap(tmp_path)
    assert (result.exit_code, forgotten) == (0, [])
    assert "nothing of a daemon is left" in result.output


def test_what_a_dead_daemon_left_is_released(
    tmp_path: Path, forgotten: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "domids", frozenset({DOMID}))
    released: list[int] = []
    monkeypatch.setattr(reap, "_release", lambda domid, _: released.append(domid))
    (tmp_path / str(DOMID)).mkdir()
    (tmp_path / str(DOMID) / "server-id").write_text("3\n")
    result = run_reap(tmp_path)
    assert (result.exit_code, forgotten, released) == (0, [], [DOMID])


def test_a_live_daemon_is_not_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reap, "ask", lambda *_: {})
    result = run_reap(tmp_path)
    assert isinstance(result.exception, ConfigError)
    assert "xengt-dm stop --domid 7" in str(result.exception)


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
    monkeypatch.setattr(instances, "remember", lambda *_: None)
    config = tmp_path / "guest.cfg"
    config.write_text(f'name = "guest"\n{text}')
    assert CliRunner().invoke(create.command, [str(config), *words]).output == said
    answer = json.loads(CliRunner().invoke(create.command, [str(config), "--json", *words]).output)
    assert answer == {"domid": DOMID, "name": "guest", "served": not text, "paused": bool(words)}
