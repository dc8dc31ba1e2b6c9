"""Commands that are interrupted at moments drawn by seed: they end, soon, and as what the signal is."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.xenstored import Daemon, same
from xengt_dm.xenstore import Message

#: Processes that are interrupted at drawn moments take seconds.
pytestmark = pytest.mark.slow

#: From the signal to the end of the process; alone it takes well under a second.
PATIENCE = 60.0
AT_ONCE = 4
PROGRAM = [sys.executable, "-m", "xengt_dm"]
#: What a process ends with: its own statuses, or those of the interpreter before ours are in force.
ENDS = {
    signal.SIGINT: {128 + signal.SIGINT, -signal.SIGINT, 1},
    signal.SIGTERM: {128 + signal.SIGTERM, -signal.SIGTERM},
}
#: Says when the guest stores, so that a moment can be drawn from then on.
RUNNING = {
    "demo": """
from xengt_dm.sim.demo import demo
demo(60, "4.17", 1, lambda traps, gone: print("running", flush=True))
""",
    "relaxed demo": """
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.sim.demo import demo
demo(60, "4.20", 1, lambda traps, gone: print("running", flush=True), Sync.RELAXED)
""",
    "replay": """
import itertools, threading, time
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.sim.replay import replay
from xengt_dm.trace.events import Header, Store
print("running", flush=True)
replay(Header(8, 64), itertools.repeat(Store(4096, 8, 3), 10_000_000), sync=Sync.STRICT, max_tables=10)
""",
}


def interrupted(words: list[str], number: signal.Signals, delay: float, word: bytes = b"") -> str:
    """What went wrong when a command got a signal so long after its start, or after its ``word``; empty if nothing."""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        if word and process.stdout.readline().strip() != word:
            return f"{words}: ended before it was interrupted: {process.communicate()[1]!r}"
        time.sleep(delay)
        process.send_signal(number)
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"{words}: {number.name} after {delay:.3f} s: still there {PATIENCE:g} s later"
    good = ENDS[number] | ({0} if "exporter" in words or "watch" in words else set())
    if process.returncode not in good or (word and b"Error" in errors):
        return f"{words}: {number.name} after {delay:.3f} s: status {process.returncode}: {errors!r}"
    return ""


def hammer(seed: int, words: list[str], times: int, longest: float, word: bytes = b"") -> None:
    rng = random.Random(seed)
    plan = [(rng.choice([*ENDS]), rng.random() * longest) for _ in range(times)]
    with ThreadPoolExecutor(AT_ONCE) as executor:
        wrong = [each for each in executor.map(lambda one: interrupted(words, *one, word), plan) if each]
    assert not wrong, f"seed {seed}: " + "\n".join(wrong)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_command_of_the_readme_ends(seed: int) -> None:
    hammer(seed, [*PROGRAM, "demo", "--seconds", "60"], 12, 2.0)


@pytest.mark.parametrize(("name", "times"), [("demo", 14), ("relaxed demo", 12), ("replay", 8)])
def test_a_simulation_ends_while_its_guest_stores(name: str, times: int) -> None:
    hammer(3, [sys.executable, "-c", RUNNING[name]], times, 0.5, b"running")


def test_the_exporter_ends(tmp_path: Path) -> None:
    hammer(4, [*PROGRAM, "exporter", "--listen", "127.0.0.1:0", "--run-dir", str(tmp_path)], 12, 2.0)


def test_replay_ends_while_it_reads(tmp_path: Path) -> None:
    """A trace of which there is always more."""
    trace = tmp_path / "trace.jsonl"
    with trace.open("w") as file:
        print(json.dumps({"trace": 1, "generation": 8, "ram_frames": 64}), file=file)
        store = json.dumps({"op": "store", "gpa": 4096, "size": 8, "value": 3})
        file.write(f"{store}\n" * 400_000)
    hammer(5, [*PROGRAM, "replay", str(trace)], 8, 2.0)


def test_a_second_interruption_ends_at_once() -> None:
    text = "import os, signal\n" + RUNNING["demo"].replace(
        'print("running", flush=True)', "[os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]"
    )
    done = subprocess.run([sys.executable, "-c", text], check=False, timeout=PATIENCE, capture_output=True)
    assert done.returncode in ENDS[signal.SIGINT], done.stderr


@contextmanager
def silent_store(folder: Path, answers: int) -> Iterator[None]:
    """A xenstored that stops to answer after so many requests."""
    hold = threading.Event()

    def answer(request: Message) -> bytes:
        nonlocal answers
        answers -= 1
        if answers < 0:
            hold.wait(PATIENCE)
        return same(request, b"")

    with ExitStack() as stack:
        daemon = Daemon(folder / "socket", answer)
        stack.callback(daemon.close)
        stack.callback(hold.set)
        yield


WATCH = """
import sys
from pathlib import Path
from xengt_dm import xenstore
xenstore.XenStore.__init__.__defaults__ = (Path(sys.argv[1]), Path("/nonexistent"), 60.0)
from xengt_dm.cli import main
main(["watch", "--run-dir", sys.argv[2], "--config-dir", sys.argv[2]])
"""


@pytest.mark.parametrize("answers", [0, 1, 2, 1000])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_watcher_ends_whether_xenstored_answers_or_not(
    tmp_path_factory: pytest.TempPathFactory, answers: int, number: signal.Signals
) -> None:
    folder = tmp_path_factory.mktemp("w")
    with silent_store(folder, answers):
        words = [sys.executable, "-c", WATCH, str(folder / "socket"), str(folder), "watch"]
        assert interrupted(words, number, 1.5) == ""


def test_list_ends_while_a_daemon_is_silent(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "7" / "control.sock"))
        silent.listen()
        for number in ENDS:
            words = [*PROGRAM, "list", "--run-dir", str(tmp_path)]
            assert interrupted(words, number, 1.0) == ""
