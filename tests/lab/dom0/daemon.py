"""The installed xengt-dm, run as its user runs it."""

import contextlib
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .checks import require, say, wait_until
from .programs import processor_seconds, run, wait_exit
from .zygote import Child, Zygote

LOGS = Path("/run/lab-logs")
_PROGRAM = "xengt-dm"
_START_SECONDS = 300
_COMMAND_SECONDS = 600
_RUN_DIRECTORIES = Path("/run/xengt-dm")


class Daemon:
    """A serving daemon for one domain. What it says goes to a file in LOGS.

    It is forked by `zygote` if that is given, else `program` is run.
    """

    def __init__(
        self, domid: int, *options: str, zygote: Zygote | None = None, program: Sequence[str] = (_PROGRAM,)
    ) -> None:
        LOGS.mkdir(exist_ok=True)
        self.domid = domid
        self.log = LOGS / f"daemon-{domid}.log"
        words = ["run", "--domid", str(domid), *options]
        with self.log.open("a") as log:
            self._logged = log.tell()  # by one before it
            self._process: subprocess.Popen[bytes] | Child
            if zygote is not None:
                self._process = zygote.fork(words, self.log)
            else:
                command = [*program, *words]
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def wait_serving(self) -> None:
        """Wait until it says that it serves. Raises ScenarioError if it ends or takes too long."""

        def serving() -> bool:
            status = self._process.poll()
            require(status is None, f"the daemon ended with status {status} before it served")
            return "serving" in self.log.read_text()[self._logged :]

        wait_until("the daemon to serve", _START_SECONDS, serving, self.moving)

    def moving(self) -> tuple[int, float]:
        """What changes while it does anything: how long its log is, and the processor time that it has had."""
        return self.log.stat().st_size, processor_seconds(self._process.pid)

    def terminate(self) -> None:
        """Ask it to stop, as a service manager does."""
        self._process.send_signal(signal.SIGTERM)

    def wait_exit(self, seconds: float) -> int:
        """Its exit status. Raises ScenarioError if it stands still for so many seconds."""
        return wait_exit(self._process, "the daemon", seconds)

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()

    def ask(self, command: str, *options: str) -> dict[str, Any]:
        """The answer of `xengt-dm COMMAND --domid N --json`. Raises ScenarioError if it is an error or no JSON."""
        status = self._process.poll()
        require(status is None, f"the daemon ended with status {status}")
        answer: dict[str, Any] = json.loads(run(_PROGRAM, command, "--domid", str(self.domid), "--json", *options))
        return answer

    def extensions(self) -> set[str]:
        """The extension modules of xengt-dm that the process has mapped, by the beginning of their files' names."""
        maps = Path(f"/proc/{self._process.pid}/maps").read_text()
        return set(re.findall(r"/xengt_dm/(\w+)\.\S*so$", maps, re.MULTILINE))

    def counter(self, name: str) -> int:
        """One of the counters in its status."""
        return int(self.ask("status")["counters"][name])


def ask_at_once(domid: int, command: str, **arguments: object) -> dict[str, Any]:
    """The result of a command of the control socket: to ask often, where starting xengt-dm each time would take long.

    Raises ScenarioError if the daemon refuses it or is gone.
    """
    request = json.dumps({"v": 2, "cmd": command, **arguments})
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_COMMAND_SECONDS)
        connection.connect(str(_RUN_DIRECTORIES / str(domid) / "control.sock"))
        connection.sendall(request.encode() + b"\n")
        with connection.makefile("rb") as replies:
            reply = replies.readline()
    require(reply.endswith(b"\n"), f"the daemon ended without an answer to {command}")
    answer: dict[str, Any] = json.loads(reply)
    require(answer["ok"], f"the daemon refused {command}: {answer.get('error')}")
    result: dict[str, Any] = answer["result"]
    return result


@contextlib.contextmanager
def serving(domid: int, *options: str, program: Sequence[str] = (_PROGRAM,)) -> Iterator[Daemon]:
    """A daemon that serves the domain, killed at the end if it is still there; `program` is run in its place."""
    say(f"starting the daemon for domain {domid}")
    daemon = Daemon(domid, *options, program=program)
    try:
        daemon.wait_serving()
        yield daemon
    finally:
        daemon.kill()
