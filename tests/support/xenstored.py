"""A xenstored of one connection, for tests of the client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xengt_dm.xenstore import Decoder, Message, MessageType, encode

Answer = Callable[[Message], bytes]


class Daemon:
    """A xenstored of one connection: a function from a request to the bytes that come back; none: it hangs up."""

    def __init__(self, path: Path, answer: Answer, piece: int = 1 << 20) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._answer = answer
        self._piece = piece
        self.requests: list[Message] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        decoder = Decoder()
        with connection:
            while data := connection.recv(65536):
                for request in decoder.feed(data):
                    self.requests.append(request)
                    reply = self._answer(request)
                    if not reply:
                        return
                    with suppress(BrokenPipeError):  # nobody waits for it any more
                        for start in range(0, len(reply), self._piece):
                            connection.sendall(reply[start : start + self._piece])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def same(request: Message, payload: bytes) -> bytes:
    return encode(request._replace(payload=payload))


def error(request: Message, name: str) -> bytes:
    return encode(Message(MessageType.ERROR, request.request_id, 0, f"{name}\0".encode()))


def event(path: str) -> bytes:
    return encode(Message(MessageType.WATCH_EVENT, 0, 0, f"{path}\0xengt-dm\0".encode()))
