"""Where a daemon's log goes and how it looks.

An event has a dotted name that never changes (``domain.gone``) and its facts beside it as keys. On a terminal it is a
coloured line, under systemd a journal entry with a field ``XENGT_...`` for each key, elsewhere a line of JSON.

Facts: the loop that logs is the loop that serves the guest. A write to a terminal that was stopped with Ctrl-S, to a
pipe that nobody empties or to a journal that is overloaded blocks until somebody does something about it.
What follows: a vCPU of the guest would wait for an operator. So we never wait for a log: what cannot be written at once
is lost and counted, and the next event that gets through says so in ``lost``. The cost is one poll(2) for each event.
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
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Protocol, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from xengt_dm.errors import UsageError
from xengt_dm.log.ratelimit import LimitedLog, RateLimiter

#: Values of the standard library's logging, and of syslog(3).
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}
IDENTIFIER: Final = "xengt-dm"
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
#: Keys whose numbers are addresses or frames.
ADDRESS_KEYS: Final = frozenset({"bar0", "gfn", "gpa", "root", "roots", "va"})
#: Bytes of one journal field; a datagram takes about 200 KiB in all.
FIELD_LIMIT: Final = 32 * 1024
#: A pipe that poll(2) finds writable takes so much without blocking, pipe(7).
PIPE_BUF: Final = select.PIPE_BUF


def configure(
    domid: int | None,
    level: str = "info",
    *,
    stream: TextIO | None = None,
    environment: Mapping[str, str] = os.environ,
    journal: str = JOURNAL_SOCKET,
) -> None:
    """Set up logging for this process, anew if need be; every event has the ``domid`` in it.

    ``stream``: standard error if not given. Raises UsageError for an unknown level.
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
    """The logger; good at any time, it follows the latest :func:`configure`."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def set_level(level: str) -> None:
    """Log this level and what is graver, from here on. Raises UsageError for an unknown one."""
    if level not in LEVELS:
        raise UsageError(f"no log level {level!r}; there are: {', '.join(LEVELS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]))


_limiter = RateLimiter(time.monotonic)


def get_limited_logger() -> LimitedLog:
    """The logger for whatever a guest can cause. All have one limit for each event."""
    return LimitedLog(get_logger(), _limiter)


def set_limits(burst: int, seconds_each: float) -> None:
    """The limits of :func:`get_limited_logger` from here on; as :class:`.ratelimit.RateLimiter` takes them."""
    _limiter.set(burst, seconds_each)


def hex_addresses(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Addresses and frames in hexadecimal, as everybody reads them."""
    for key in ADDRESS_KEYS & event.keys():
        value = event[key]
        if isinstance(value, int):
            event[key] = f"{value:#x}"
        elif isinstance(value, (list, tuple)):
            event[key] = [f"{each:#x}" for each in value]
    return event


class Sink(Protocol):
    """Where rendered events go. ``lost``: how many did not get through since the last that did."""

    lost: int

    def msg(self, event: Any) -> None: ...


class _Sink(abc.ABC):
    """The method names that structlog calls, all the same to us."""

    lost = 0

    def msg(self, event: Any) -> None:
        try:
            written = self._write(event)
        except (OSError, ValueError):
            written = False
        self.lost = 0 if written else self.lost + 1

    @abc.abstractmethod
    def _write(self, event: Any) -> bool:
        """Write without waiting; whether that worked."""

    debug = info = warning = error = exception = critical = msg


class StreamSink(_Sink):
    """Lines to a file, pipe or terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._cut = False
        try:
            self._descriptor = stream.fileno()
        except (OSError, ValueError):
            self._descriptor = -1  # only in this process's memory
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
    """Datagrams to journald. ``datagrams`` is connected and does not block."""

    def __init__(self, datagrams: socket.socket) -> None:
        self._datagrams = datagrams

    def _write(self, event: bytes) -> bool:
        self._datagrams.send(event)
        return True


def _connect(path: str) -> socket.socket | None:
    """The journal's socket; None if there is none for us."""
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        datagrams.setblocking(False)
        datagrams.connect(path)
    except OSError:
        datagrams.close()
        return None
    return datagrams


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether this stream is the one that systemd connected to the journal; systemd.exec(5), $JOURNAL_STREAM."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def render_for_journal(_logger: object, method: str, event: MutableMapping[str, Any]) -> bytes:
    """An event in journald's native protocol, https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""
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
