"""Telling systemd how we are, in the protocol of sd_notify(3).

A datagram of ``KEY=value`` lines to the socket that ``NOTIFY_SOCKET`` names. Nothing is told where there is none, and a
datagram that does not get through is lost: the manager's time limits are there for the case that it hears nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG_USEC: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"


class Notifier:
    """This process's line to its service manager.

    Takes the variables out of the ``environment``, so that no child speaks for us. :attr:`watchdog_seconds` is how
    often at least the manager wants to hear that we are alive, None if it does not care.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop(_SOCKET, "")
        self.watchdog_seconds = _watchdog_seconds(environment)
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            try:
                # An @ stands for the NUL of an abstract address, unix(7).
                self._socket.connect("\0" + address[1:] if address.startswith("@") else address)
            except OSError:
                self.close()

    def send(self, **fields: object) -> None:
        """Send the fields; lines breaks in a value become spaces."""
        if self._socket is not None:
            lines = [f"{key}={' '.join(str(value).splitlines())}" for key, value in fields.items()]
            with suppress(OSError):
                self._socket.send("\n".join(lines).encode())

    def ready(self, status: str) -> None:
        """We serve; ``status`` is what `systemctl status` shows."""
        self.send(READY=1, STATUS=status)

    def stopping(self) -> None:
        self.send(STOPPING=1, STATUS="giving everything back")

    def status(self, text: str) -> None:
        """What `systemctl status` shows from here on."""
        self.send(STATUS=text)

    def alive(self) -> None:
        self.send(WATCHDOG=1)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog_seconds(environment: MutableMapping[str, str]) -> float | None:
    """sd_watchdog_enabled(3): the limit in microseconds, and whom it is meant for."""
    limit, pid = environment.pop(_WATCHDOG_USEC, ""), environment.pop(_WATCHDOG_PID, "")
    if not limit.isdecimal() or int(limit) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(limit) / 1e6
