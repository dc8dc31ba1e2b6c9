"""A domain's daemon, whichever process that is: it is killed and followed, or replaced by `xengt-dm upgrade`."""

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any, Self

from .checks import require, say, wait_until
from .daemon import Daemon, ask_at_once
from .programs import run
from .zygote import Zygote

_STEP_SECONDS = 300


class Replaced:
    """The daemon of a domain, as a context; its settings are in the domain's configuration file."""

    def __init__(self, domid: int, zygote: Zygote) -> None:
        self._domid = domid
        self._zygote = zygote
        self._pid = 0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end(signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        return ask_at_once(self._domid, "status")

    def traps(self) -> int:
        """How many accesses to the device it has served."""
        return int(self.status()["counters"]["mmio_traps"])

    def kill_and_start(self) -> None:
        """SIGKILL, and a new one that takes over what the old one left."""
        self._end(signal.SIGKILL)
        self._start()
        told = self.status()
        require(told["state_kept"] is True, f"the daemon that followed lost the state: {told['state_refused']}")

    def upgrade(self) -> None:
        """Have it replaced as an operator does."""
        (told,) = json.loads(run("xengt-dm", "upgrade", "--json", str(self._domid)))
        require(told["pid"] != self._pid, f"the upgrade left the same process: {told}")
        self._pid = told["pid"]
        require(self.status()["state_kept"] is True, "the upgrade lost the state")
        say(f"nobody served for {told['unserved_seconds']} s")

    def terminate(self) -> None:
        """SIGTERM, and wait for its end."""
        self._end(signal.SIGTERM)

    def start_again(self) -> None:
        """SIGTERM, and a new one that begins with nothing, by the settings that are in the file now."""
        self.terminate()
        self._start()
        require(not self.status()["state_kept"], "the daemon kept the state of one that was asked to stop")

    def _start(self) -> None:
        daemon = Daemon(self._domid, zygote=self._zygote)
        daemon.wait_serving()
        self._pid = int(self.status()["pid"])

    def _end(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)
        wait_until("the end of the daemon", _STEP_SECONDS, lambda: not _runs(self._pid))


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
