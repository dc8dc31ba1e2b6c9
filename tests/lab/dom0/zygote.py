"""Daemons by fork, because the start of a Python takes an emulated machine many seconds.

:class:`Zygote` is the scenario's side. The other side is this file as a program, which has imported what `xengt-dm run`
needs. It reads requests, a JSON object on a line each, and answers each with a line: it forks a daemon and tells its
pid, or tells the status of one.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

_IMPORTS = (
    "xengt_dm.cli.run",
    "xengt_dm.daemon.main",
    "xengt_dm.daemon.reload",
    "xengt_dm.hypervisor.xen.port",
    "xengt_dm.service.launched",
    "xengt_dm.service.limits",
    "xengt_dm.service.sandbox",
    "xengt_dm.xenstore",
    "trio._core._generated_io_epoll",
)


class Child:
    """A daemon; as far as scenarios look, a subprocess.Popen."""

    def __init__(self, zygote: "Zygote", pid: int) -> None:
        self.pid = pid
        self._zygote = zygote
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its status, None while it runs."""
        if self._status is None:
            self._status = self._zygote.ask(wait=self.pid, options=os.WNOHANG)
        return self._status

    def wait(self) -> int:
        """Its status, when it has ended."""
        if self._status is None:
            self._status = self._zygote.ask(wait=self.pid, options=0)
        assert self._status is not None
        return self._status

    def send_signal(self, number: int) -> None:
        """Nothing is sent to one whose end is known."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Zygote:
    """The process that forks, as a context."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-B", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ask(wait=0, options=0)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def fork(self, words: Sequence[str], log: Path) -> Child:
        """A child that runs `xengt-dm WORDS` and says to `log` what it has to say."""
        return Child(self, self.ask(words=[*words], log=str(log)))

    def ask(self, **request: Any) -> Any:
        """What it answers to a request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _child(words: list[str], log: str) -> None:
    """Never returns."""
    status = 70
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for theirs, ours in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(theirs, ours)
        os.closerange(3, 1 << 10)
        importlib.import_module("xengt_dm.cli").main(words, prog_name="xengt-dm")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _ended(pid: int, options: int) -> int | None:
    found, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if found else None


def _main() -> None:
    for name in _IMPORTS:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        if "words" in request:
            answer: int | None = os.fork()
            if not answer:
                _child(request["words"], request["log"])
        else:
            answer = _ended(request["wait"], request["options"]) if request["wait"] else 0
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
