"""What a guest causes, in the log: told now and then from the counters, never at the request that did it.

So there is no log call for any ioreq, and what is told goes through the limiter besides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from xengt_dm.log.log import get_limited_logger
from xengt_dm.units import CData

#: What was held back is told at least so often.
FLUSH_SECONDS: Final = 60.0


class GuestEvent(NamedTuple):
    """The event that tells that a counter grew."""

    counter: str
    name: str
    level: str


EVENTS: Final = (
    GuestEvent("malformed_requests", "guest.malformed_requests", "warning"),
    GuestEvent("unknown_requests", "guest.unknown_requests", "warning"),
    GuestEvent("dropped_stores", "guest.dropped_stores", "warning"),
    GuestEvent("unsupported_entries", "guest.unsupported_entries", "warning"),
    GuestEvent("invalid_entries", "guest.invalid_entries", "info"),
    GuestEvent("quota_entries", "guest.quota_entries", "warning"),
    GuestEvent("unprotectable_entries", "guest.unprotectable_entries", "warning"),
    GuestEvent("ignored_notifications", "guest.ignored_notifications", "info"),
    GuestEvent("vanished_pages", "guest.vanished_pages", "info"),
    GuestEvent("reclaimed_spaces", "guest.reclaimed_spaces", "info"),
    GuestEvent("audit_mismatches", "shadow.mismatches", "error"),
    GuestEvent("audit_overdue", "shadow.overdue", "error"),
)


class GuestLog:
    """Tells of what happened since the last look. ``counters`` is ``xd_counters *``."""

    def __init__(self, counters: CData, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        self._told = {event.counter: int(getattr(counters, event.counter)) for event in EVENTS}
        self._flushed = clock()

    def look(self) -> None:
        log = get_limited_logger()
        for counter, name, level in EVENTS:
            now = int(getattr(self._counters, counter))
            new = now - self._told[counter]
            if new > 0:
                self._told[counter] = now
                getattr(log, level)(name, new=new, total=now)
        if self._clock() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Tell how many events were held back and are not told yet."""
        self._flushed = self._clock()
        get_limited_logger().flush()
