"""A whole daemon and its operator: every command over the socket, and SIGHUP, while the guest stores."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import daemon_process
from tests.support.daemon_process import DOMID
from tests.support.machine import L1, L2, L3, L4
from tests.support.recording import dumps_of
from tests.support.tables import FRAME
from xengt_dm.control.client import ask
from xengt_dm.control.protocol import RefusedError
from xengt_dm.errors import ExitCode


class Daemon:
    """One that serves a guest which stores all the time."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.process = daemon_process.start(base, "strict")
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "storing\n"

    def ask(self, command: str, **arguments: Any) -> Any:
        return ask(self.base, DOMID, command, **arguments)

    def wait_event(self, name: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"the log ended without {name}")

    def end(self) -> dict[str, Any]:
        self.process.terminate()
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        left: dict[str, Any] = json.loads(out)
        return left


@pytest.fixture(name="daemon")
def fixture_daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.process.kill()
    daemon.process.communicate()


def test_quiesced_and_resumed_while_the_guest_stores(daemon: Daemon) -> None:
    for _ in range(3):
        assert daemon.ask("quiesce") == {"state": "quiesced", "spaces": 1}
        with pytest.raises(RefusedError, match="is quiesced") as caught:
            daemon.ask("audit")
        assert caught.value.exit_code is ExitCode.UNAVAILABLE
        assert daemon.ask("resume") == {"state": "serving", "spaces": 1}
        assert daemon.ask("audit")["audit_mismatches"] == 0
    left = daemon.end()
    assert (left["wrong"], left["dropped"], left["protected"], left["owner"]) == (0, 0, [], None)


def test_switched_and_listed_while_the_guest_stores(daemon: Daemon) -> None:
    for mode in ("relaxed", "strict", "relaxed", "strict"):
        assert daemon.ask("mode", mode=mode) == {"mode": mode}
        assert daemon.ask("audit")["audit_mismatches"] == 0
    tables = daemon.ask("protected")["tables"]
    assert {(table["gfn"], table["level"]) for table in tables} == {(L4, 4), (L3, 3), (L2, 2), (L1, 1)}
    assert not any(table["open"] for table in tables)
    left = daemon.end()
    assert (left["wrong"], left["dropped"]) == (0, 0)


def test_recorded_while_the_guest_stores(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    assert daemon.ask("record", descriptor=descriptor, file="trace.jsonl")["recording"] == "trace.jsonl"
    os.close(descriptor)
    assert daemon.ask("status")["recording"] == "trace.jsonl"
    assert daemon.ask("mode", mode="relaxed") == {"mode": "relaxed"}
    assert daemon.ask("audit")["audit_mismatches"] == 0
    daemon.end()
    for mode in ("strict", "relaxed"):
        (dump,) = dumps_of(file, mode)
        assert dump["id"] == "end"
        assert [space["root"] for space in dump["spaces"]] == [L4 * FRAME]
        assert sum(run[1] for run in dump["spaces"][0]["mappings"]) > 100 * FRAME


def test_it_reads_its_configuration_again(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.wait_event("config.reloaded")["changed"] == {}
    assert daemon.ask("status")["state"] == "serving"
    daemon.end()
