"""Log events for what a guest causes.

Nothing is logged while a request is served. Instead a daemon looks at its counters at intervals (:meth:`GuestLog.look`)
and logs which of them have grown. These events are also rate-limited, so a guest cannot fill a disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from xengt_dm.log.log import get_limited_logger
from xengt_dm.units import CData

#: Events that were held back are reported at least this often.
FLUSH_SECONDS: Final = 60.0


class GuestLog:
    """Logs which counters have grown since the last look.

    ``counters`` is ``xd_counters *``. ``events`` has (counter, event, level) for each counter to look at; see
    :func:`xengt_dm.stats.table.log_events`. ``clock`` returns seconds and never goes back.
    """

    def __init__(
        self, counters: CData, events: Iterable[tuple[str, str, str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counters = counters
        self._events = tuple(events)
        self._clock = clock
        self._logged = {counter: int(getattr(counters, counter)) for counter, _, _ in self._events}
        self._flushed = clock()

    def look(self) -> None:
        """Logs an event, with the growth as ``new`` and the counter as ``total``, for each counter that has grown."""
        for counter, name, level in self._events:
            now = int(getattr(self._counters, counter))
            new = now - self._logged[counter]
            if new > 0:
                self._logged[counter] = now
                getattr(get_limited_logger(), level)(name, new=new, total=now)
        if self._clock() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Logs how many events were held back and have not been reported yet."""
        self._flushed = self._clock()
        get_limited_logger().flush()
