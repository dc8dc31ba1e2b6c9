"""Asking a daemon: each way in which it can fail to answer, in words and with an exit status."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xengt_dm.control import client as control_client
from xengt_dm.control.client import ForbiddenError, NotRunningError, SilentError, ask, stop
from xengt_dm.control.protocol import ControlError, RefusedError
from xengt_dm.errors import ExitCode, XengtError

DOMID = 7


@contextmanager
def daemon_that(
    answer: Callable[[socket.socket, bytes], None], base: Path, requests_read: int = 1
) -> Iterator[list[bytes]]:
    """Listens for one connection, reads requests and does ``answer`` for each; yields what it read."""
    directory = base / str(DOMID)
    directory.mkdir()
    requests: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "control.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                lines = connection.makefile("rb")
                for _ in range(requests_read):
                    requests.append(lines.readline())
                    answer(connection, requests[-1])

        thread = threading.Thread(target=serve)
        thread.start()
        yield requests
        thread.join()


def saying(*parts: bytes) -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, request: bytes) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def failure(base: Path, kind: type[XengtError], **options: float) -> XengtError:
    with pytest.raises(kind) as caught:
        ask(base, DOMID, "status", **options)
    return caught.value


def test_the_result_is_the_answer(tmp_path: Path) -> None:
    with daemon_that(saying(b'{"v": 2, "ok": true, "res', b'ult": {"a": [1]}}\n'), tmp_path) as requests:
        assert ask(tmp_path, DOMID, "walk", va=4096, root=None) == {"a": [1]}
    assert json.loads(requests[0]) == {"v": 2, "cmd": "walk", "va": 4096, "root": None}


def test_a_large_answer_is_whole(tmp_path: Path) -> None:
    result = [[row, row * 4096] for row in range(50_000)]
    with daemon_that(saying(json.dumps({"v": 1, "ok": True, "result": result}).encode() + b"\n"), tmp_path):
        assert ask(tmp_path, DOMID, "dump") == result


def test_nothing_runs(tmp_path: Path) -> None:
    error = failure(tmp_path, NotRunningError)
    assert error.exit_code is ExitCode.UNAVAILABLE
    assert "nothing serves domain 7: there is no" in str(error)
    assert isinstance(error, NotRunningError)
    assert not error.stale


def test_the_run_directory_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "7").write_text("")
    assert failure(tmp_path, NotRunningError).exit_code is ExitCode.UNAVAILABLE


def test_its_daemon_died(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "7" / "control.sock"))
    error = failure(tmp_path, NotRunningError)
    assert error.exit_code is ExitCode.UNAVAILABLE
    assert "its daemon died" in str(error)
    assert "xengt-dm start --domid 7" in str(error)
    assert isinstance(error, NotRunningError)
    assert error.stale


def test_permission_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, timeout: float | None) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(control_client, "connect", refuse)
    error = failure(tmp_path, ForbiddenError)
    assert error.exit_code is ExitCode.PERMISSION
    assert "run as root" in str(error)


def test_its_backlog_is_full(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    path = str(tmp_path / "7" / "control.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        error = failure(tmp_path, SilentError, silence=0.01)
    assert error.exit_code is ExitCode.SILENT
    assert "did not take a connection within 0.01 seconds; it is stopped or stuck" in str(error)


def test_it_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "7" / "control.sock"))
        listener.listen()
        error = failure(tmp_path, SilentError, silence=0.01)
    assert error.exit_code is ExitCode.SILENT
    assert "did not answer within 0.01 seconds; it is stopped or stuck" in str(error)
    assert "systemctl kill -s KILL xengt-dm@7" in str(error)


def test_one_deadline_counts_for_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that refuses the version when its time is over is not asked again."""
    seconds = [1000.0]
    monkeypatch.setattr(control_client, "time", SimpleNamespace(monotonic=lambda: seconds[0]))

    def late(connection: socket.socket, request: bytes) -> None:
        seconds[0] += 31
        version_1(connection, request)

    with daemon_that(late, tmp_path) as requests:
        error = failure(tmp_path, SilentError)
    assert "did not answer within 30 seconds" in str(error)
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "ended without an answer"),
        ([b'{"v": 1, "ok": tr'], "broke off its answer"),
        ([b'{"v": 1, "ok": true, "result": 1}'], "broke off its answer"),
        ([b"what?\n"], "does not understand"),
        ([b"[1]\n"], "does not understand"),
        ([b"{}\n"], "does not understand"),
        ([b'{"v": 1, "ok": true}\n'], "does not understand"),
        ([b'{"v": 1, "ok": false}\n'], "does not understand"),
        ([b'{"v": 1, "ok": false, "error": "so"}\n'], "does not understand"),
        ([b"[" * 100_000 + b"\n"], "does not understand"),
        ([b"\xff\n"], "does not understand"),
        ([b'{"v": 3, "ok": true, "result": 1}\n'], "speaks version 3"),
        ([b'{"v": true, "ok": true, "result": 1}\n'], "speaks version True"),
    ],
)
def test_an_answer_that_is_none(tmp_path: Path, parts: list[bytes], words: str) -> None:
    with daemon_that(saying(*parts), tmp_path):
        error = failure(tmp_path, ControlError)
    assert error.exit_code is ExitCode.UNAVAILABLE
    assert words in str(error)
    assert "domain 7" in str(error)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("usage", ExitCode.USAGE),
        ("data", ExitCode.DATA),
        ("permission", ExitCode.PERMISSION),
        ("host", ExitCode.UNAVAILABLE),
        ("busy", ExitCode.UNAVAILABLE),
        ("version", ExitCode.UNAVAILABLE),
        ("unknown-command", ExitCode.UNAVAILABLE),
        ("internal", ExitCode.UNAVAILABLE),
        ("malformed", ExitCode.UNAVAILABLE),
        ("of a newer version", ExitCode.UNAVAILABLE),
    ],
)
def test_a_refusal_is_told_as_the_daemons_words(tmp_path: Path, code: str, status: ExitCode) -> None:
    line = json.dumps({"v": 1, "ok": False, "error": {"code": code, "message": "because"}}).encode() + b"\n"
    with daemon_that(saying(line), tmp_path, requests_read=2 if code == "version" else 1):
        error = failure(tmp_path, RefusedError)
    assert (str(error), error.exit_code) == ("the daemon of domain 7 says: because", status)


def version_1(connection: socket.socket, request: bytes) -> None:
    """A daemon that knows the first version of the protocol only."""
    if json.loads(request)["v"] == 1:
        connection.sendall(b'{"v": 1, "ok": true, "result": 7}\n')
    else:
        connection.sendall(b'{"v": 1, "ok": false, "error": {"code": "version", "message": "no"}}\n')


@pytest.mark.parametrize(
    ("command", "arguments", "older"),
    [
        ("status", {}, {}),
        ("mode", {"mode": "strict"}, {"mode": "strict"}),
        ("walk", {"va": 0, "sync": True}, {"va": 0}),
        ("audit", {"sync": True}, {}),
    ],
)
def test_a_daemon_of_the_first_version_is_asked_again(
    tmp_path: Path, command: str, arguments: dict[str, Any], older: dict[str, Any]
) -> None:
    with daemon_that(version_1, tmp_path, requests_read=2) as requests:
        assert ask(tmp_path, DOMID, command, **arguments) == 7
    assert [json.loads(request) for request in requests] == [
        {"v": 2, "cmd": command, **arguments},
        {"v": 1, "cmd": command, **older},
    ]


@pytest.mark.parametrize("arguments", [{}, {"sync": False}])
@pytest.mark.parametrize("command", ["walk", "dump", "audit"])
def test_a_daemon_of_the_first_version_is_not_asked_to_sync_unawares(
    tmp_path: Path, command: str, arguments: dict[str, Any]
) -> None:
    with daemon_that(version_1, tmp_path) as requests, pytest.raises(ControlError, match="use --sync") as caught:
        ask(tmp_path, DOMID, command, **arguments)
    assert caught.value.exit_code is ExitCode.UNAVAILABLE
    assert len(requests) == 1


def test_a_daemon_that_refuses_before_it_reads_is_heard(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "7" / "control.sock"))
        listener.listen()

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b'{"v": 1, "ok": false, "error": {"code": "busy", "message": "later"}}\n')

        thread = threading.Thread(target=refuse)
        thread.start()
        assert str(failure(tmp_path, RefusedError)) == "the daemon of domain 7 says: later"
        thread.join()


def test_an_answer_without_end_is_not_read_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_client, "SHORT_REPLY_LIMIT", 1000)
    with daemon_that(saying(b"x" * 2000), tmp_path):
        assert "broke off" in str(failure(tmp_path, ControlError))


DAEMON = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
connection, _ = listener.accept()
assert b'"stop"' in connection.makefile("rb").readline()
connection.sendall(b'{"v": 1, "ok": true, "result": {}}\\n')
if sys.argv[2] == "stay":
    sys.stdin.read()
"""


@contextmanager
def daemon_process(base: Path, manner: str) -> Iterator[subprocess.Popen[str]]:
    (base / str(DOMID)).mkdir()
    command = [sys.executable, "-c", DAEMON, str(base / str(DOMID) / "control.sock"), manner]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield process


def test_stop_waits_for_the_process_to_end(tmp_path: Path) -> None:
    with daemon_process(tmp_path, "end") as process:
        assert stop(tmp_path, DOMID, 60) is True
        # A process that has ended can be waited for at once.
        assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    with daemon_process(tmp_path, "stay"):
        assert stop(tmp_path, DOMID, 0.01) is False


def test_stop_need_not_wait(tmp_path: Path) -> None:
    with daemon_process(tmp_path, "stay"):
        assert stop(tmp_path, DOMID, None) is True
