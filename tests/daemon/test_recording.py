"""The record command, through the control socket, with a file that only who asks may open."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from tests.support.control import handlers_of
from tests.support.machine import DATA, L1, L4, Machine, play
from tests.support.record_command import asking, failing, recording_of
from tests.support.recording import demo_recorded, dumps_of
from tests.support.tables import FRAME, pte
from xengt_dm.control.client import ask
from xengt_dm.control.protocol import SOCKET_NAME, RefusedError
from xengt_dm.control.server import serve_control
from xengt_dm.daemon.recording import open_trace_file
from xengt_dm.errors import DataError, ExitCode, UsageError
from xengt_dm.sim.demo import Guest
from xengt_dm.steps import complete


def test_over_the_socket(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl.gz"
    (tmp_path / "5").mkdir()

    async def body(machine: Machine) -> None:
        instance = machine.instance
        handlers = handlers_of(instance, recording_of(machine))

        async def command(descriptor: int | None = None, **arguments: object) -> object:
            return await trio.to_thread.run_sync(lambda: ask(tmp_path, 5, "record", descriptor=descriptor, **arguments))

        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, tmp_path / "5" / SOCKET_NAME, handlers)
            assert await command() == {"recording": None, "events": 0}
            await machine.make_space()
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
            answer = await command(descriptor, file="the file.gz")
            os.close(descriptor)
            assert isinstance(answer, dict)
            assert answer["recording"] == "the file.gz"
            with pytest.raises(RefusedError, match=r"recording to the file.gz already"):
                await command(file="other")
            await machine.store(L1, 1, pte(9))
            answer = await command(stop=True)
            assert isinstance(answer, dict)
            assert (answer["recording"], answer["file"]) == (None, "the file.gz")
            with pytest.raises(RefusedError, match="nothing is being recorded") as caught:
                await command(stop=True)
            assert caught.value.exit_code == ExitCode.USAGE
            nursery.cancel_scope.cancel()

    before = set(os.listdir("/proc/self/fd"))
    play(body)
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 2  # trio's own, at most
    (dump,) = dumps_of(file, "strict")
    assert dump["spaces"] == [
        {
            "mode": "l4",
            "root": L4 * FRAME,
            "mappings": [[0, FRAME, DATA * FRAME, 1, 0], [FRAME, FRAME, 9 * FRAME, 1, 0]],
        }
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"file": 3},
        {"file": ""},
        {"stop": 1},
        {"stop": True, "file": "x"},
        {"x": 1},
        {"file": "x", "max_mib": 0},
        {"file": "x", "max_mib": True},
        {"file": "x", "max_minutes": 10081},
    ],
)
def test_wrong_arguments(arguments: Mapping[str, object]) -> None:
    async def body(machine: Machine) -> None:
        instance = machine.instance
        handlers = handlers_of(instance, recording_of(machine))
        with pytest.raises(UsageError):
            await asking(handlers, arguments)

    play(body)


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        open_trace_file(str(tmp_path))

    async def body(machine: Machine) -> None:
        recording = recording_of(machine)
        full = open_trace_file(str(tmp_path / "full"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", failing(errno.ENOSPC))
            with pytest.raises(DataError, match="No space left"):
                recording.start(full)
        assert recording.name is None
        recording.start(open_trace_file(str(tmp_path / "good")))
        recording.stop()

    play(body)


def test_started_while_quiesced(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"

    async def body(machine: Machine) -> None:
        recording = recording_of(machine)
        await machine.make_space()
        complete(machine.instance.engine.quiesce())
        recording.start(open_trace_file(str(file)))
        await machine.store(L1, 1, pte(9))
        complete(machine.instance.engine.resume())
        recording.stop()

    play(body)
    (dump,) = dumps_of(file, "relaxed")
    assert [run[:3] for run in dump["spaces"][0]["mappings"]] == [[0, FRAME, DATA * FRAME], [FRAME, FRAME, 9 * FRAME]]


def test_the_domain_may_be_gone_when_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"

    async def body(machine: Machine) -> None:
        recording = recording_of(machine)
        recording.start(open_trace_file(str(file)))
        await machine.make_space()
        machine.domain.destroy()
        recording.close()
        assert recording.name is None

    play(body)
    (dump,) = dumps_of(file, "strict")
    assert [space["root"] for space in dump["spaces"]] == [L4 * FRAME]


@pytest.mark.parametrize("mode", ["strict", "relaxed"])
def test_the_demonstration(tmp_path: Path, mode: str) -> None:
    """A driver's guest with two vCPUs at once, recorded while it runs."""
    file = tmp_path / "trace.jsonl.gz"
    meant = demo_recorded(file, mode, Guest(0.0, 3))
    for other in ("strict", "relaxed"):
        (dump,) = dumps_of(file, other)
        assert dump["spaces"] == meant
