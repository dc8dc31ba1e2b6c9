"""The protocol between a daemon and its clients: requests, replies and errors. Sans-io.

Lines of JSON in UTF-8 on a UNIX stream socket, one reply to each request, in order:

    {"v": 2, "cmd": "walk", "va": 4096}
    {"v": 2, "ok": true, "result": ...}
    {"v": 2, "ok": false, "error": {"code": "usage", "message": "..."}}

``v`` and ``cmd`` are the request's own, every other key is an argument of the command. A file descriptor may come with
a request (SCM_RIGHTS, unix(7)), so that the daemon writes to a file that only the client may open. A request has at
most :data:`REQUEST_LIMIT` bytes with its newline; a reply may have many megabytes.

Versions
--------
A reply has the version of its request. A reply to what is no request has version 1, which every client reads.

In version 1, the commands of :data:`SYNCED_IN_VERSION_1` always synced what they read. In version 2 they do so only
with ``"sync": true``. A daemon reads both; a client whose request is refused by an older daemon asks again in version
1, if that can say what it wants (:func:`in_version_1`).
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from xengt_dm.control.json_stream import json_pieces
from xengt_dm.errors import ConfigError, DataError, ExitCode, UsageError, XengtError

VERSION: Final = 2
OLDEST_VERSION: Final = 1
#: The commands that take ``sync``; its default is true in version 1.
SYNCED_IN_VERSION_1: Final = ("walk", "dump", "audit")
REQUEST_LIMIT: Final = 64 * 1024
SOCKET_NAME: Final = "control.sock"


class ErrorCode(enum.StrEnum):
    """Why a request was refused; the names are part of the protocol."""

    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    VERSION = "version"
    UNKNOWN_COMMAND = "unknown-command"
    USAGE = "usage"
    DATA = "data"
    PERMISSION = "permission"
    HOST = "host"
    BUSY = "busy"
    TIMEOUT = "timeout"
    QUIESCED = "quiesced"
    INTERNAL = "internal"


#: What a command that got such an error ends with. A bug of the daemon, or what a hostile one says is a bug, is none of
#: the command's.
EXIT_CODES: Final[Mapping[str, ExitCode]] = {
    ErrorCode.MALFORMED: ExitCode.UNAVAILABLE,
    ErrorCode.TOO_LARGE: ExitCode.USAGE,
    ErrorCode.VERSION: ExitCode.UNAVAILABLE,
    ErrorCode.UNKNOWN_COMMAND: ExitCode.UNAVAILABLE,
    ErrorCode.USAGE: ExitCode.USAGE,
    ErrorCode.DATA: ExitCode.DATA,
    ErrorCode.PERMISSION: ExitCode.PERMISSION,
    ErrorCode.HOST: ExitCode.UNAVAILABLE,
    ErrorCode.BUSY: ExitCode.UNAVAILABLE,
    ErrorCode.TIMEOUT: ExitCode.UNAVAILABLE,
    ErrorCode.QUIESCED: ExitCode.UNAVAILABLE,
    ErrorCode.INTERNAL: ExitCode.UNAVAILABLE,
}


class ControlError(XengtError):
    """There is no daemon to ask, or its answer cannot be used."""

    exit_code = ExitCode.UNAVAILABLE


class RefusedError(ControlError):
    """A request that was answered with an error; ``code`` is an :class:`ErrorCode`, or what a newer daemon says."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = EXIT_CODES.get(code, ExitCode.UNAVAILABLE)


#: The argument under which a handler finds the descriptor that came with a request, as a :class:`Passed`.
DESCRIPTOR: Final = "descriptor"


class Passed:
    """A file descriptor that came with a request. It is closed after the answer, unless the handler took it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def take(self) -> int:
        """Returns the descriptor, which the caller must close. Raises UsageError if it was taken already."""
        if self._descriptor is None:
            raise UsageError("the descriptor that came with the request is taken already")
        descriptor, self._descriptor = self._descriptor, None
        return descriptor

    def close(self) -> None:
        """Closes the descriptor, unless it was taken. Safe to call twice."""
        if self._descriptor is not None:
            os.close(self.take())


class Request(NamedTuple):
    """A request, converted to the current version. ``version``: that in which it was sent, and of its reply."""

    command: str
    arguments: Mapping[str, object]
    version: int = VERSION


def parse_request(line: bytes) -> Request:
    """Returns the request in one line. Raises RefusedError, and nothing else, for a line that is no request."""
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise RefusedError(ErrorCode.USAGE, "a text in the request has half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise RefusedError(ErrorCode.MALFORMED, f"the request is no JSON: {_brief(error)}") from None
    if not isinstance(value, dict):
        raise RefusedError(ErrorCode.MALFORMED, "the request is no JSON object")
    version = value.pop("v", None)
    if type(version) is not int or not OLDEST_VERSION <= version <= VERSION:
        raise RefusedError(
            ErrorCode.VERSION,
            f"this daemon speaks versions {OLDEST_VERSION} to {VERSION}, the request has another or none",
        )
    command = value.pop("cmd", None)
    if not isinstance(command, str):
        raise RefusedError(ErrorCode.MALFORMED, 'the request has no "cmd", or it is no string')
    if version == 1 and command in SYNCED_IN_VERSION_1:
        value.setdefault("sync", True)
    return Request(command, value, version)


def in_version_1(command: str, arguments: Mapping[str, object]) -> dict[str, object] | None:
    """Returns the arguments of a request as version 1 has them; None if version 1 has no such request."""
    older = dict(arguments)
    sync = older.pop("sync", False)
    return None if command in SYNCED_IN_VERSION_1 and not sync else older


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key twice in one object")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _brief(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


class LineBuffer:
    """Cuts a stream of bytes into lines of at most ``limit`` bytes with their newline."""

    def __init__(self, limit: int = REQUEST_LIMIT) -> None:
        self._limit = limit
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Adds bytes that arrived."""
        self._bytes += data

    def take(self, at_end: bool = False) -> bytes | None:
        """Returns the next line without its newline; None if the line is not complete yet.

        ``at_end``: no more bytes will come, so what is left is a line, too. Raises RefusedError if the line is too
        long; nothing can be read from the stream then.
        """
        end = self._bytes.find(b"\n", 0, self._limit)
        if end < 0:
            if len(self._bytes) >= self._limit:
                raise RefusedError(ErrorCode.TOO_LARGE, f"the request has more than {self._limit} bytes")
            if not at_end or not self._bytes:
                return None
            end = len(self._bytes)
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        return line


def request_line(command: str, arguments: Mapping[str, object], version: int = VERSION) -> bytes:
    """Returns the line of a request, with its newline. Raises UsageError if it is too long."""
    line = json.dumps({"v": version, "cmd": command, **arguments}).encode() + b"\n"
    if len(line) > REQUEST_LIMIT:
        raise UsageError(f"the request has more than {REQUEST_LIMIT} bytes")
    return line


def error_line(code: str, message: str, version: int = OLDEST_VERSION) -> bytes:
    """Returns the line of a reply that refuses a request. ``version``: that of the request, if it has one."""
    return json.dumps({"v": version, "ok": False, "error": {"code": code, "message": message}}).encode() + b"\n"


def error_code(error: XengtError) -> ErrorCode:
    """Returns the code that a reply has for an error that a handler raised."""
    if isinstance(error, RefusedError) and error.code in EXIT_CODES:
        return ErrorCode(error.code)
    if isinstance(error, UsageError):
        return ErrorCode.USAGE
    if isinstance(error, (DataError, ConfigError)):
        return ErrorCode.DATA
    return ErrorCode.PERMISSION if error.exit_code is ExitCode.PERMISSION else ErrorCode.HOST


def reply_pieces(result: object, version: int = VERSION) -> Iterator[bytes]:
    """Yields a reply in pieces. At an empty piece the caller must serve the guest.

    ``result`` is what :func:`.json_stream.json_pieces` takes, and the empty pieces are those of that function.
    """
    yield b'{"v": %d, "ok": true, "result": ' % version
    yield from json_pieces(result)
    yield b"}\n"
