"""Asking a daemon, from a program that is not one: blocking, with a time limit, and with errors for people."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

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

#: How long the daemon may say nothing; a dump or an audit of a large space takes it seconds.
SILENCE_SECONDS: Final = 30.0
#: A daemon bounds what it dumps to far less than this.
REPLY_LIMIT: Final = 1 << 30
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid; unix(7)


class NotRunningError(ControlError):
    """No daemon serves that domain; ``stale`` if one did and left its socket."""

    def __init__(self, message: str, *, stale: bool) -> None:
        super().__init__(message)
        self.stale = stale


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

    ``silence``: seconds that the daemon may say nothing. ``descriptor`` goes with the request. Raises NotRunningError,
    ForbiddenError, RefusedError (the daemon's own words, with its exit code) or ControlError.
    """
    with _connected(base, domid, silence) as connection:
        return _exchange(connection, domid, command, arguments, descriptor)


def stop(base: Path, domid: int, seconds: float | None) -> bool:
    """Stop the daemon of a domain and wait for its process to end; whether it did within ``seconds`` (None: no wait).

    Raises as :func:`ask`.
    """
    with _connected(base, domid, SILENCE_SECONDS) as connection:
        process = None if seconds is None else _process_of(connection)
        try:
            _exchange(connection, domid, "stop", {})
            if process is None or seconds is None:
                return seconds is None
            return bool(select.select([process], [], [], seconds)[0])
        finally:
            if process is not None:
                os.close(process)


def _process_of(connection: socket.socket) -> int | None:
    """A pidfd of the process that listens at the other end; None if it cannot be told."""
    pid, _, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


@contextmanager
def _connected(base: Path, domid: int, silence: float) -> Iterator[socket.socket]:
    path = base / str(domid) / SOCKET_NAME
    try:
        connection = connect(path, silence)
    except OSError as error:
        raise _no_connection(error, path, domid) from error
    with connection:
        yield connection


def _no_connection(error: OSError, path: Path, domid: int) -> ControlError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NotRunningError(
            f"nothing serves domain {domid}: there is no {path}; `xengt-dm list` shows what runs", stale=False
        )
    if isinstance(error, ConnectionRefusedError):
        return NotRunningError(
            f"nothing serves domain {domid} any more: its daemon died and left {path}; "
            f"start it again: xengt-dm run --domid {domid}",
            stale=True,
        )
    if isinstance(error, PermissionError):
        return ForbiddenError(f"not permitted to open {path}; run as root or as the daemon's user")
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return ControlError(f"the daemon of domain {domid} does not take connections; is it stopped or stuck?")
    return ControlError(f"cannot reach the daemon of domain {domid} at {path}: {error.strerror or error}")


def _exchange(
    connection: socket.socket, domid: int, command: str, arguments: dict[str, object], descriptor: int | None = None
) -> Any:
    """The result of one command; a daemon that refuses this version is asked again in the oldest."""
    try:
        return _exchange_in(VERSION, connection, domid, command, arguments, descriptor)
    except RefusedError as error:
        if error.code != ErrorCode.VERSION:
            raise
    older = in_version_1(command, arguments)
    if older is None:
        raise ControlError(
            f"the daemon of domain {domid} is older than this command and cannot {command} without a sync; use --sync"
        )
    return _exchange_in(OLDEST_VERSION, connection, domid, command, older, descriptor)


def _exchange_in(
    version: int,
    connection: socket.socket,
    domid: int,
    command: str,
    arguments: dict[str, object],
    descriptor: int | None,
) -> Any:
    daemon = f"the daemon of domain {domid}"
    try:
        with suppress(BrokenPipeError):  # it may have said why
            line_out = request_line(command, arguments, version)
            if descriptor is not None:
                line_out = line_out[socket.send_fds(connection, [line_out], [descriptor]) :]
            connection.sendall(line_out)
        line = _receive_line(connection)
    except TimeoutError as error:
        raise ControlError(
            f"{daemon} did not answer within {connection.gettimeout():g} seconds; is it stuck?"
        ) from error
    except OSError as error:
        raise ControlError(f"{daemon} closed the connection: {error.strerror or error}") from error
    if not line.endswith(b"\n"):
        raise ControlError(f"{daemon} {'broke off its answer' if line else 'ended without an answer'}; see its log")
    return _result(daemon, line)


def _receive_line(connection: socket.socket) -> bytearray:
    line = bytearray()
    while not line.endswith(b"\n"):
        data = connection.recv(1 << 18)
        if not data:
            break
        line += data
        if len(line) > REPLY_LIMIT:
            break
    return line


def _result(daemon: str, line: bytearray) -> Any:
    try:
        reply = json.loads(line)
        if type(reply["v"]) is not int or not OLDEST_VERSION <= reply["v"] <= VERSION:
            raise ControlError(
                f"{daemon} speaks version {reply['v']!r}, this command speaks {VERSION}; use its own version"
            )
        if reply["ok"] is True:
            return reply["result"]
        code, message = str(reply["error"]["code"]), str(reply["error"]["message"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ControlError(f"{daemon} answers in a way that this command does not understand") from error
    raise RefusedError(code, message)
