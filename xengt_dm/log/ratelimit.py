"""A limit on how often each kind of event is logged, so that no guest can fill a disk or keep its daemon busy writing.

Whatever a guest can cause is logged through here. What was held back is counted and told: with the next event of that
kind that gets through, or by :meth:`LimitedLog.flush`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

BURST: Final = 10
SECONDS_EACH: Final = 6.0


class RateLimiter:
    """For each event, ``burst`` at once and then one each ``seconds_each`` (GCRA). ``clock`` gives seconds, monotonic.

    Its memory grows with the number of different events, so these are constants of the code, never a guest's words.
    """

    def __init__(self, clock: Callable[[], float], burst: int = BURST, seconds_each: float = SECONDS_EACH) -> None:
        self._clock = clock
        self.set(burst, seconds_each)
        #: When each event would be due if its kind came at the steady rate only.
        self._due: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def set(self, burst: int, seconds_each: float) -> None:
        """Other limits from here on."""
        if burst < 1 or seconds_each <= 0:
            raise ValueError("a limiter lets at least one event through, and each takes time")
        self._seconds_each = seconds_each
        self._tolerance = (burst - 1) * seconds_each

    def admit(self, event: str) -> int | None:
        """How many of this kind were held back since the last that got through; None to hold back this one too."""
        now = self._clock()
        due = max(self._due.get(event, now), now)
        if due - now > self._tolerance:
            self._held_back[event] = self._held_back.get(event, 0) + 1
            return None
        self._due[event] = due + self._seconds_each
        return self._held_back.pop(event, 0)

    def take_held_back(self) -> dict[str, int]:
        """How many of each kind were held back and are not told yet; they count as told now."""
        held_back, self._held_back = self._held_back, {}
        return held_back


class Logger(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...

    def error(self, event: str, **fields: Any) -> Any: ...


class LimitedLog:
    """A logger for what a guest can cause; an event that others were held back before has ``suppressed`` in it."""

    def __init__(self, logger: Logger, limiter: RateLimiter) -> None:
        self._logger = logger
        self._limiter = limiter

    def info(self, event: str, **fields: Any) -> None:
        self._log(self._logger.info, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._log(self._logger.warning, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._log(self._logger.error, event, fields)

    def flush(self) -> None:
        """Tell what was held back and has found no later event to be told with; for now and then, and for the end."""
        for event, count in self._limiter.take_held_back().items():
            self._logger.info("log.suppressed", of=event, suppressed=count)

    def _log(self, log: Callable[..., Any], event: str, fields: dict[str, Any]) -> None:
        held_back = self._limiter.admit(event)
        if held_back is None:
            return
        if held_back:
            fields["suppressed"] = held_back
        log(event, **fields)
