"""A sim in a process of its own, its console, and daemons that serve it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from xengt_dm.hypervisor.sim.connection import Connection
from xengt_dm.hypervisor.sim.port import SimPort
from xengt_dm.sim.process import console_path

#: A sim that does not answer for so long hangs.
PATIENCE = 60.0
_ANSWER_BYTES = 1 << 20
#: What follows a hook.
_MAIN = """
from xengt_dm.cli import main
main()
"""


class ConsoleError(Exception):
    """The console refused: ``kind`` is bad, fault or stopped."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Console:
    """A connection to the console of a sim."""

    def __init__(self, directory: Path, domid: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(str(console_path(directory, domid)))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, do: str, **arguments: Any) -> None:
        """Ask for something; :meth:`receive` has the answer when it is done."""
        self.socket.send(json.dumps({"do": do, **arguments}).encode())

    def receive(self) -> Any:
        """The result of what was asked for. Raises ConsoleError."""
        answer = json.loads(self.socket.recv(_ANSWER_BYTES))
        if "error" in answer:
            raise ConsoleError(answer["error"], answer["text"])
        return answer["result"]

    def ask(self, do: str, **arguments: Any) -> Any:
        self.send(do, **arguments)
        return self.receive()

    def run(self, vcpu: int, op: str, *args: Any) -> Any:
        """Execute an instruction on a vCPU of the scripted guest."""
        return self.ask("run", vcpu=vcpu, op=op, args=args)

    def begin(self, vcpu: int, op: str, *args: Any) -> None:
        """As :meth:`run`, without waiting for its end."""
        self.send("run", vcpu=vcpu, op=op, args=args)

    def state(self) -> dict[str, Any]:
        result: dict[str, Any] = self.ask("state")
        return result


def environment() -> dict[str, str]:
    """For processes that import what this one imports."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class SimProcess:
    """``xengt-dm sim`` with options, as a context: it runs when the context is entered."""

    def __init__(self, directory: Path, *options: str, domid: int = 1) -> None:
        self.directory = directory
        self.domid = domid
        command = [sys.executable, "-m", "xengt_dm", "sim", "--dir", str(directory), "--domid", str(domid), *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        if not self.line:
            raise AssertionError(f"the sim ends: {self.process.communicate()[1]}")
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.returncode is None:
            self.end()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Ends it with a signal; returns its status and what it said on stderr."""
        self.process.send_signal(number)
        said = self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode, said

    def serve(self, base: Path, *options: str, hook: str = "") -> Daemon:
        """A daemon whose run directories are in ``base``; see :class:`Daemon`."""
        return Daemon(self, base, *options, hook=hook)

    def port(self) -> SimPort:
        """A device model's handles, in this process."""
        return SimPort(self.directory, self.domid)

    def connection(self) -> Connection:
        return Connection(self.directory, self.domid)

    def console(self) -> Console:
        return Console(self.directory, self.domid)


class Daemon:
    """``xengt-dm run --sim`` in a process of its own, as a context: it serves when the context is entered.

    ``hook``: Python that the process executes first.
    """

    def __init__(self, sim: SimProcess, base: Path, *options: str, hook: str = "") -> None:
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(f"\0xengt-dm-test-{os.getpid()}-{id(self)}")
        self._manager.settimeout(PATIENCE)
        words = ["--sim", str(sim.directory), "--domid", str(sim.domid), "--run-dir", str(base), *options]
        self.process = subprocess.Popen(
            [sys.executable, *(["-c", hook + _MAIN] if hook else ["-m", "xengt_dm"]), "run", *words],
            stderr=subprocess.PIPE,
            text=True,
            env={**environment(), "NOTIFY_SOCKET": "@" + self._manager.getsockname()[1:].decode()},
        )

    def __enter__(self) -> Self:
        try:
            while b"READY=1" not in self._manager.recv(4096):
                pass
        except TimeoutError:
            raise AssertionError(f"the daemon does not serve: {self.kill()}") from None
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.returncode is None:
            self.kill()
        self._manager.close()

    def kill(self) -> str:
        """SIGKILL; returns what the daemon said."""
        self.process.kill()
        return self.process.communicate(timeout=PATIENCE)[1]

    def stop(self) -> tuple[int, str]:
        """SIGTERM; returns the daemon's status and what it said."""
        self.process.terminate()
        said = self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode, said
