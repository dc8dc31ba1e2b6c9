"""`upgrade` on its command line, with stand-ins for daemons and for what starts them; and how `list` shows versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from xengt_dm import __version__
from xengt_dm.cli import list as list_command
from xengt_dm.cli import main, upgrade
from xengt_dm.control import client
from xengt_dm.control.answers import Answer
from xengt_dm.control.client import NotRunningError
from xengt_dm.control.protocol import ErrorCode, RefusedError
from xengt_dm.errors import ExitCode
from xengt_dm.service.instances import InstanceError

OLD = "0.0.9"


class Host:
    """Instances of a host: by domain, the version that serves, or None. It stands in for the starter, too."""

    def __init__(self, served: dict[int, str | None]) -> None:
        self.served = served
        self.asked: list[int] = []
        self.started: list[int] = []
        #: Domains whose daemon knows no upgrade, or does not end; and whose next one does not start.
        self.unable: set[int] = set()
        self.stuck: set[int] = set()
        self.broken: set[int] = set()
        #: How often the service manager says that all is well before it knows that a daemon has ended.
        self.unaware = 0
        self.pause: object = 0.25

    def ask(self, base: Path, domid: int, command: str, **_: object) -> Any:
        assert command == "status"
        version = self.served.get(domid)
        if version is None:
            raise NotRunningError(f"nothing serves domain {domid}", stale=False)
        fields = {"pid": 1000 + domid + 100 * len(self.started), "mode": "strict", "vcpus": 1, "uptime_seconds": 1.0}
        counters = Answer(spaces=0, traps=0)
        pause = self.pause if self.started else None
        return Answer(
            domid=domid, state="serving", version=version, counters=counters, handover_seconds=pause, **fields
        )

    def hand_over(self, base: Path, domid: int, seconds: float) -> bool:
        self.asked.append(domid)
        if domid in self.unable:
            raise RefusedError(ErrorCode.UNKNOWN_COMMAND, "no command 'upgrade' here")
        if domid not in self.stuck:
            self.served[domid] = None
        return domid not in self.stuck

    def start(self, domid: int) -> None:
        if domid in self.broken:
            raise InstanceError(f"domain {domid} does not start")
        self.started.append(domid)
        if len(self.started) > self.unaware:
            self.served[domid] = __version__

    def stop(self, domid: int) -> None:
        raise AssertionError("nothing is stopped")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    made = Host({5: OLD, 7: OLD})
    for domid in made.served:
        (tmp_path / str(domid)).mkdir()
    monkeypatch.setattr(client, "ask", made.ask)
    monkeypatch.setattr(list_command, "ask", made.ask)
    monkeypatch.setattr(client, "hand_over", made.hand_over)
    monkeypatch.setattr(upgrade, "starter_of", lambda sim, base: made)
    return made


def run(base: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--run-dir", str(base)])


def test_domains_one_after_the_other(host: Host, tmp_path: Path) -> None:
    result = run(tmp_path, "upgrade", "7", "5", "7")
    assert (result.exit_code, host.asked, host.started) == (ExitCode.OK, [7, 5], [7, 5])
    assert result.output == (
        f"domain 7: from {OLD} to {__version__}, process 1107; its vCPUs were not served for 0.25 s\n"
        f"domain 5: from {OLD} to {__version__}, process 1205; its vCPUs were not served for 0.25 s\n"
    )


@pytest.mark.parametrize("lie", ["\x1b[2J", -1, True, [], None])
def test_a_time_that_cannot_be_believed(host: Host, tmp_path: Path, lie: object) -> None:
    host.pause = lie
    result = run(tmp_path, "upgrade", "5")
    assert (result.exit_code, result.output) == (ExitCode.OK, f"domain 5: from {OLD} to {__version__}, process 1105\n")


def test_every_domain(host: Host, tmp_path: Path) -> None:
    result = run(tmp_path, "upgrade", "--all", "--json")
    assert result.exit_code == ExitCode.OK
    assert json.loads(result.output) == [
        {"domid": 5, "from": OLD, "to": __version__, "pid": 1105, "unserved_seconds": 0.25},
        {"domid": 7, "from": OLD, "to": __version__, "pid": 1207, "unserved_seconds": 0.25},
    ]


def test_nothing_runs(tmp_path: Path) -> None:
    result = run(tmp_path / "none", "upgrade", "--all")
    assert (result.exit_code, result.output) == (ExitCode.OK, f"no daemon runs (nothing in {tmp_path / 'none'})\n")


@pytest.mark.parametrize("words", [(), ("5", "--all"), ("-1",), ("x",), ("5", "--all", "--json")])
def test_wrong_use(host: Host, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert run(tmp_path, "upgrade", *words).exit_code == ExitCode.USAGE
    assert host.asked == []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("unable", f"it has version {OLD}, which cannot leave a domain"),
        ("stuck", "has not ended within 30 s"),
        ("broken", "domain 5 does not start"),
    ],
)
def test_one_that_fails_does_not_keep_the_others(host: Host, tmp_path: Path, what: str, said: str) -> None:
    getattr(host, what).add(5)
    result = run(tmp_path, "upgrade", "--all")
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert said in result.output
    assert host.started == [7]
    assert result.stdout.startswith(f"domain 7: from {OLD} to {__version__}")


def test_a_domain_that_nobody_serves(host: Host, tmp_path: Path) -> None:
    result = run(tmp_path, "upgrade", "9")
    assert (result.exit_code, host.asked, host.started) == (ExitCode.UNAVAILABLE, [], [])


def test_a_manager_that_does_not_know_yet(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "LOOK_SECONDS", 0.0)
    host.unaware = 3
    assert run(tmp_path, "upgrade", "5").exit_code == ExitCode.OK
    assert host.started == [5] * 4


def test_one_that_never_serves(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "START_SECONDS", 0.0)
    host.unaware = 9
    assert run(tmp_path, "upgrade", "5").exit_code == ExitCode.UNAVAILABLE


def test_which_are_of_another_version(host: Host, tmp_path: Path) -> None:
    host.served[7] = __version__
    host.served[9] = None
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "server-id").write_text("1\n")
    rows = run(tmp_path, "list").output.splitlines()[1:]
    assert [row.split()[-2:] for row in rows[:2]] == [[OLD, "outdated"], ["s", __version__]]
    listed = json.loads(run(tmp_path, "list", "--json").output)
    assert [(each["domid"], each["outdated"]) for each in listed] == [(5, True), (7, False), (9, None)]
