"""Daemons that lie: what root's commands make of what a compromised one answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from xengt_dm.cli import list as list_command
from xengt_dm.cli import main
from xengt_dm.cli import top as top_command
from xengt_dm.control import client as control_client
from xengt_dm.control.answers import Answer, check_status, decode
from xengt_dm.control.client import ask
from xengt_dm.control.protocol import ControlError, RefusedError
from xengt_dm.errors import ExitCode
from xengt_dm.run_dir.owner import user_of

COUNTERS = dict.fromkeys(("spaces", "traps", *top_command.COUNTERS), 0)


def status(domid: int, /, **fields: Any) -> dict[str, Any]:
    return {
        "domid": domid,
        "pid": os.getpid(),
        "mode": "strict",
        "state": "serving",
        "vcpus": 1,
        "generation": 8,
        "server": 1,
        "uptime_seconds": 1.5,
        "version": "0.1",
        "counters": COUNTERS,
        **fields,
    }


def line(result: Any) -> bytes:
    return json.dumps({"v": 1, "ok": True, "result": result}).encode() + b"\n"


@contextmanager
def listening(base: Path, domid: int, say: Callable[[socket.socket], None]) -> Iterator[Path]:
    """A daemon that does ``say`` for each connection, after one request."""
    path = base / str(domid) / "control.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.makefile("rb").readline()
                        say(connection)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def daemons(base: Path, answers: dict[int, bytes]) -> Iterator[None]:
    with ExitStack() as stack:
        for domid, answer in answers.items():
            stack.enter_context(listening(base, domid, lambda peer, answer=answer: peer.sendall(answer)))  # type: ignore[misc]
        yield


def run(base: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--run-dir", str(base)])


LIES = {
    "no object": line(5),
    "an array": line([]),
    "nothing in it": line({}),
    "another domain": line(status(8)),
    "a text for a domain": line(status(7, domid="7\x1b[2J")),
    "no counters": line(status(7, counters=None)),
    "counters in an array": line(status(7, counters=[])),
    "another process": line(status(7, pid=1)),
    "a process that is text": line(status(7, pid=str(os.getpid()))),
    "a counter that is text": line(status(7, counters={**COUNTERS, "traps": "many"})),
    "a counter that is true": line(status(7, counters={**COUNTERS, "traps": True})),
    "a negative counter": line(status(7, counters={**COUNTERS, "traps": -1})),
    "a counter that lacks": line(status(7, counters={"traps": 0})),
    "not a number": line(status(7, uptime_seconds=float("nan"))),
    "infinity": line(status(7, uptime_seconds=float("inf"))),
    "minus infinity": line(status(7, uptime_seconds=-float("inf"))),
    "a huge float": line(status(7)).replace(b"1.5", b"1e999"),
    "a large float": line(status(7)).replace(b"1.5", b"1e300"),
    "a huge integer": line(status(7)).replace(b'"vcpus": 1', b'"vcpus": ' + b"9" * 4000),
    "an integer of too many digits": line(status(7)).replace(b'"vcpus": 1', b'"vcpus": ' + b"9" * 5000),
    "a state that is a number": line(status(7, state=5)),
    "a state that is an object": line(status(7, state={"a": 1})),
    "a long state": line(status(7, state="x" * 10_000)),
    "a text too long": line(status(7, more="x" * 100_000)),
    "nested": line(status(7)).replace(b"1.5", b"[" * 50 + b"]" * 50),
    "nested very deep": b"[" * 100_000 + b"\n",
    "no JSON": b"\xff\x1b[2J\n",
    "nothing at all": b"",
    "half an answer": line(status(7))[:-10],
    "a refusal that is none": b'{"v": 1, "ok": false, "error": {"code": {}, "message": null}}\n',
    "another version": b'{"v": "\\u001b[2J", "ok": true, "result": {}}\n',
}


@pytest.mark.parametrize("lie", LIES.values(), ids=list(LIES))
def test_one_liar_does_not_hide_the_others(tmp_path: Path, lie: bytes) -> None:
    with daemons(tmp_path, {3: line(status(3)), 7: lie, 9: line(status(9))}):
        for words in (
            ["list"],
            ["top", "--interval", "0.1"],
            ["list", "--json"],
            ["top", "--json", "--interval", "0.1"],
        ):
            result = run(tmp_path, *words)
            assert result.exit_code == ExitCode.OK, result.output
            assert "\x1b" not in result.output
            if "--json" in words:
                found = [(each["domid"], each["state"]) for each in json.loads(result.output)]
                assert found == [(3, "serving"), (7, "untrusted"), (9, "serving")]
            else:
                assert [row.split()[:2] for row in result.output.splitlines()[1:]] == [
                    ["3", "serving"],
                    ["7", "untrusted"],
                    ["9", "serving"],
                ]
        result = run(tmp_path, "status", "--domid", "7")
        lacks_what_status_does_not_show = lie == LIES["a counter that lacks"]
        expected = ExitCode.OK if lacks_what_status_does_not_show else ExitCode.UNAVAILABLE
        assert result.exit_code == expected, result.output
        assert "\x1b" not in result.output


@pytest.mark.parametrize("command", ["spaces", "dump", "audit", "protected", "mode", "quiesce", "resume", "record"])
@pytest.mark.parametrize(
    "result",
    [
        None,
        5,
        "x",
        [],
        [5],
        [[]],
        [{}],
        {},
        {"spaces": 5, "tables": "x", "mode": [], "state": {}, "events": "x", "recording": []},
        {"spaces": [5], "tables": [5], "mode": 5, "events": None, "recording": None, "counters": []},
        {"spaces": [{"mode": 5, "root": {}, "mappings": [5]}], "tables": [{"gfn": "x"}], "audit_mismatches": "x"},
    ],
)
def test_a_wrong_answer_is_the_daemons_fault(tmp_path: Path, command: str, result: Any) -> None:
    """No command takes it for a defect of ours, and none acts on it."""
    with daemons(tmp_path, {7: line(result)}):
        found = run(tmp_path, command, "--domid", "7")
    assert found.exit_code in (ExitCode.OK, ExitCode.DIFFERS, ExitCode.UNAVAILABLE), found.output
    assert "Traceback" not in found.output


def test_what_a_terminal_would_act_on_is_shown_as_escapes(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x9b2J\r\n\u202e\ud800"
    answers = {
        7: line(status(7, version=evil, state=evil, mode=evil)),
        8: json.dumps({"v": 1, "ok": False, "error": {"code": evil, "message": evil * 1000}}).encode() + b"\n",
    }
    with daemons(tmp_path, answers):
        for words in (["list"], ["status", "--domid", "7"], ["status", "--domid", "8"], ["list", "--json"]):
            shown = run(tmp_path, *words).output
            assert shown.replace("\n", "").isprintable(), shown
            assert len(shown) < 10_000


def test_text_and_objects_of_an_answer() -> None:
    found = decode(b'{"a": "\\u001b[2J", "b\\n": [1, 2.5, true, null, {"c": "\\u202e"}]}')
    assert found == {"a": "\\x1b[2J", "b\\n": [1, 2.5, True, None, {"c": "\\u202e"}]}
    assert isinstance(found["b\\n"][4], Answer)
    with pytest.raises(ControlError, match="has no 'd'"):
        found["d"]
    with pytest.raises(ControlError, match="gives no status"):
        check_status({}, 7)


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"1,"])
def test_an_answer_of_very_many_values_is_not_even_read(unit: bytes) -> None:
    """The 128 MiB that an answer may have would take 6 GiB of memory."""
    with pytest.raises(ValueError, match="too many values"):
        decode(b"[" + unit * ((1 << 24) // (len(unit) - 1) + 1) + b"0]")


def test_a_long_text_does_not_make_every_row_long(tmp_path: Path) -> None:
    spaces = [{"mode": "x" * 60_000, "root": 0, "refs": 1}, *({"mode": "l4", "root": 0, "refs": 1} for _ in range(100))]
    counters = {**COUNTERS, "x" * 60_000: 1, **{f"c{n}": 1 for n in range(1000)}}
    answers = {7: line(spaces), 8: line(status(8, counters=counters))}
    with daemons(tmp_path, answers):
        for words in (["spaces", "--domid", "7"], ["status", "--domid", "8"]):
            result = run(tmp_path, *words)
            assert result.exit_code == ExitCode.OK
            assert len(result.output) < 500_000, "60,000 characters in each line"


def test_a_refusal_has_no_escapes_and_an_end(tmp_path: Path) -> None:
    refusal = {"v": 1, "ok": False, "error": {"code": "usage", "message": "\x1b[2J" + "x" * 60_000}}
    with daemons(tmp_path, {7: json.dumps(refusal).encode() + b"\n"}), pytest.raises(RefusedError) as caught:
        ask(tmp_path, 7, "status")
    mark, _, words = str(caught.value).partition(" says: ")
    assert mark == "the daemon of domain 7"
    assert words.startswith("\\x1b[2Jxxx")
    assert len(words) == 2000


def test_a_refusal_cannot_add_a_line_that_looks_like_the_commands_own(tmp_path: Path) -> None:
    message = "no\nxengt-dm: this host was broken into; send your keys to the guest"
    refusal = {"v": 2, "ok": False, "error": {"code": "internal", "message": message}}
    with daemons(tmp_path, {7: json.dumps(refusal).encode() + b"\n"}):
        result = CliRunner().invoke(main, ["spaces", "--domid", "7", "--run-dir", str(tmp_path)])
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert result.output == f"xengt-dm: the daemon of domain 7 says: {message}\n".replace("no\n", "no\\n")


def test_a_daemon_that_talks_for_ever_is_left_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then breaks the silence, and the answer never ends."""

    def drip(peer: socket.socket) -> None:
        while True:
            peer.sendall(b" ")
            time.sleep(0.02)

    monkeypatch.setattr(list_command, "SILENCE_SECONDS", 0.3)
    with listening(tmp_path, 7, drip), daemons(tmp_path, {9: line(status(9))}):
        began = time.monotonic()
        with pytest.raises(ControlError, match=r"did not answer within 0\.3 seconds"):
            ask(tmp_path, 7, "status", silence=0.3)
        monkeypatch.setattr(control_client, "LONG_SECONDS", 0.5)
        with pytest.raises(ControlError, match="did not answer"):
            ask(tmp_path, 7, "dump")
        assert [row.split()[:2] for row in run(tmp_path, "list").output.splitlines()[1:]] == [
            ["7", "silent"],
            ["9", "serving"],
        ]
        assert time.monotonic() - began < 30


def test_many_silent_daemons_are_waited_for_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_command, "SILENCE_SECONDS", 1.0)
    release = threading.Event()
    with ExitStack() as stack:
        stack.callback(release.set)
        for domid in range(20):
            stack.enter_context(listening(tmp_path, domid, lambda _: release.wait(60) and None))
        began = time.monotonic()
        found = list_command.instances(tmp_path, (), ())
        assert time.monotonic() - began < 15, "one after the other it takes 20 s"
    assert [each["state"] for each in found] == ["silent"] * 20


def test_a_short_command_takes_no_long_answer(tmp_path: Path) -> None:
    def flood(peer: socket.socket) -> None:
        while True:
            peer.sendall(b"x" * (1 << 16))

    with listening(tmp_path, 7, flood), pytest.raises(ControlError, match="broke off its answer"):
        ask(tmp_path, 7, "status")


# who listens


def test_a_link_to_another_socket_is_not_followed(tmp_path: Path) -> None:
    with listening(tmp_path, 9, lambda peer: peer.sendall(line(status(7)))) as other:
        (tmp_path / "7").mkdir()
        (tmp_path / "7" / "control.sock").symlink_to(other)
        with pytest.raises(ControlError, match="cannot reach the daemon of domain 7"):
            ask(tmp_path, 7, "status")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, Path.touch], ids=["pipe", "directory", "file"])
def test_what_is_no_socket_is_not_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "7").mkdir()
    make(tmp_path / "7" / "control.sock")
    with pytest.raises(ControlError, match="cannot reach the daemon of domain 7"):
        ask(tmp_path, 7, "status")


LISTENER = """
import os, socket, sys
uid, path = int(sys.argv[1]), sys.argv[2]
os.chown(os.path.dirname(path), uid, uid)
os.setgroups([]); os.setgid(uid); os.setuid(uid)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(path)
    listener.listen()
    print("listens", flush=True)
    peer, _ = listener.accept()
    print(peer.makefile("rb").readline(), flush=True)
    peer.sendall(b'{"v": 1, "ok": true, "result": {}}\\n')
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize(("uid", "asked"), [(user_of(7), True), (user_of(9), False), (12345, False)])
def test_only_the_daemons_own_user_is_asked(tmp_path: Path, uid: int, asked: bool) -> None:
    (tmp_path / "7").mkdir()
    for parent in (tmp_path, *tmp_path.parents):
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o755)
    words = [sys.executable, "-c", LISTENER, str(uid), str(tmp_path / "7" / "control.sock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n"
        if asked:
            assert ask(tmp_path, 7, "status") == {}
            assert b'"cmd": "status"' in process.stdout.readline()
        else:
            with pytest.raises(ControlError, match=f"listens a process of user {uid}.* it was asked nothing"):
                ask(tmp_path, 7, "status")
            assert process.stdout.readline() == b"b''\n"
