"""Debian's Prometheus: its ``promtool``, and a server of its own on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: It is up within a second; a machine that does much else may need more.
PATIENCE = 60.0
_TRIES = 5
#: A sanitizer that is preloaded is not for programs of others.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def promtool(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    words = ["promtool", *map(str, arguments)]
    return subprocess.run(words, input=text, capture_output=True, text=True, check=False, env=ENVIRONMENT)


class Prometheus:
    """A running server."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._process = process
        self._log = log
        self._deadline = 0.0

    def api(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API."""
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """What an instant query has now, by labels without ``instance`` and ``job``."""
        result = self.api("query", query=expression)["result"]
        return {
            tuple(sorted((k, v) for k, v in each["metric"].items() if k not in ("instance", "job"))): float(
                each["value"][1]
            )
            for each in result
        }

    def until(self, what: Callable[[], bool]) -> None:
        """Ask until it is so."""
        self._deadline = time.monotonic() + PATIENCE
        while not what():
            self.pause()

    def pause(self) -> None:
        """A moment, unless the server ends or there was time enough."""
        assert time.monotonic() < self._deadline, f"not within {PATIENCE} s; the server says:\n{self._log.read_text()}"
        try:
            self._process.wait(0.05)
        except subprocess.TimeoutExpired:
            return
        raise EndedError(self._log.read_text())

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=PATIENCE):
                return True
        except OSError:
            return False


class EndedError(Exception):
    """The server ended by itself; its last words."""


@contextmanager
def prometheus(config: Path, data: Path) -> Iterator[Prometheus]:
    """A server that keeps what it scrapes in ``data``; ready when the block begins, gone when it is left."""
    log = data / "log"
    for tries in range(_TRIES):
        port = _free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={data / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
            )
        with process:
            server = Prometheus(port, process, log)
            try:
                server.until(server.is_ready)
                yield server
                return
            except EndedError:
                if tries == _TRIES - 1 or "address already in use" not in log.read_text():
                    raise
            finally:
                process.kill()


def _free_port() -> int:
    """One that was free a moment ago: Prometheus does not tell which one it took."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
