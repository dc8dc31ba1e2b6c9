"""The connection to a sim: hypercalls out, answers and descriptors in."""

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from xengt_dm.errors import CallError, DomainGoneError, HostError
from xengt_dm.hypervisor.sim.messages import MOST_BYTES, Call, MessageError, pack, parse_failure, unpack

_MOST_DESCRIPTORS: Final = 4
_GONE: Final = "the sim that the domain was in has ended"


def socket_path(directory: Path, domid: int) -> Path:
    """Where the sim of a domain takes hypercalls."""
    return directory / f"{domid}.hypercalls"


def failure(number: int, domid: int, call: str, meaning: str | None = None) -> CallError:
    """The exception for an errno: ESRCH is a domain that is gone, as on Xen."""
    kind = DomainGoneError if number == errno.ESRCH else HostError
    return kind(call, domid, number, meaning or None)


class Connection:
    """One device model's connection. Any thread may make a call; calls go one at a time."""

    def __init__(self, directory: Path, domid: int) -> None:
        """Raises DomainGoneError if no sim has the domain, HostError if it cannot be reached."""
        self.domid = domid
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        path = socket_path(directory, domid)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
                gone = f"no sim has the domain: start `xengt-dm sim --dir {directory} --domid {domid}`"
                raise DomainGoneError(f"connect {path}", domid, errno.ESRCH, gone) from error
            meaning = None if error.errno else str(error)  # a path that is too long has no errno
            raise HostError(f"connect {path}", domid, error.errno or errno.EINVAL, meaning) from error

    def call(self, call: Call, *arguments: int, name: str) -> tuple[int, ...]:
        """Make a call that returns no descriptors, and return its results.

        ``name`` is what an error calls it if the sim does not. Raises CallError.
        """
        words, descriptors = self.call_for(call, *arguments, name=name, descriptors=0)
        assert not descriptors
        return words

    def call_for(
        self, call: Call, *arguments: int, name: str, descriptors: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """As :meth:`call`; also returns as many descriptors, which the caller must close."""
        try:
            request = pack([call, *arguments])
        except MessageError as error:
            raise HostError(name, self.domid, errno.EINVAL, str(error)) from None
        with self._lock:
            try:
                answer, received = self._exchange(request)
            except ConnectionError as error:
                raise DomainGoneError(name, self.domid, errno.ESRCH, _GONE) from error
            except OSError as error:
                raise HostError(name, self.domid, error.errno or errno.EIO) from error
        try:
            if not answer:
                raise DomainGoneError(name, self.domid, errno.ESRCH, _GONE)
            failed = parse_failure(answer)
            if failed is not None:
                number, what, meaning = failed
                raise failure(number, self.domid, what or name, meaning)
            if len(received) != descriptors:
                raise HostError(name, self.domid, errno.EMFILE, f"{len(received)} of {descriptors} descriptors came")
            words = unpack(answer)[1:]
        except (CallError, MessageError) as error:
            for descriptor in received:
                os.close(descriptor)
            if isinstance(error, MessageError):
                raise HostError(name, self.domid, errno.EPROTO, f"the sim's answer: {error}") from None
            raise
        return words, tuple(received)

    def _exchange(self, request: bytes) -> tuple[bytes, list[int]]:
        """Send a message, and return what comes: at once if the sim had no room for this client, and hung up."""
        with suppress(ConnectionError):
            self._socket.send(request)
        try:
            return socket.recv_fds(self._socket, MOST_BYTES, _MOST_DESCRIPTORS)[:2]
        except ConnectionResetError:  # of what was sent, but what the sim said before is there still
            return socket.recv_fds(self._socket, MOST_BYTES, _MOST_DESCRIPTORS)[:2]

    def close(self) -> None:
        """Safe to call twice."""
        self._socket.close()
