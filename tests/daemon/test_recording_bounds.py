"""A recording ends by itself, says so, and leaves a valid trace; and it never keeps the guest waiting."""

from __future__ import annotations

import errno
import os
import random
import socket
import threading
import zlib
from pathlib import Path

import pytest
import trio

from tests.support.control import handlers_of
from tests.support.daemon_process import start
from tests.support.machine import DATA, L1, PATIENCE, Machine, play
from tests.support.record_command import asking, failing, recording_of
from tests.support.recording import dumps_of
from tests.support.tables import FRAME, pte
from xengt_dm._core import ffi
from xengt_dm.control.protocol import DESCRIPTOR, Passed
from xengt_dm.daemon.recording import LAST_DUMP, Bounds, Outcome, Recording, open_trace_file
from xengt_dm.errors import DataError
from xengt_dm.steps import complete
from xengt_dm.trace.background import QUEUE_BYTES
from xengt_dm.trace.events import Dump, Event
from xengt_dm.trace.read import read_trace
from xengt_dm.trace.record import Recorder


def cut_of(recording: Recording) -> Outcome:
    """A recording that ended by itself, when its file is closed."""
    assert recording.name is None
    outcome = recording.cut
    assert outcome is not None
    assert outcome.wait(PATIENCE)
    return outcome


def last_of(file: Path) -> Event:
    return read_trace(file)[1][-1]


async def until_ended(recording: Recording) -> None:
    """The thread that writes has seen what happened; the daemon looks after it now and then."""
    with trio.fail_after(PATIENCE):
        while recording.name is not None:
            complete(recording.look())
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPIPE, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_fills_up_ends_the_recording_and_nothing_else(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trace.jsonl"

    async def body(machine: Machine) -> None:
        recording = recording_of(machine)
        recording.start(open_trace_file(str(file)))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", failing(number))
            await machine.make_space()
            await until_ended(recording)
            outcome = cut_of(recording)
        assert recording.name is None
        assert machine.instance.bus.observer is None
        await machine.store(L1, 1, pte(9))
        assert machine.audit() == 0
        assert outcome.describe() == {
            "file": str(file),
            "events": 0,
            "bytes": file.stat().st_size,
            "complete": True,
            "cut": "file",
            "reason": f"the file cannot be written: {os.strerror(number)}",
        }
        assert machine.instance.engine.counters.cut_recordings == 1

    play(body)
    assert read_trace(file)[1] == []


@pytest.mark.parametrize("kind", ["pipe", "fifo", "socket", "device", "own descriptor of a device"])
def test_what_is_no_regular_file_is_refused(kind: str, tmp_path: Path) -> None:
    """Nobody may read from a pipe; then the guest would wait, or the daemon's memory grow."""

    async def body(machine: Machine) -> None:
        recording = recording_of(machine)
        handlers = handlers_of(machine.instance, recording)
        here: list[int] = []
        if kind == "pipe":
            here = [*os.pipe()]
        elif kind == "fifo":
            os.mkfifo(tmp_path / "fifo")
            here = [os.open(tmp_path / "fifo", os.O_RDWR)]
        elif kind == "socket":
            here = [each.detach() for each in socket.socketpair()]
        elif kind == "own descriptor of a device":
            here = [os.open("/dev/full", os.O_WRONLY)]
        name = {"device": "/dev/null", "fifo": str(tmp_path / "fifo")}.get(kind, "here")
        arguments: dict[str, object] = {"file": name}
        if here and kind != "fifo":
            arguments[DESCRIPTOR] = Passed(os.dup(here[-1]))
        with pytest.raises(DataError, match=rf"{name} is a (pipe|socket|device); a recording goes to a regular file"):
            await asking(handlers, arguments)
        assert recording.name is None
        for descriptor in here:
            os.close(descriptor)

    play(body)


def test_a_fifo_that_nobody_reads_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match=r"fifo: cannot be written: No such device or address"):
        open_trace_file(str(tmp_path / "fifo"))


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_it_ends_by_itself_at_its_size(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"trace.{suffix}"
    rng = random.Random(1)

    async def body(machine: Machine) -> None:
        recording = recording_of(machine)
        handlers = handlers_of(machine.instance, recording)
        await asking(handlers, {"file": str(file), "max_mib": 1})
        await machine.make_space()
        recorder = machine.instance.bus.observer
        assert isinstance(recorder, Recorder)
        for _ in range(300):  # what an engine reads that finds every entry changed
            recorder.table_read(DATA, ffi.new("uint64_t[512]", [rng.getrandbits(64) for _ in range(512)]))
        await until_ended(recording)
        cut_of(recording)
        await machine.store(L1, 1, pte(9))
        status = handlers["status"]({})
        assert isinstance(status, dict)
        assert (status["recording"], status["recording_cut"]["cut"]) == (None, "size")
        for _ in range(2):
            answer = await asking(handlers, {"stop": True})
            assert (answer["cut"], answer["reason"]) == ("size", "the trace has the size that is allowed")
            assert (answer["file"], answer["bytes"]) == (str(file), file.stat().st_size)
            assert answer["events"] == len(read_trace(file)[1])
        assert machine.instance.engine.counters.cut_recordings == 1
        await asking(handlers, {"file": str(tmp_path / "next")})
        assert (await asking(handlers, {"stop": True}))["cut"] is None

    play(body)
    assert last_of(file) == Dump("cut: size")
    assert 0.5 < file.stat().st_size / 2**20 <= 1, "and it is used"


def test_it_ends_by_itself_when_its_time_is_over(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    now = [1000.0]

    async def body(machine: Machine) -> None:
        instance = machine.instance
        recording = Recording(
            instance.engine, instance.device, instance.bus, machine.domain.ram_frames, clock=lambda: now[0]
        )
        recording.start(open_trace_file(str(file)), Bounds(max_minutes=2))
        await machine.make_space()
        now[0] += 119
        complete(recording.look())
        assert recording.name is not None
        now[0] += 1
        complete(recording.look())
        assert cut_of(recording).describe()["cut"] == "duration"

    play(body)
    assert [dump["id"] for dump in dumps_of(file, "strict")] == [LAST_DUMP, "cut: duration"]


def test_a_file_that_takes_nothing_ends_it_and_never_keeps_the_guest_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file server does that is away: a write that does not return."""
    file = tmp_path / "trace.jsonl"
    go_on = threading.Event()
    write = os.write

    def stuck(descriptor: int, data: bytes) -> int:
        if (
            threading.current_thread() is not threading.main_thread()
        ):  # that one writes the log, if a test has set it up
            assert go_on.wait(PATIENCE)
        return write(descriptor, data)

    async def body(machine: Machine) -> None:
        monkeypatch.setattr("xengt_dm.daemon.recording.STOP_SECONDS", 0.01)
        recording = recording_of(machine)
        handlers = handlers_of(machine.instance, recording)
        recording.start(open_trace_file(str(file)))
        monkeypatch.setattr(os, "write", stuck)
        await machine.make_space()
        recorder = machine.instance.bus.observer
        assert isinstance(recorder, Recorder)
        for value in range(2 * QUEUE_BYTES // FRAME):
            recorder.table_read(DATA, ffi.new("uint64_t[512]", [value + 1]))
        assert recording.name is None
        assert machine.instance.bus.observer is None
        await machine.store(L1, 1, pte(9))
        answer = await asking(handlers, {"stop": True})
        assert (answer["cut"], answer["complete"]) == ("queue", False)
        with pytest.raises(DataError, match="the last recording, is still being written"):
            await asking(handlers, {"file": str(tmp_path / "next")})
        go_on.set()
        cut_of(recording)
        assert (await asking(handlers, {"stop": True}))["complete"] is True

    play(body)
    assert last_of(file) == Dump("cut: queue")


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_killed_at_any_moment_it_leaves_a_trace(tmp_path: Path, suffix: str) -> None:
    """A daemon that records from its start, and is killed while its trace grows, after so many pieces of it."""
    for number in range(6):
        file = tmp_path / f"{number}.{suffix}"
        with start(tmp_path / str(number), "strict", "0", str(file)) as daemon:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == "storing\n"
            grown = size = 0
            while grown <= number:
                assert daemon.poll() is None
                now = file.stat().st_size
                grown, size = grown + (now > size), now
            daemon.kill()
        file.write_bytes(whole_part(file.read_bytes(), suffix))
        _, events = read_trace(file)
        assert number < 3 or len(events) > 7, "more than the registers"
        assert dumps_of(file, "strict") == []


def whole_part(data: bytes, suffix: str) -> bytes:
    """All but a line or a member that the kernel had written in part when the process was killed."""
    if not suffix.endswith(".gz"):
        return data[: data.rfind(b"\n") + 1]
    rest = data
    while rest:
        member = zlib.decompressobj(wbits=31)
        member.decompress(rest)
        if not member.eof:
            break
        rest = member.unused_data
    return data[: len(data) - len(rest)]


def test_a_daemon_ends_its_recording(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    with start(tmp_path / "run", "strict", "quiet", str(file)) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "storing\n"
        daemon.terminate()
        daemon.communicate(timeout=PATIENCE)
    assert last_of(file) == Dump(LAST_DUMP)
