"""Where log events go and how they look.

An event has a dotted name that never changes (``daemon.serving``), and its facts as keys. On a terminal it is a
coloured line, under systemd a journal entry with a field ``XENGT_...`` for each key, and elsewhere a line of JSON.

Facts: the thread that logs also serves the guest. A write blocks if the terminal was stopped with Ctrl-S, if the pipe
is full, or if the journal is overloaded.
What follows: a vCPU of the guest would wait until an operator does something about it.
What we do: never wait for a log. An event that cannot be written at once is lost and counted, and the next event that
is written has the number in ``lost``.
Cost: one poll(2) for each event, and lost events.
"""

from __future__ import annotations

import abc
import json
import os
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Protocol, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from xengt_dm.errors import UsageError
from xengt_dm.log.ratelimit import LimitedLog, RateLimiter
from xengt_dm.printable import printable

#: Values of the standard library's logging, and of syslog(3).
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}
IDENTIFIER: Final = "xengt-dm"
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
#: Keys whose values are addresses or frame numbers. They are shown in hexadecimal.
ADDRESS_KEYS: Final = frozenset({"bar0", "gfn", "gpa", "root", "roots", "va"})
#: The longest value of a journal field, in bytes. A datagram holds about 200 KiB in all.
FIELD_LIMIT: Final = 32 * 1024
#: A pipe that poll(2) finds writable takes this many bytes without blocking, pipe(7).
PIPE_BUF: Final = select.PIPE_BUF


def configure(
    domid: int | None,
    level: str = "info",
    *,
    stream: TextIO | None = None,
    environment: Mapping[str, str] = os.environ,
    journal: str = JOURNAL_SOCKET,
) -> None:
    """Sets up logging for this process; may be called again. Every event has ``domid``, unless that is None.

    ``stream`` is where events go if the journal does not take them: standard error by default. ``environment`` and
    ``journal`` say whether and where systemd's journal listens. Raises UsageError for an unknown level.
    """
    stream = stream or sys.stderr
    sink: Sink
    render: list[Processor]
    if _is_journal(stream, environment) and (datagrams := _connect(journal)) is not None:
        sink = JournalSink(datagrams)
        render = [structlog.processors.format_exc_info, render_for_journal]
    elif stream.isatty():
        sink = StreamSink(stream)
        colours = "NO_COLOR" not in environment and environment.get("TERM") != "dumb"
        render = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            printable_values,
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback),
        ]
    else:
        sink = StreamSink(stream)
        render = [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]

    def add_origin(_logger: object, _method: str, event: EventDict) -> EventDict:
        if domid is not None:
            event.setdefault("domid", domid)
        if sink.lost:
            event["lost"] = sink.lost
        return event

    structlog.configure(
        processors=[structlog.processors.add_log_level, add_origin, hex_addresses, *render],
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,  # so that a level can change while the daemon runs
    )
    set_level(level)


def get_logger() -> FilteringBoundLogger:
    """Returns the logger. It follows later calls of :func:`configure`, so it may be kept."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def set_level(level: str) -> None:
    """From now on logs only events of ``level`` and of more severe levels. Raises UsageError for an unknown level."""
    if level not in LEVELS:
        raise UsageError(f"no log level {level!r}; there are: {', '.join(LEVELS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]))


_limiter = RateLimiter(time.monotonic)


def get_limited_logger() -> LimitedLog:
    """Returns the rate-limited logger, for events that a guest can cause. Each event has one limit in the process."""
    return LimitedLog(get_logger(), _limiter)


def set_limits(burst: int, seconds_each: float) -> None:
    """Sets the limits of :func:`get_limited_logger`. The parameters are those of :class:`.ratelimit.RateLimiter`."""
    _limiter.set(burst, seconds_each)


def hex_addresses(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: shows addresses and frame numbers in hexadecimal."""
    for key in ADDRESS_KEYS & event.keys():
        value = event[key]
        if isinstance(value, int):
            event[key] = f"{value:#x}"
        elif isinstance(value, (list, tuple)):
            event[key] = [f"{each:#x}" for each in value]
    return event


def printable_values(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: escapes characters that a terminal acts on, which the name of a domain may contain."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = printable(value)
    return event


class Sink(Protocol):
    """Where rendered events go. ``lost`` is the number of events lost since the last that was written."""

    lost: int

    def msg(self, event: Any) -> None:
        """Writes a rendered event without waiting, or counts it as lost."""


class _Sink(abc.ABC):
    """Has the methods that structlog calls, one for each level. All of them write."""

    lost = 0
    #: The watcher logs from its worker threads, too, and a poll object serves one thread at a time.
    _lock = threading.Lock()

    def msg(self, event: Any) -> None:
        with self._lock:
            try:
                written = self._write(event)
            except (OSError, ValueError):
                written = False
            self.lost = 0 if written else self.lost + 1

    @abc.abstractmethod
    def _write(self, event: Any) -> bool:
        """Writes an event without waiting. Returns False if that is not possible now."""

    debug = info = warning = error = exception = critical = msg


class StreamSink(_Sink):
    """Writes lines to a file, pipe or terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._cut = False
        try:
            self._descriptor = stream.fileno()
        except (OSError, ValueError):
            self._descriptor = -1  # the stream is in this process's memory
        else:
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLOUT)

    def _write(self, event: str) -> bool:
        if self._descriptor < 0:
            self._stream.write(event + "\n")
            return True
        data = f"{event}\n".encode("utf-8", "backslashreplace")
        if self._cut:
            data = b"\n" + data
        rest = memoryview(data)
        while rest:
            if not self._poll.poll(0):
                self._cut = self._cut or len(rest) < len(data)
                return False
            rest = rest[os.write(self._descriptor, rest[:PIPE_BUF]) :]
            self._cut = bool(rest)
        return True


class JournalSink(_Sink):
    """Sends datagrams to journald. ``datagrams`` is a connected, non-blocking socket."""

    def __init__(self, datagrams: socket.socket) -> None:
        self._datagrams = datagrams

    def _write(self, event: bytes) -> bool:
        self._datagrams.send(event)
        return True


def _connect(path: str) -> socket.socket | None:
    """Returns a socket connected to the journal, or None if there is no journal that we may write to."""
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        datagrams.setblocking(False)
        datagrams.connect(path)
    except OSError:
        datagrams.close()
        return None
    return datagrams


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Returns whether systemd connected this stream to the journal. Source: systemd.exec(5), $JOURNAL_STREAM."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def render_for_journal(_logger: object, method: str, event: MutableMapping[str, Any]) -> bytes:
    """A structlog processor: renders an event in journald's native protocol.

    Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
    """
    name = str(event.pop("event", ""))
    level = str(event.pop("level", method))
    exception = event.pop("exception", None)
    facts = {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in event.items()}
    message = " ".join([name, *(f"{key}={value}" for key, value in facts.items())])
    if exception:
        message += f"\n{exception}"
    fields = [
        ("MESSAGE", message),
        ("PRIORITY", str(PRIORITIES.get(level, PRIORITIES["info"]))),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("XENGT_EVENT", name),
        *(("XENGT_" + re.sub("[^A-Z0-9_]", "_", key.upper())[:58], value) for key, value in facts.items()),
    ]
    return b"".join(_field(key, value) for key, value in fields)


def _field(key: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")[:FIELD_LIMIT]
    if b"\n" in data:
        return b"%s\n%s%s\n" % (key.encode(), struct.pack("<Q", len(data)), data)
    return b"%s=%s\n" % (key.encode(), data)
