"""How often a daemon looks whether its domain is still there.

Facts: a look is about 0.2 million instructions, most of them in the event loop and the hypercall. A host has many
domains, and most of them do nothing with their GPU. After a look at which nothing had happened, nothing is left to be
done but to notice the end of the domain.
Decision: while the guest is idle, the time between two looks is :data:`IDLE_SHARE` times as long, but no longer than
:data:`IDLE_SECONDS`, unless it is configured so.
Cost: an instance of an idle guest ends up to that much later than its domain, and so long the domain's memory that the
instance has mapped stays in use; the first events of a guest that was idle are logged as much later.
"""

from __future__ import annotations

from typing import Final, Protocol

IDLE_SHARE: Final = 4
IDLE_SECONDS: Final = 2.0


class Serving(Protocol):
    """A serve loop; :class:`xengt_dm.ioreq.loop.ServeLoop` is one."""

    @property
    def wakeups(self) -> int:
        """How often it has woken up."""


class Pace:
    """Chooses the time until the next look."""

    def __init__(self, loop: Serving) -> None:
        self._loop = loop
        self._woken = loop.wakeups

    def pause(self, interval: float, *, unfinished: bool) -> float:
        """Returns for how many seconds to wait after a look. To be called once for each.

        ``interval``: as it is configured, in seconds. ``unfinished``: the look left something to be done.
        """
        woken, self._woken = self._woken, self._loop.wakeups
        if unfinished or woken != self._woken:
            return interval
        return max(interval, min(interval * IDLE_SHARE, IDLE_SECONDS))
