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
LONG: Final = frozenset({"audit", "dump", "protected", "spaces", "walk"})
#: Bytes of an answer: a dump has 90 MiB at most, by the daemon's own limit.
REPLY_LIMIT: Final = 1 << 28
SHORT_REPLY_LIMIT: Final = 1 << 20
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid; unix(7)


class NotRunningError(ControlError):
    """No daemon serves that domain; ``stale`` if one did and left its socket."""

    def __init__(self, message: str, *, stale: bool) -> None:
        super().__init__(message)
        self.stale = stale


class SilentError(ControlError):
    """It takes no connection, or does not answer in time."""


class ForbiddenError(ControlError):
    """The socket is there, for somebody else."""

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
    """The result of one command from the daemon of a domain; ``base`` holds the run directories.

    ``silence``: seconds that the daemon may say nothing. ``descriptor`` goes with the request. What comes back is made
    fit for use as :mod:`.answers` says; objects are :class:`.answers.Answer`. Raises NotRunningError, ForbiddenError,
    RefusedError (the daemon's own words, with its exit code) or ControlError.
    """
    with _connected(base, domid, silence) as connection:
        return _exchange(connection, domid, command, arguments, silence, descriptor)


def stop(base: Path, domid: int, seconds: float | None) -> bool:
    """Stop the daemon of a domain and wait for its process to end; whether it did within ``seconds`` (None: no wait).

    Raises as :func:`ask`.
    """
    return _end(base, domid, "stop", seconds)


def hand_over(base: Path, domid: int, seconds: float) -> bool:
    """Have the daemon of a domain leave it to a successor; returns whether its process ended within ``seconds``.

    Whoever calls this must start the successor. Raises as :func:`ask`.
    """
    return _end(base, domid, "upgrade", seconds)


def _end(base: Path, domid: int, command: str, seconds: float | None) -> bool:
    with _connected(base, domid, SILENCE_SECONDS) as connection:
        process = None if seconds is None else _process_of(connection)
        try:
            _exchange(connection, domid, command, {}, SILENCE_SECONDS)
            if process is None or seconds is None:
                return seconds is None
            return bool(select.select([process], [], [], seconds)[0])
        finally:
            if process is not None:
                os.close(process)


def _process_of(connection: socket.socket) -> int | None:
    """A pidfd of the process that listens at the other end; None if it cannot be told."""
    try:
        return os.pidfd_open(_peer(connection)[0])
    except OSError:
        return None


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The process and the user that listen at the other end, by the kernel's word."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid


@contextmanager
def _connected(base: Path, domid: int, silence: float) -> Iterator[socket.socket]:
    path = base / str(domid) / SOCKET_NAME
    try:
        connection = connect(path, silence)
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
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return SilentError(f"the daemon of domain {domid} does not take connections; is it stopped or stuck?")
    return ControlError(f"cannot reach the daemon of domain {domid} at {path}: {error.strerror or error}")


def _exchange(
    connection: socket.socket,
    domid: int,
    command: str,
    arguments: dict[str, object],
    silence: float,
    descriptor: int | None = None,
) -> Any:
    """The result of one command; a daemon that refuses this version is asked again in the oldest."""
    try:
        return _exchange_in(VERSION, connection, domid, command, arguments, silence, descriptor)
    except RefusedError as error:
        if error.code != ErrorCode.VERSION:
            raise
    older = in_version_1(command, arguments)
    if older is None:
        raise ControlError(
            f"the daemon of domain {domid} is older than this command and cannot {command} without a sync; use --sync"
        )
    return _exchange_in(OLDEST_VERSION, connection, domid, command, older, silence, descriptor)


def _exchange_in(
    version: int,
    connection: socket.socket,
    domid: int,
    command: str,
    arguments: dict[str, object],
    silence: float,
    descriptor: int | None,
) -> Any:
    total = LONG_SECONDS if command in LONG else silence
    limit = min(REPLY_LIMIT, REPLY_LIMIT if command in LONG else SHORT_REPLY_LIMIT)
    daemon = f"the daemon of domain {domid}"
    try:
        with suppress(BrokenPipeError):  # it may have said why
            line_out = request_line(command, arguments, version)
            if descriptor is not None:
                line_out = line_out[socket.send_fds(connection, [line_out], [descriptor]) :]
            connection.sendall(line_out)
        line = _receive_line(connection, silence, time.monotonic() + total, limit)
    except TimeoutError as error:
        raise SilentError(f"{daemon} did not answer within {silence:g} seconds; is it stuck?") from error
    except OSError as error:
        raise ControlError(f"{daemon} closed the connection: {error.strerror or error}") from error
    if not line.endswith(b"\n"):
        raise ControlError(f"{daemon} {'broke off its answer' if line else 'ended without an answer'}; see its log")
    return _result(daemon, line)


def _receive_line(connection: socket.socket, silence: float, deadline: float, limit: int) -> bytearray:
    """Up to a newline, the end of the connection, or more than ``limit`` bytes. Raises TimeoutError, OSError."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= limit:
        left = min(silence, deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
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
    raise RefusedError(code, message)
