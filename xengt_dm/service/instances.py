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
from typing import Final, NamedTuple, Protocol

from xengt_dm.config.files import Assignment
from xengt_dm.errors import ConfigError, ExitCode, HostError, UsageError, XengtError
from xengt_dm.printable import printable
from xengt_dm.service.launched import UUID_VARIABLE, VARIABLE
from xengt_dm.units import parse_domid

UNIT: Final = "xengt-dm@{}.service"
#: systemd's own sign that it is the manager, sd_booted(3).
BOOTED: Final = Path("/run/systemd/system")
#: Options for the next start of an instance, a file a domain: EnvironmentFile= of the unit.
LAUNCH: Final = Path("/run/xengt-dm/launch")
LOGS: Final = Path("/var/log/xengt-dm")
READY_SECONDS: Final = 60.0
#: More than the unit's own limits, TimeoutStartSec= and TimeoutStopSec=, allow systemctl to take.
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
#: Without systemd: from SIGTERM to SIGKILL, as TimeoutStopSec= of the unit.
END_SECONDS: Final = 20.0
#: For what systemd only has to look up.
ANSWER_SECONDS: Final = 30.0
#: Of a log, to find its last line in.
LAST_BYTES: Final = 4096
LAST_LINES: Final = 100


class InstanceError(XengtError):
    """An instance did not start or stop; the message says where its own reasons are."""

    exit_code = ExitCode.UNAVAILABLE


class Starter(Protocol):
    """Starts and stops instances. Each is started with the options that :func:`remember` kept for its domain."""

    def start(self, domid: int) -> None:
        """Starts an instance, unless it serves already, and waits until it serves. Raises InstanceError, HostError."""

    def stop(self, domid: int) -> None:
        """Stops an instance, if it runs, and waits until it has ended. Raises InstanceError, HostError."""


def starter(program: str = "xengt-dm") -> Starter:
    """The way in which this host starts instances."""
    if BOOTED.is_dir() and _systemctl("cat", UNIT.format("")).returncode == 0:
        return Systemd()
    return Spawner([shutil.which(program) or program, "run"])


def remember(domid: int, options: Sequence[Assignment], folder: Path = LAUNCH, uuid: str | None = None) -> None:
    """Keeps what the domain was launched with, for every start of its instance.

    ``uuid``: the domain's, if it is known. The options then apply to no other domain, but to the guest's next domain if
    it reboots. Raises ConfigError, HostError.
    """
    words = words_of(options)
    if words or uuid:
        remember_words(domid, words, folder, uuid)
    else:
        try:
            forget(domid, folder)
        except OSError as error:
            raise HostError(f"remove {folder / str(domid)}", domid, error.errno or 0) from error


def words_of(options: Sequence[Assignment]) -> list[str]:
    """Returns options as words of a command line. Raises ConfigError for one that a file of systemd cannot hold."""
    words: list[str] = []
    for each in options:
        pair = f"{each.key.name}={each.value}"
        if len(pair.split()) != 1 or not _is_plain(pair):
            raise ConfigError(f"{each.origin}: {each.key.name}: {each.value!r} can stand in a file of xengt-dm only")
        words += ["--set", pair]
    return words


def remember_words(domid: int, words: Sequence[str], folder: Path = LAUNCH, uuid: str | None = None) -> None:
    """Keeps options that are words of a command line.

    Raises UsageError if a file of systemd cannot hold them, HostError if it cannot be written.
    """
    if not all(map(_is_plain, words)):
        raise UsageError(f"{VARIABLE}: options must be of letters, digits and signs without a meaning to a shell")
    text = f"{VARIABLE}={' '.join(words)}\n" + (f"{UUID_VARIABLE}={uuid}\n" if uuid else "")
    new = folder / f".{domid}.new"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        new.write_text(text)
        new.replace(folder / str(domid))
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise HostError(f"write {folder / str(domid)}", domid, error.errno or 0) from error


def _is_plain(word: str) -> bool:
    """Whether systemd reads the word in an EnvironmentFile= as it stands."""
    return word.isprintable() and not set(word) & set("\"'\\$")


class Launch(NamedTuple):
    """What :func:`remember` kept: options as words of a command line, and the domain's uuid."""

    words: list[str]
    uuid: str | None


def launch_of(domid: int, folder: Path = LAUNCH) -> Launch | None:
    """Returns what is kept of a domain's launch; None if there is nothing that can be read."""
    try:
        lines = (folder / str(domid)).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return Launch(fields.get(VARIABLE, "").split(), fields.get(UUID_VARIABLE))


def launched(folder: Path = LAUNCH) -> list[int]:
    """Returns the domains of whose launch something is kept. Raises OSError if that cannot be told."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return [domid for name in names if (domid := parse_domid(name)) is not None]


def remembered(domid: int, folder: Path = LAUNCH) -> list[str]:
    """Returns the options that :func:`remember` kept, as words of a command line."""
    launch = launch_of(domid, folder)
    return launch.words if launch else []


def forget(domid: int, folder: Path = LAUNCH) -> None:
    """Removes what is kept of a domain's launch. Raises OSError."""
    with suppress(FileNotFoundError):
        (folder / str(domid)).unlink()


def forget_others(domid: int, uuid: str | None, folder: Path = LAUNCH) -> None:
    """Removes what is kept of the launch of another domain that had this id. Raises OSError."""
    launch = launch_of(domid, folder)
    if launch and uuid and launch.uuid not in (None, uuid):
        forget(domid, folder)


def _systemctl(*words: str, seconds: float = ANSWER_SECONDS) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise InstanceError(f"systemctl {' '.join(words)} did not end within {seconds:g} s") from error
    except OSError as error:
        raise HostError("systemctl", None, error.errno or 0) from error


class Systemd:
    """Runs instances as units of systemd. The unit's Type=notify has `systemctl start` wait until they serve."""

    def start(self, domid: int) -> None:
        """Starts the unit of a domain, and waits until the instance serves. Raises InstanceError, HostError."""
        self._do("start", domid, START_SECONDS)
        # A unit with a condition that fails is skipped, and `systemctl start` ends with 0 all the same.
        unit = UNIT.format(domid)
        state = _systemctl("show", unit, "--property=ActiveState")
        if "ActiveState=active" not in state.stdout.split():
            told = state.stdout.strip().partition("=")[2] or "nothing"
            raise InstanceError(
                f"systemctl start {unit} ended well, but the unit is {told}, not active. {_log_of(domid)}"
            )

    def stop(self, domid: int) -> None:
        """Stops the unit of a domain, and waits until it has ended. Raises InstanceError, HostError."""
        self._do("stop", domid, STOP_SECONDS)
        _systemctl("reset-failed", UNIT.format(domid))

    def _do(self, verb: str, domid: int, seconds: float) -> None:
        unit = UNIT.format(domid)
        done = _systemctl(verb, unit, seconds=seconds)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise InstanceError(f"systemctl {verb} {unit}: {lines[0]} {_last_error_of(domid)}{_log_of(domid)}")


def _log_of(domid: int) -> str:
    return f"The log: journalctl XENGT_DOMID={domid}"


def _last_error_of(domid: int) -> str:
    """Returns what the instance said last of why it ended, as a sentence to be followed by another; or nothing."""
    # A daemon that was taken over may have logged as much as it likes, and in lines as long.
    command = ["journalctl", "--quiet", "--output=cat", f"--lines={LAST_LINES}", f"--since=-{START_SECONDS:.0f}s"]
    command.append(f"XENGT_DOMID={domid}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace", timeout=10.0)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = [line for line in done.stdout.splitlines() if line.startswith("xengt-dm: ")]
    return f"It said: {printable(said[-1][:LAST_BYTES])}. " if said else ""


class Spawner:
    """Runs instances as processes in sessions of their own. They report by sd_notify's protocol that they serve."""

    def __init__(self, command: Sequence[str], launch: Path = LAUNCH, logs: Path = LOGS) -> None:
        self._command = command
        self._launch = launch
        self._logs = logs
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, domid: int) -> None:
        """Starts a process for a domain, and waits until it serves. Raises InstanceError, HostError."""
        words = [*self._command, "--domid", str(domid), *remembered(domid, self._launch)]
        log = self._logs / f"{domid}.log"
        step = f"open {log}"
        try:
            self._logs.mkdir(mode=0o750, parents=True, exist_ok=True)
            with log.open("ab") as output, _notify_socket() as (manager, address):
                step = f"start {words[0]}"
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
                self._children = {key: each for key, each in self._children.items() if each.poll() is None}
                self._children[domid] = child
                try:
                    self._wait_ready(domid, child, manager, log)
                except BaseException:  # also if the user interrupts the wait
                    self.stop(domid)
                    raise
        except OSError as error:
            raise HostError(step, domid, error.errno or 0) from error

    def _wait_ready(self, domid: int, child: subprocess.Popen[bytes], manager: socket.socket, log: Path) -> None:
        deadline = time.monotonic() + READY_SECONDS
        ended = os.pidfd_open(child.pid)
        try:
            while True:
                ready, _, _ = select.select([manager.fileno(), ended], [], [], max(0.0, deadline - time.monotonic()))
                if manager.fileno() in ready and b"READY=1" in manager.recv(4096).split(b"\n"):
                    return
                if ended in ready or not ready:
                    why = f"ended with status {child.wait()}" if ready else f"does not serve after {READY_SECONDS:g} s"
                    raise InstanceError(f"the instance of domain {domid} {why}; {_last_words(log)}")
        finally:
            os.close(ended)

    def stop(self, domid: int) -> None:
        """Stops the instance, if this object started it. `xengt-dm stop` stops any other."""
        child = self._children.pop(domid, None)
        if child is not None:
            child.terminate()  # so that it releases its guest, if it can
            try:
                child.wait(END_SECONDS)
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
