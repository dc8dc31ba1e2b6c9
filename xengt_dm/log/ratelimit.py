"""A limit on how often each event is logged, so that a guest cannot fill a disk or keep its daemon busy writing.

Events that a guest can cause are logged through this module. Events that are held back are counted. The next event of
the same name that is logged reports their number, or :meth:`LimitedLog.flush` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

BURST: Final = 10
SECONDS_EACH: Final = 6.0


class RateLimiter:
    """Admits ``burst`` events of each name at once, and after that one every ``seconds_each`` (algorithm: GCRA).

    ``clock`` returns seconds and never goes back. Memory grows with the number of different names, so names must be
    constants of the code and never come from a guest.
    """

    def __init__(self, clock: Callable[[], float], burst: int = BURST, seconds_each: float = SECONDS_EACH) -> None:
        self._clock = clock
        self.set(burst, seconds_each)
        #: By name: when the next event would be due if events came at the steady rate only.
        self._due: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def set(self, burst: int, seconds_each: float) -> None:
        """Sets other limits. Raises ValueError if ``burst`` is below 1 or ``seconds_each`` is not positive."""
        if burst < 1 or seconds_each <= 0:
            raise ValueError("burst must be at least 1, and seconds_each must be positive")
        self._seconds_each = seconds_each
        self._tolerance = (burst - 1) * seconds_each

    def admit(self, event: str) -> int | None:
        """Returns None if this event must be held back, too.

        Otherwise returns how many events of this name were held back since the last one that was admitted.
        """
        now = self._clock()
        due = max(self._due.get(event, now), now)
        if due - now > self._tolerance:
            self._held_back[event] = self._held_back.get(event, 0) + 1
            return None
        self._due[event] = due + self._seconds_each
        return self._held_back.pop(event, 0)

    def take_held_back(self) -> dict[str, int]:
        """Returns by name how many events were held back and not reported yet. They count as reported now."""
        held_back, self._held_back = self._held_back, {}
        return held_back


class Logger(Protocol):
    """A logger of events with fields, as structlog has it."""

    def info(self, event: str, **fields: Any) -> Any:
        """Logs an event at level info."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Logs an event at level warning."""

    def error(self, event: str, **fields: Any) -> Any:
        """Logs an event at level error."""


class LimitedLog:
    """A rate-limited logger. An event before which others were held back has their number in ``suppressed``."""

    def __init__(self, logger: Logger, limiter: RateLimiter) -> None:
        self._logger = logger
        self._limiter = limiter

    def info(self, event: str, **fields: Any) -> None:
        """Logs an event at level info, or counts it if its name is due later."""
        self._log(self._logger.info, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """As :meth:`info`, at level warning."""
        self._log(self._logger.warning, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """As :meth:`info`, at level error."""
        self._log(self._logger.error, event, fields)

    def flush(self) -> None:
        """Logs ``log.suppressed`` for each event that was held back and not reported since.

        Must be called at intervals, and at the end.
        """
        for event, count in self._limiter.take_held_back().items():
            self._logger.info("log.suppressed", of=event, suppressed=count)

    def _log(self, log: Callable[..., Any], event: str, fields: dict[str, Any]) -> None:
        held_back = self._limiter.admit(event)
        if held_back is None:
            return
        if held_back:
            fields["suppressed"] = held_back
        log(event, **fields)
