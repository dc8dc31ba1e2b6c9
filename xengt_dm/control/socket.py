"""The UNIX socket under the control protocol: where it is, making it, reaching it."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from xengt_dm.control.protocol import ControlError
from xengt_dm.errors import HostError
from xengt_dm.run_dir.replace import take_away

#: sizeof(sun_path), unix(7), with the NUL that ends it.
ADDRESS_SIZE: Final = 108
BACKLOG: Final = 16
#: What this process lacks if connect fails with one of these.
_OUT_OF_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
#: Between two tries to reach a listener whose backlog is full.
RETRY_SECONDS: Final = 0.01


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """An address for bind or connect; a path too long for one goes through a descriptor of its directory."""
    if len(os.fsencode(path)) < ADDRESS_SIZE:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def connect(path: Path, timeout: float | None) -> socket.socket:
    """Returns a connection to whoever listens at ``path``, which must be a socket and no link to one.

    ``timeout`` as in socket.settimeout; a listener that takes no connection meanwhile is waited for. Raises OSError.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
        connection.settimeout(timeout)
        while True:
            try:
                connection.connect(f"/proc/self/fd/{found}")
                break
            except BlockingIOError:  # its backlog is full, unix(7)
                if deadline is None or time.monotonic() + RETRY_SECONDS > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(found)
    return connection


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at ``path``, for its user only; what a dead process left there is replaced.

    Raises ControlError if a live process listens there, HostError if the socket cannot be made.
    """
    try:
        _remove_stale(path)
        listener, identity = _listen(path)
    except OSError as error:
        raise HostError(f"listen at {path}", None, error.errno or 0, error.strerror) from error
    try:
        yield listener
    finally:
        listener.close()
        with suppress(OSError):
            if _identity(path) == identity:
                path.unlink()


def _listen(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    """Nobody can connect before it listens, and by then it is private."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address_of(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(BACKLOG)
        return listener, _identity(path)
    except BaseException:
        listener.close()
        raise


def _remove_stale(path: Path) -> None:
    """Make room for a new socket, whatever is there. Raises ControlError if a live process listens there, or OSError.

    Whatever else connect answers means that nobody listens, unless this process has no room for a connection.
    """
    try:
        connect(path, timeout=0).close()
    except BlockingIOError:
        pass  # its backlog is full, so it lives
    except OSError as error:
        if error.errno in _OUT_OF_ROOM:
            raise
        take_away(path)
        return
    raise ControlError(f"another process serves at {path}; stop it first")


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
