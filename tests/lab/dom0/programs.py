"""Other programs in dom0: run to their end, however slow the machine is."""

import os
import select
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

from .checks import Patience, ScenarioError

#: Looking costs an emulated processor time that the program could have.
_LOOK_SECONDS = 10
_TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid: int) -> float:
    """The processor time that a process and the children it waited for have had; 0 of one that is gone.

    A program that starts shows no other sign of life. One that turns in circles shows this one, too; so whoever waits
    for it has an absolute limit besides.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


class Process(Protocol):
    """A child of ours, or of a program that tells of it."""

    @property
    def pid(self) -> int: ...
    def wait(self) -> int: ...


def wait_exit(process: Process, what: str, seconds: float) -> int:
    """The exit status of a process. Raises ScenarioError when it has stood still for so many seconds (see Patience)."""
    patience = Patience(f"the end of {what}", seconds)
    ended = os.pidfd_open(process.pid)
    try:
        while not select.select([ended], [], [], _LOOK_SECONDS)[0]:
            patience.look(processor_seconds(process.pid))
    finally:
        os.close(ended)
    return process.wait()


def outcome(*words: str, seconds: float = 0) -> tuple[int, str, str]:
    """Run a command: its exit status, and what it printed to its standard output and error. Raises ScenarioError."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err) as process:
            try:
                status = wait_exit(process, " ".join(words[:2]), seconds)
            finally:
                process.kill()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        return status, texts[0], texts[1]


def run(*words: str) -> str:
    """What a command printed. Raises ScenarioError with what it complained about if it fails."""
    status, out, err = outcome(*words)
    if status != 0:
        raise ScenarioError(f"{' '.join(words[:2])}: {' '.join((err or out).split())[-400:]}")
    return out


def show(*words: str) -> None:
    """Run a command and print all that it says to the console; it may fail."""
    _, out, err = outcome(*words)
    print(" ".join(words), out + err, sep="\n", flush=True)
