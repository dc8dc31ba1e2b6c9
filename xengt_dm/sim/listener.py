"""UNIX sockets of the sim: each connection has a thread to itself, so that none waits for another."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from xengt_dm.errors import BusyError, HostError

#: More connections than that are told so, and closed at once.
MOST_CONNECTIONS: Final = 64
#: Longer than any message that a session takes.
_MOST_BYTES: Final = 1 << 18
#: How long to wait for a descriptor for the next connection.
_SHORT_OF_DESCRIPTORS_SECONDS: Final = 0.1


class Session(Protocol):
    """What answers the messages of one connection."""

    def handle(self, message: bytes) -> tuple[bytes, Sequence[int]]:
        """Returns the answer, and descriptors to go with it."""

    def close(self) -> None:
        """Releases what the session owns. Called once, at the end of the connection."""


class Listener:
    """A socket at ``path`` on which messages are answered by sessions, one ``opened`` for each connection.

    A session of a connection that ends is closed, be it in the middle of whatever. Raises BusyError if another process
    listens there, HostError if the socket cannot be made.
    """

    def __init__(self, path: Path, opened: Callable[[], Session], full: bytes) -> None:
        """``full``: what a connection is told that there is no room for."""
        self._path = path
        self._full = full
        self._opened = opened
        self._lock = threading.Lock()
        #: Connections that are open, oldest first, by the threads that serve them. Under the lock.
        self._served: dict[threading.Thread, socket.socket] = {}
        self._socket = _listen(path)
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name=path.name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept no more, end the connections, and return when their sessions are closed."""
        self._closed = True
        with suppress(FileNotFoundError):
            self._path.unlink()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._thread.join()
        self._socket.close()
        with self._lock:
            served = dict(self._served)
        for thread, connection in served.items():
            with suppress(OSError):  # its other end is closed already
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def reap(self) -> None:
        """Returns when the sessions of all clients that are gone by now are closed.

        Facts: when a process ends on Xen, its channels and mappings are gone before another process can notice its end.
        Here a thread must first notice the end of the connection. What follows: the next client, and a test that asks
        what the last client left, wait for that thread.
        """
        gone = []
        with self._lock:
            for thread, connection in self._served.items():
                if thread is threading.current_thread():
                    break  # those that came after this one wait for it
                if _is_gone(connection):
                    gone.append(thread)
        for thread in gone:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(_SHORT_OF_DESCRIPTORS_SECONDS)
                continue
            name = f"{self._path.name} client"
            thread = threading.Thread(target=self._serve, args=[connection], name=name, daemon=True)
            with self._lock:
                if len(self._served) == MOST_CONNECTIONS:
                    _turn_away(connection, self._full)
                    continue
                self._served[thread] = connection
                thread.start()  # under the lock, because a thread that has not started cannot be waited for

    def _serve(self, connection: socket.socket) -> None:
        try:
            self.reap()
            session = self._opened()
            try:
                _serve(connection, session)
            finally:
                session.close()
        except OSError:  # the client went away while it was answered
            pass
        except Exception:  # after a bug of ours only this client loses its connection
            traceback.print_exc()
        finally:
            with self._lock:
                del self._served[threading.current_thread()]
                connection.close()


def _serve(connection: socket.socket, session: Session) -> None:
    """Answer messages until the other end is closed. An empty message, which looks like that, is taken for it."""
    while message := connection.recv(_MOST_BYTES):
        answer, descriptors = session.handle(message)
        socket.send_fds(connection, [answer], descriptors)


def _turn_away(connection: socket.socket, full: bytes) -> None:
    """The domain is there, so a client must not take the end of its connection for that of the domain."""
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.send(full)


def _is_gone(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        if _is_served(path):
            raise BusyError(f"{path}: another sim has this domain")
        with suppress(FileNotFoundError):
            path.unlink()
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(MOST_CONNECTIONS)
    except OSError as error:
        listener.close()
        meaning = None if error.errno else str(error)  # a path that is too long has no errno
        raise HostError(f"listen at {path}", None, error.errno or 0, meaning) from error
    except BaseException:
        listener.close()
        raise
    return listener


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True
