"""Asking a daemon, from a program that is not one: blocking, with a time limit, and with errors for people."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from xengt_dm.control import answers
from xengt_dm.control.protocol import (
    OLDEST_VERSION,
    SOCKET_NAME,
    VERSION,
    ControlError,
    ErrorCode,
    RefusedError,
    in_version_1,
    request_line,
)
from xengt_dm.control.socket import connect
from xengt_dm.errors import ExitCode
from xengt_dm.run_dir.owner import user_of

#: How long the daemon may say nothing; a dump or an audit of a large space takes it seconds.
SILENCE_SECONDS: Final = 30.0
#: How long the whole answer may take to the commands whose answers are long; the silence is the limit for the others.
LONG_SECONDS: Final = 600.0
#: Bytes of an answer, of each command whose answer may be long. A daemon that has 65,536 spaces, which is the most that
#: a configuration allows, says 250 bytes of each; a dump has 90 MiB at most, by the daemon's own limit.
LONG: Final = {"audit": 1 << 25, "dump": 1 << 27, "protected": 1 << 27, "spaces": 1 << 25, "walk": 1 << 25}
#: Of the others.
SHORT_REPLY_LIMIT: Final = 1 << 20
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid; unix(7)


class NotRunningError(ControlError):
    """No daemon serves the domain. ``stale``: whether a daemon that died has left its socket."""

    def __init__(self, message: str, *, stale: bool) -> None:
        super().__init__(message)
        self.stale = stale


class SilentError(ControlError):
    """The daemon accepts no connection, or does not answer in time."""

    exit_code = ExitCode.SILENT


class ForbiddenError(ControlError):
    """The socket exists, but this user may not connect to it."""

    exit_code = ExitCode.PERMISSION


def ask(
    base: Path,
    domid: int,
    command: str,
    *,
    silence: float = SILENCE_SECONDS,
    descriptor: int | None = None,
    **arguments: object,
) -> Any:
    """Sends one command to the daemon of a domain. Returns the result. ``base`` contains the run directories.

    ``silence``: for how many seconds the daemon may send nothing. The whole exchange takes :func:`patience` at most.
    ``descriptor`` is sent with the request. The result is checked and escaped as :mod:`.answers` says; objects in it
    are :class:`.answers.Answer`. Raises NotRunningError, ForbiddenError, SilentError, RefusedError (with the daemon's
    message and exit status) or ControlError.
    """
    wait = _Wait(domid, silence, patience(command, silence))
    with _connected(base, domid, wait) as connection:
        result = _exchange(connection, domid, command, arguments, wait, descriptor)
        if command == "status":
            _check_pid(result, connection, domid)
        return result


def patience(command: str, silence: float = SILENCE_SECONDS) -> float:
    """Returns for how many seconds at most :func:`ask` waits for the answer to a command."""
    return LONG_SECONDS if command in LONG else silence


def stop(base: Path, domid: int, seconds: float | None) -> bool:
    """Stops the daemon of a domain, and waits until its process has ended. Raises as :func:`ask`.

    Returns whether it ended within ``seconds``. None: does not wait, and returns True.
    """
    return _end(base, domid, "stop", seconds)


def hand_over(base: Path, domid: int, seconds: float) -> bool:
    """Has the daemon of a domain leave it to a successor. Returns whether its process ended within ``seconds``.

    The caller must start the successor. Raises as :func:`ask`.
    """
    return _end(base, domid, "upgrade", seconds)


class _Wait:
    """For how long an answer is waited for. The deadline counts for all that is done until there is one.

    A daemon that lies could otherwise draw out each step, and have the command ask it again in an older version.
    """

    def __init__(self, domid: int, silence: float, total: float) -> None:
        self.daemon = f"the daemon of domain {domid}"
        self._silence = silence
        self._total = total
        self._deadline = time.monotonic() + total
        self._domid = domid

    def left(self) -> float:
        """Returns for how long the next step may take. Raises TimeoutError if there is no time left."""
        left = min(self._silence, self._deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError
        return left

    def timed_out(self, what: str) -> SilentError:
        """Returns the error of a daemon that did not do ``what``."""
        seconds = self._silence if self._deadline > time.monotonic() else self._total
        return SilentError(
            f"{self.daemon} did not {what} within {seconds:g} seconds; it is stopped or stuck. To have another one "
            f"replace it: systemctl kill -s KILL xengt-dm@{self._domid}"
        )


def _end(base: Path, domid: int, command: str, seconds: float | None) -> bool:
    wait = _Wait(domid, SILENCE_SECONDS, SILENCE_SECONDS)
    with _connected(base, domid, wait) as connection:
        process = None if seconds is None else _process_of(connection)
        try:
            _exchange(connection, domid, command, {}, wait)
            if process is None or seconds is None:
                return seconds is None
            return bool(select.select([process], [], [], seconds)[0])
        finally:
            if process is not None:
                os.close(process)


def _process_of(connection: socket.socket) -> int | None:
    """Returns a pidfd of the process that listens at the other end; None if that is not possible."""
    try:
        return os.pidfd_open(_peer(connection)[0])
    except OSError:
        return None


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Returns the pid and the uid of the process that listens at the other end, as the kernel reports them."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid


def _check_pid(status: Any, connection: socket.socket, domid: int) -> None:
    """Raises ControlError if a status names another process than the one that listens, which somebody may then kill."""
    pid = _peer(connection)[0]
    if pid and isinstance(status, answers.Answer) and status.get("pid", pid) != pid:  # 0: of another PID namespace
        raise ControlError(f"the daemon of domain {domid} is process {pid}, and says that it is another one")


@contextmanager
def _connected(base: Path, domid: int, wait: _Wait) -> Iterator[socket.socket]:
    path = base / str(domid) / SOCKET_NAME
    try:
        connection = connect(path, wait.left())
    except (TimeoutError, BlockingIOError) as error:
        raise wait.timed_out("take a connection") from error
    except OSError as error:
        raise _no_connection(error, path, domid) from error
    with connection:
        uid = _peer(connection)[1]
        if uid not in (os.geteuid(), user_of(domid)):
            raise ControlError(
                f"at {path} listens a process of user {uid}, not the daemon of domain {domid}, which is user "
                f"{user_of(domid)}; it was asked nothing"
            )
        yield connection


def _no_connection(error: OSError, path: Path, domid: int) -> ControlError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NotRunningError(
            f"nothing serves domain {domid}: there is no {path}; `xengt-dm list` shows what runs", stale=False
        )
    if isinstance(error, ConnectionRefusedError):
        return NotRunningError(
            f"nothing serves domain {domid} any more: its daemon died and left {path}; "
            f"start it again: xengt-dm start --domid {domid}",
            stale=True,
        )
    if isinstance(error, PermissionError):
        return ForbiddenError(f"not permitted to open {path}; run as root or as the daemon's user")
    return ControlError(f"cannot reach the daemon of domain {domid} at {path}: {error.strerror or error}")


def _exchange(
    connection: socket.socket,
    domid: int,
    command: str,
    arguments: dict[str, object],
    wait: _Wait,
    descriptor: int | None = None,
) -> Any:
    """The result of one command; a daemon that refuses this version is asked again in the oldest."""
    try:
        return _exchange_in(VERSION, connection, command, arguments, wait, descriptor)
    except RefusedError as error:
        if error.code != ErrorCode.VERSION:
            raise
    older = in_version_1(command, arguments)
    if older is None:
        raise ControlError(
            f"the daemon of domain {domid} is older than this command and cannot {command} without a sync; use --sync"
        )
    return _exchange_in(OLDEST_VERSION, connection, command, older, wait, descriptor)


def _exchange_in(
    version: int,
    connection: socket.socket,
    command: str,
    arguments: dict[str, object],
    wait: _Wait,
    descriptor: int | None,
) -> Any:
    limit = LONG.get(command, SHORT_REPLY_LIMIT)
    try:
        with suppress(BrokenPipeError):  # it may have said why
            line_out = request_line(command, arguments, version)
            connection.settimeout(wait.left())
            if descriptor is not None:
                line_out = line_out[socket.send_fds(connection, [line_out], [descriptor]) :]
            connection.sendall(line_out)
        line = _receive_line(connection, wait, limit)
    except TimeoutError as error:
        raise wait.timed_out("answer") from error
    except OSError as error:
        raise ControlError(f"{wait.daemon} closed the connection: {error.strerror or error}") from error
    if not line.endswith(b"\n"):
        how = "broke off its answer" if line else "ended without an answer"
        raise ControlError(f"{wait.daemon} {how}; see its log")
    return _result(wait.daemon, line)


def _receive_line(connection: socket.socket, wait: _Wait, limit: int) -> bytearray:
    """Up to a newline, the end of the connection, or more than ``limit`` bytes. Raises TimeoutError, OSError."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= limit:
        connection.settimeout(wait.left())
        data = connection.recv(1 << 18)
        if not data:
            break
        line += data
    return line


def _result(daemon: str, line: bytearray) -> Any:
    try:
        reply = dict(answers.decode(line))
        if type(reply["v"]) is not int or not OLDEST_VERSION <= reply["v"] <= VERSION:
            raise ControlError(
                f"{daemon} speaks version {str(reply['v'])[:20]}, this command speaks {VERSION}; use its own version"
            )
        if reply["ok"] is True:
            return reply["result"]
        refusal = dict(reply["error"])
        code, message = str(refusal["code"]), str(refusal["message"])[: answers.MESSAGE_LIMIT]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ControlError(f"{daemon} answers in a way that this command does not understand") from error
    # The daemon may be a hostile one, so its words must not look like the command's own.
    raise RefusedError(code, f"{daemon} says: {message}")
