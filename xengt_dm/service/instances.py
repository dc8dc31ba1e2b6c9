"""Starting and stopping a domain's instance: as a unit of systemd where the host has it, else by ourselves."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from xengt_dm.config.files import Assignment
from xengt_dm.errors import ConfigError, ExitCode, HostError, XengtError

UNIT: Final = "xengt-dm@{}.service"
#: systemd's own sign that it is the manager, sd_booted(3).
BOOTED: Final = Path("/run/systemd/system")
#: Options for the next start of an instance, a file a domain: EnvironmentFile= of the unit.
LAUNCH: Final = Path("/run/xengt-dm/launch")
LOGS: Final = Path("/var/log/xengt-dm")
VARIABLE: Final = "XENGT_OPTIONS"
READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
#: Of a log, to find its last line in.
LAST_BYTES: Final = 4096


class InstanceError(XengtError):
    """An instance did not start or stop; the message says where its own reasons are."""

    exit_code = ExitCode.UNAVAILABLE


class Starter(Protocol):
    """Starts instances, each with options that were given for its domain's whole life, and ends them."""

    def start(self, domid: int) -> None:
        """Start the instance and wait until it serves; nothing to do if it does. Raises InstanceError, HostError."""

    def stop(self, domid: int) -> None:
        """Stop it and wait for its end; no error if it does not run. Raises InstanceError, HostError."""


def starter(program: str = "xengt-dm") -> Starter:
    """The way in which this host starts instances."""
    if BOOTED.is_dir() and _systemctl("cat", UNIT.format("")).returncode == 0:
        return Systemd()
    return Spawner([shutil.which(program) or program, "run"])


def remember(domid: int, options: Sequence[Assignment], folder: Path = LAUNCH) -> None:
    """Keep what the domain was launched with, for every start of its instance. Raises ConfigError, HostError."""
    words = [f"--set {each.key.name}={each.value}" for each in options]
    for each, word in zip(options, words, strict=True):
        if len(word.split()) != 2 or not word.isprintable() or set(word) & set("\"'\\$"):
            raise ConfigError(f"{each.origin}: {each.key.name}: {each.value!r} can stand in a file of xengt-dm only")
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if options:
            (folder / str(domid)).write_text(f"{VARIABLE}={' '.join(words)}\n")
        else:
            forget(domid, folder)
    except OSError as error:
        raise HostError(f"write {folder / str(domid)}", domid, error.errno or 0) from error


def remembered(domid: int, folder: Path = LAUNCH) -> list[str]:
    """The words that :func:`remember` kept."""
    try:
        text = (folder / str(domid)).read_text()
    except (OSError, UnicodeDecodeError):
        return []
    return text.partition("=")[2].split()


def forget(domid: int, folder: Path = LAUNCH) -> None:
    with suppress(FileNotFoundError):
        (folder / str(domid)).unlink()


def _systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise HostError("systemctl", None, error.errno or 0) from error


class Systemd:
    """Instances as units; the unit's Type=notify is what waits."""

    def start(self, domid: int) -> None:
        self._do("start", domid)

    def stop(self, domid: int) -> None:
        self._do("stop", domid)
        _systemctl("reset-failed", UNIT.format(domid))

    def _do(self, verb: str, domid: int) -> None:
        unit = UNIT.format(domid)
        done = _systemctl(verb, unit)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise InstanceError(f"systemctl {verb} {unit}: {lines[0]} The log: journalctl XENGT_DOMID={domid}")


class Spawner:
    """Instances as processes of their own session, which tell us by the service managers' protocol when they serve."""

    def __init__(self, command: Sequence[str], launch: Path = LAUNCH, logs: Path = LOGS) -> None:
        self._command = command
        self._launch = launch
        self._logs = logs
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, domid: int) -> None:
        words = [*self._command, "--domid", str(domid), *remembered(domid, self._launch)]
        log = self._logs / f"{domid}.log"
        try:
            self._logs.mkdir(mode=0o750, parents=True, exist_ok=True)
            with _notify_socket() as (manager, address), log.open("ab") as output:
                environment = {**os.environ, "NOTIFY_SOCKET": address}
                child = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                )
                self._children[domid] = child
                self._wait_ready(domid, child, manager, log)
        except OSError as error:
            raise HostError(f"start {words[0]}", domid, error.errno or 0) from error

    def _wait_ready(self, domid: int, child: subprocess.Popen[bytes], manager: socket.socket, log: Path) -> None:
        deadline = time.monotonic() + READY_SECONDS
        ended = os.pidfd_open(child.pid)
        try:
            while True:
                ready, _, _ = select.select([manager.fileno(), ended], [], [], max(0.0, deadline - time.monotonic()))
                if manager.fileno() in ready and b"READY=1" in manager.recv(4096).split(b"\n"):
                    return
                if ended in ready or not ready:
                    child.kill()
                    status = child.wait()
                    why = f"ended with status {status}" if ready else f"does not serve after {READY_SECONDS:g} s"
                    raise InstanceError(f"the instance of domain {domid} {why}; {_last_words(log)}")
        finally:
            os.close(ended)

    def stop(self, domid: int) -> None:
        """Only what this object started; `xengt-dm stop` reaches every other."""
        child = self._children.pop(domid, None)
        if child is not None:
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _last_words(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
        lines = file.read().decode("utf-8", "replace").split("\n")
    said = [line for line in lines if line.strip()]
    return f"its last words in {log}: {said[-1].strip()}" if said else f"{log} says nothing of it"


@contextmanager
def _notify_socket() -> Iterator[tuple[socket.socket, str]]:
    with (
        tempfile.TemporaryDirectory(prefix="xengt-dm-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        address = os.path.join(folder, "notify")
        manager.bind(address)
        yield manager, address
