"""Notifies systemd's watchdog, but only while the serve loop makes progress.

Facts: a vCPU whose request is not answered waits for ever. If the loop hangs in a call, no other task of the process
runs either. If the loop is never woken, because an event was lost, the other tasks still run.
What follows: a task that notifies the watchdog without a check would detect only the first of these faults.
Decision: the task compares two looks at the slots. If a request waited at the last look, one waits now, and the loop
neither woke up nor served a request in between, then the loop is stuck, and the task does not notify the watchdog.
systemd then ends the process, and its successor answers the request. Cost: a few loads from the shared page in each
interval.
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
    def activity(self) -> int:
        """A number that grows with each wake-up and with each request that is served."""

    def waiting(self) -> bool:
        """Returns whether a request waits now."""


class Progress:
    """Tells whether a serve loop makes progress, by comparing each look with the last one."""

    def __init__(self, loop: Serving) -> None:
        self._loop = loop
        self._waited = False
        self._seen = loop.activity

    def look(self) -> bool:
        """Returns whether the loop has made progress since the last look, or had nothing to do."""
        waits, seen = self._loop.waiting(), self._loop.activity
        stuck = self._waited and waits and seen == self._seen
        self._waited, self._seen = waits, seen
        return not stuck


async def feed_watchdog(notifier: Notifier, progress: Progress) -> None:
    """Notifies the manager's watchdog at intervals, while there is progress. Returns at once if it has no watchdog."""
    if notifier.watchdog_seconds is None:
        return
    while True:
        if progress.look():
            notifier.alive()
        await trio.sleep(notifier.watchdog_seconds * SHARE)
