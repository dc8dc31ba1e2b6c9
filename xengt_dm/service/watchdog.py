"""The watchdog's proof that the serve loop gets on, not merely that the process lives.

Facts: a vCPU whose request is not answered stands still for good. A loop that hangs in a call keeps every other task of
the process from running; a loop that is never woken, because an event was lost, lets them run.
What follows: a task that only says "alive" proves the first and misses the second.
Decision: two looks at the slots. If a request waited at the last look, one waits now, and the loop did not wake up once
in between, then nobody is going to answer it and we fall silent; systemd ends the process, and its successor adopts the
request. Cost: a handful of loads from the shared page in each interval.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from xengt_dm.service.notify import Notifier

#: sd_watchdog_enabled(3) recommends half of the limit.
SHARE = 0.5


class Progress:
    """Two looks at a serve loop: ``waiting`` says whether a request waits now, ``wakeups`` how often the loop woke."""

    def __init__(self, waiting: Callable[[], bool], wakeups: Callable[[], int]) -> None:
        self._waiting = waiting
        self._wakeups = wakeups
        self._waited = False
        self._woken = wakeups()

    def look(self) -> bool:
        """Whether the loop got on since the last look, or had nothing to do."""
        waits, woken = self._waiting(), self._wakeups()
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
