"""Reports the state of this process to systemd, in the protocol of sd_notify(3).

Each report is a datagram of ``KEY=value`` lines to the socket that ``NOTIFY_SOCKET`` names. Without that variable
nothing is sent. A datagram that cannot be sent is lost; the manager has time limits for that case.
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
    """The connection of this process to its service manager.

    Removes the variables from ``environment``, so that no child process uses the connection. :attr:`watchdog_seconds`
    is the longest time between two calls of :meth:`alive` that the watchdog allows; None if there is no watchdog.
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
        """Sends the fields. Line breaks in a value become spaces."""
        if self._socket is not None:
            lines = [f"{key}={' '.join(str(value).splitlines())}" for key, value in fields.items()]
            with suppress(OSError):
                self._socket.send("\n".join(lines).encode())

    def ready(self, status: str) -> None:
        """Tells the manager that the process serves. `systemctl status` shows ``status``."""
        self.send(READY=1, STATUS=status)

    def stopping(self) -> None:
        """Tells the manager that the process is about to end."""
        self.send(STOPPING=1, STATUS="giving everything back")

    def status(self, text: str) -> None:
        """Sets the text that `systemctl status` shows from here on."""
        self.send(STATUS=text)

    def alive(self) -> None:
        """Tells the manager's watchdog that the process works."""
        self.send(WATCHDOG=1)

    def close(self) -> None:
        """Closes the socket; nothing is sent from here on. Safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog_seconds(environment: MutableMapping[str, str]) -> float | None:
    """Returns the watchdog's limit in seconds, None without one for this process. Source: sd_watchdog_enabled(3)."""
    limit, pid = environment.pop(_WATCHDOG_USEC, ""), environment.pop(_WATCHDOG_PID, "")
    if not limit.isdecimal() or int(limit) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(limit) / 1e6
