"""How often a daemon checks whether its domain still exists.

Facts: a check is about 0.2 million instructions, most of them in the event loop and the hypercall. A host has many
domains, and most of them do nothing with their GPU. After a check that found nothing to do, the only thing that the
next check may have to notice is the end of the domain.
Decision: while the guest is idle, the time between two checks is :data:`IDLE_SHARE` times as long, but no longer than
:data:`IDLE_SECONDS`, unless the configured interval is longer than that.
What a check has left undone is tried again after :data:`SOON_SECONDS`, and then after twice as long each time: a page
that cannot be unprotected because a vCPU is storing to it costs a trap for each store.
Cost: the instance of an idle guest may end up to that much later than its domain. Until then Xen cannot free the pages
of the domain that the instance has mapped. The first events after an idle time are logged up to that much later.
"""

from __future__ import annotations

from typing import Final, Protocol

IDLE_SHARE: Final = 4
IDLE_SECONDS: Final = 2.0
SOON_SECONDS: Final = 0.01


class Serving(Protocol):
    """A serve loop; :class:`xengt_dm.ioreq.loop.ServeLoop` is one."""

    @property
    def activity(self) -> int:
        """A number that grows with each wake-up and with each request that is served."""


class Pace:
    """Chooses the time until the next check."""

    def __init__(self, loop: Serving) -> None:
        self._loop = loop
        self._seen = loop.activity
        self._soon = SOON_SECONDS / 2

    def pause(self, interval: float, *, unfinished: bool) -> float:
        """Returns for how many seconds to wait until the next check. Must be called once after each check.

        ``interval``: the configured time, in seconds. ``unfinished``: the check left work to be done.
        """
        seen, self._seen = self._seen, self._loop.activity
        if unfinished:
            self._soon = min(2 * self._soon, interval)
            return self._soon
        self._soon = SOON_SECONDS / 2
        if seen != self._seen:
            return interval
        return max(interval, min(interval * IDLE_SHARE, IDLE_SECONDS))
