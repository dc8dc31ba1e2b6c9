"""A control socket: its commands as functions, and peers that send what they like."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio
import trio.testing

from xengt_dm.control import commands
from xengt_dm.control.server import Handler, serve_control
from xengt_dm.control.socket import connect
from xengt_dm.daemon.recording import Recording
from xengt_dm.instance import Instance


def handlers_of(instance: Instance, recording: Recording) -> dict[str, Callable[[commands.Arguments], object]]:
    """The commands of the control socket by name; nothing happens on ``stop``."""
    return commands.handlers(commands.Target(instance, recording, lambda: None, 0.0))


STATUS = b'{"v": 1, "cmd": "status"}\n'


class Peer:
    """A client that sends what it likes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def receive(self) -> Any:
        """The next reply; None at the end of the connection."""
        while b"\n" not in self._received:
            try:
                data = await self.stream.receive_some(1 << 16)
            except trio.BrokenResourceError:
                return None  # the server closed with something of ours unread
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    async def ask(self, request: bytes) -> Any:
        await self.stream.send_all(request)
        return await self.receive()

    async def error(self, request: bytes) -> str:
        reply = await self.ask(request)
        assert reply["v"] == 1
        assert reply["ok"] is False
        assert reply["error"]["message"]
        return str(reply["error"]["code"])


OPENED: list[Peer] = []


async def open_peer(path: Path) -> Peer:
    peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(connect(path, None))))
    OPENED.append(peer)
    return peer


def close_peers() -> None:
    while OPENED:
        OPENED.pop().stream.socket.close()


def status(arguments: Mapping[str, object]) -> object:
    return {"arguments": dict(arguments)}


def with_server(
    path: Path,
    body: Callable[[Path], Awaitable[None]],
    handlers: Mapping[str, Handler] | None = None,
    clock: trio.abc.Clock | None = None,
) -> None:
    """Run ``body`` beside a server at ``path``."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, path, handlers or {"status": status})
            try:
                await body(path)
            finally:
                close_peers()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
