"""Daemons on a sim by fork: a process that has imported everything starts each of them in some milliseconds.

:class:`Zygote` is the side of the tests. The other side, ``python -m tests.support.zygote``, has one thread and one
descriptor, a socket on which it is told what to do, a JSON object a message:

* ``{"fork": [words], "env": {...}, "log": PATH, "hooks": [...]}``: a child runs the command line ``xengt-dm WORDS``,
  after the functions that ``hooks`` name as ``module:function``. Answered by ``{"pid": PID}``.
* ``{"wait": PID}``: answered by ``{"status": S}``, as in :attr:`subprocess.Popen.returncode`, when the child has ended.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.support.sim import PATIENCE, environment

_MOST_BYTES = 1 << 16


class Zygote:
    """The process that forks daemons, as a context. ``hooks`` run once in it, before anything is forked."""

    def __init__(self, hooks: Iterable[str] = ()) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.zygote", str(theirs.fileno()), *hooks],
                pass_fds=[theirs.fileno()],
                env=environment(),
            )

    def __enter__(self) -> Self:
        assert self._ask({})["ready"]
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._process.wait(PATIENCE)

    def fork(
        self, words: Iterable[str], *, log: Path, env: Mapping[str, str] | None = None, hooks: Iterable[str] = ()
    ) -> int:
        """Start a daemon with a command line; returns its pid. It appends what it says to ``log``."""
        pid: int = self._ask({"fork": [*words], "env": dict(env or {}), "log": str(log), "hooks": [*hooks]})["pid"]
        return pid

    def wait(self, pid: int) -> int:
        """Returns the status of a daemon that ends."""
        status: int = self._ask({"wait": pid})["status"]
        return status

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._socket.send(json.dumps(request).encode())
        answer: dict[str, Any] = json.loads(self._socket.recv(_MOST_BYTES) or b"{}")
        return answer


def import_everything() -> None:
    """Have in this process what a daemon on a sim imports in its life."""
    for name in (
        "xengt_dm.cli.run",
        "xengt_dm.daemon.main",
        "xengt_dm.daemon.reload",
        "xengt_dm.service.launched",
        "xengt_dm.service.limits",
        "xengt_dm.service.sandbox",
        "xengt_dm.hypervisor.sim.port",
        "xengt_dm.trace.background",
        "xengt_dm.trace.record",
        "xengt_dm.trace.write",
        "trio._core._generated_io_epoll",
        "encodings.idna",
    ):
        importlib.import_module(name)


def call(hook: str) -> None:
    """Call the function that ``module:function`` names."""
    module, function = hook.split(":")
    getattr(importlib.import_module(module), function)()


def _serve(connection: socket.socket) -> None:
    while message := connection.recv(_MOST_BYTES):
        request = json.loads(message)
        if "fork" in request:
            pid = os.fork()
            if not pid:
                connection.close()
                _child(request)
            answer: dict[str, Any] = {"pid": pid}
        elif "wait" in request:
            answer = {"status": os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])}
        else:
            answer = {"ready": True}
        connection.send(json.dumps(answer).encode())


def _child(request: dict[str, Any]) -> None:
    """Never returns."""
    status = 70
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
        os.environ.update(request["env"])
        for hook in request["hooks"]:
            call(hook)
        from xengt_dm.cli import main

        main(request["fork"], prog_name="xengt-dm")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_everything()
    for hook in sys.argv[2:]:
        call(hook)
    gc.collect()
    gc.freeze()
    _serve(connection)


class Waiter:
    """A socket to which a daemon says that it serves, as to its service manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind("")  # any abstract address
        self.environment = {"NOTIFY_SOCKET": "@" + self._socket.getsockname()[1:].decode()}

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def forget(self) -> None:
        """Drop what a daemon that has ended said."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(4096):
                pass
        except BlockingIOError:
            pass

    def ready(self, seconds: float = PATIENCE) -> bool:
        """Returns whether the daemon says within ``seconds`` that it serves."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                if b"READY=1" in self._socket.recv(4096):
                    return True
            except TimeoutError:
                break
        return False


if __name__ == "__main__":
    _main()
