"""The watchdog's proof that the serve loop gets on, not merely that the process lives.

Facts: a vCPU whose request is not answered stands still for good. A loop that hangs in a call keeps every other task of
the process from running; a loop that is never woken, because an event was lost, lets them run.
What follows: a task that only says "alive" proves the first and misses the second.
Decision: two looks at the slots. If a request waited at the last look, one waits now, and the loop did not wake up once
in between, then nobody is going to answer it and we fall silent; systemd ends the process, and its successor adopts the
request. Cost: a handful of loads from the shared page in each interval.
"""

from __future__ import annotations

from typing import Protocol

import trio

from xengt_dm.service.notify import Notifier

#: sd_watchdog_enabled(3) recommends half of the limit.
SHARE = 0.5


class Serving(Protocol):
    """A serve loop; :class:`xengt_dm.ioreq.loop.ServeLoop` is one."""

    @property
    def wakeups(self) -> int:
        """How often it has woken up."""

    def waiting(self) -> bool:
        """Whether a request waits now."""


class Progress:
    """Two looks at a serve loop."""

    def __init__(self, loop: Serving) -> None:
        self._loop = loop
        self._waited = False
        self._woken = loop.wakeups

    def look(self) -> bool:
        """Whether the loop got on since the last look, or had nothing to do."""
        waits, woken = self._loop.waiting(), self._loop.wakeups
        stuck = self._waited and waits and woken == self._woken
        self._waited, self._woken = waits, woken
        return not stuck


async def feed_watchdog(notifier: Notifier, progress: Progress) -> None:
    """Keep the manager's watchdog quiet as long as there is progress; returns at once where there is none to feed."""
    if notifier.watchdog_seconds is None:
        return
    while True:
        if progress.look():
            notifier.alive()
        await trio.sleep(notifier.watchdog_seconds * SHARE)
