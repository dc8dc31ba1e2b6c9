"""The control socket of a daemon: a trio task that answers requests.

Whoever may open the socket may stop the daemon, so it is for the daemon's user alone, and what arrives there is from an
operator. It may still be broken, slow or silent, and none of that may touch the guest:

* Sizes, connections and waiting are bounded. A request that cannot be read is answered; where the next one begins is
  known by its newline, so the connection stays, except after a line that is too long.
* A handler runs in the loop that serves the guest, because the engine is not to be touched from two threads. What takes
  long is made lazily (:mod:`.protocol`), and between its pieces the guest is served. The price: each piece of
  one reply says how things were at its own moment.
* A request brings one file descriptor at most; more are closed as they come.
* A handler that fails because of what it was asked (UsageError, DataError, ValueError) is answered. A CallError, or a
  bug, is answered and raised on: the engine may have stopped half-way, and only the daemon can decide what that means.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from xengt_dm.control.protocol import (
    DESCRIPTOR,
    OLDEST_VERSION,
    ErrorCode,
    LineBuffer,
    Passed,
    RefusedError,
    error_code,
    error_line,
    parse_request,
    reply_pieces,
)
from xengt_dm.control.socket import listening
from xengt_dm.errors import CallError, ConfigError, DataError, UsageError

if TYPE_CHECKING:
    from trio import TaskStatus

Handler = Callable[[Mapping[str, object]], object]

MAX_CONNECTIONS: Final = 8
#: How long a peer may take over one request, and over making room for the next CHUNK of a reply.
PEER_SECONDS: Final = 10.0
#: How long a reply of one chunk may take, which the socket's buffer has room for; a daemon that stops waits for it.
LAST_WORDS_SECONDS: Final = 0.5
CHUNK: Final = 64 * 1024
_INT: Final = struct.calcsize("i")
_ONE_DESCRIPTOR: Final = socket.CMSG_SPACE(_INT)


async def serve_control(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests on a UNIX socket at ``path`` until cancelled; the socket is there once the task has started.

    A handler gets the arguments of its command and returns what :func:`.protocol.reply_pieces` takes, or an
    awaitable of that, if it may have to wait: then the guest and everybody else is served meanwhile. End this
    task before what the handlers touch is closed. Raises ControlError if another process answers at ``path``, HostError
    if the socket cannot be made, and what a handler raises apart from UsageError and DataError; that may come in an
    exception group, as from any nursery.
    """
    with listening(path) as sock:
        server = _Server(handlers)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        task_status.started()
        await trio.serve_listeners(server.converse, [listener])


class _Server:
    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._connections = 0

    async def converse(self, stream: trio.SocketStream) -> None:
        """One connection, from accept to close."""
        self._connections += 1
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if self._connections > MAX_CONNECTIONS:
                    await _send_whole(stream, error_line(ErrorCode.BUSY, "too many connections; try again"))
                else:
                    await self._answer_all(stream)
        finally:
            self._connections -= 1
            stream.socket.close()  # not aclose: that waits, and a cancellation there would replace a HostError

    async def _answer_all(self, stream: trio.SocketStream) -> None:
        lines = LineBuffer()
        with ExitStack() as stack:
            while True:
                stack.close()
                passed = _Descriptors()
                stack.callback(passed.close)
                try:
                    line = await _receive_line(stream, lines, passed)
                except RefusedError as error:
                    await _send_whole(stream, error_line(error.code, str(error)))
                    return
                if line is None or not await self._answer(stream, line, passed):
                    return

    async def _answer(self, stream: trio.SocketStream, line: bytes, passed: _Descriptors) -> bool:
        """Answer one request; whether the connection is good for another."""
        sent, version = 0, OLDEST_VERSION
        try:
            request = parse_request(line)
            version = request.version
            handler = self._handlers.get(request.command)
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                raise RefusedError(
                    ErrorCode.UNKNOWN_COMMAND, f"no command {request.command[:40]!r} here; there are: {known}"
                )
            buffer = bytearray()
            arguments = {**request.arguments, **passed.argument()}
            result = handler(arguments)
            for piece in reply_pieces(await result if isinstance(result, Awaitable) else result, version):
                buffer += piece
                if not piece:
                    await trio.lowlevel.checkpoint()
                if len(buffer) >= CHUNK:
                    if not await _send(stream, buffer):
                        return False
                    sent += len(buffer)
                    buffer = bytearray()
        except (UsageError, DataError, ConfigError, RefusedError) as error:
            return await self._refuse(stream, sent, error_line(error_code(error), str(error), version))
        except ValueError as error:  # a value that the system cannot take, such as a file's name
            text = f"a value that cannot be used: {error}"[:500]
            return await self._refuse(stream, sent, error_line(ErrorCode.USAGE, text, version))
        except CallError as error:
            await self._refuse(stream, sent, error_line(error_code(error), str(error), version))
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception as error:
            await self._refuse(stream, sent, error_line(ErrorCode.INTERNAL, f"a bug in the daemon: {error!r}", version))
            raise
        return await (_send(stream, buffer) if sent else _send_whole(stream, buffer))

    async def _refuse(self, stream: trio.SocketStream, sent: int, reply: bytes) -> bool:
        """Answer with an error, unless a part of the reply is out: then only an early end can tell."""
        if sent:
            return False
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            return await _send_whole(stream, reply)
        return False


class _Descriptors:
    """The file descriptor that comes with a request; of more than one none is kept."""

    def __init__(self) -> None:
        self._passed: Passed | None = None
        self._too_many = False

    def take_in(self, descriptor: int) -> None:
        if self._passed is not None or self._too_many:
            os.close(descriptor)
            self._too_many = True
        else:
            self._passed = Passed(descriptor)

    def argument(self) -> dict[str, object]:
        """What a handler gets of it. Raises UsageError if there was more than one."""
        if self._too_many:
            raise UsageError("a request brings one file descriptor at most")
        return {} if self._passed is None else {DESCRIPTOR: self._passed}

    def close(self) -> None:
        if self._passed is not None:
            self._passed.close()


async def _receive_line(stream: trio.SocketStream, lines: LineBuffer, passed: _Descriptors) -> bytes | None:
    """The next request; None at the end. Descriptors that come meanwhile go to ``passed``.

    Raises RefusedError if it is too long or does not come.
    """
    with trio.move_on_after(PEER_SECONDS):
        while True:
            line = lines.take()
            if line is not None:
                return line
            data = await _receive(stream, passed)
            if not data:
                return lines.take(at_end=True)
            lines.feed(data)
    raise RefusedError(ErrorCode.TIMEOUT, f"no request within {PEER_SECONDS:g} seconds")


async def _receive(stream: trio.SocketStream, passed: _Descriptors) -> bytes:
    """Some bytes, none at the end; of the descriptors with them the kernel keeps all but one or two to itself."""
    try:
        data, ancillary, _, _ = await stream.socket.recvmsg(CHUNK, _ONE_DESCRIPTOR, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise trio.BrokenResourceError from error
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            for (each,) in struct.iter_unpack("i", content[: len(content) // _INT * _INT]):
                passed.take_in(each)
    return data


async def _send(stream: trio.SocketStream, data: bytes | bytearray) -> bool:
    """A part of a reply; False if the peer does not take it."""
    with trio.move_on_after(PEER_SECONDS):
        await stream.send_all(data)
        return True
    return False


async def _send_whole(stream: trio.SocketStream, data: bytes | bytearray) -> bool:
    """A reply of one chunk. It goes out even if the daemon is stopping, because that may be what it says."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WORDS_SECONDS):
        await stream.send_all(data)
        return True
    return False
