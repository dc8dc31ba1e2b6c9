"""When a burst must end because trio has something to do in this thread.

Facts: trio waits in one epoll descriptor for all that its tasks wait for; signals and the results of threads have a
socket there. An epoll descriptor is itself readable while something in it is ready. A burst is a step of one task, so
no other task of this thread runs meanwhile.
What follows: a burst may wait in place of trio if no other task can run, if it ends when trio's epoll descriptor
becomes readable, and at trio's next deadline.
Decision: trio tells an *instrument* of each task that becomes able to run and of each step, so we know which tasks can
run (its statistics leave out those of the present round). It tells its next deadline. It does not tell its epoll
descriptor: from 0.22 (Debian 12) to 0.35 that is in one place which is not public, and we look there. Its guest mode is
public, but waits in a second thread, which would be two switches of threads for each of trio's wake-ups.
Cost: if a trio keeps the descriptor elsewhere, bursts do not wait. Then trio wakes up for each run of requests, which
takes some 20 us more, and everything else works as before. A test fails then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from xengt_dm._core import lib
from xengt_dm.ioreq.burst import NEVER, NOW

_SECOND: Final = 1_000_000_000
_LONGEST: Final = 1e6


class Doorbell(trio.abc.Instrument):
    """Rings for the tasks of this thread's trio."""

    def __init__(self) -> None:
        #: The descriptor that is readable when it rings; None if trio's is not found.
        self.fd = _epoll()
        self._able: set[trio.lowlevel.Task] = set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Know from here on which tasks can run. Those that could before are known after two checkpoints."""
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self._able.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._able.discard(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._able.discard(task)

    @property
    def rang(self) -> bool:
        """Whether another task can run already, perhaps because of a request that was just handled."""
        return bool(self._able)

    def deadline(self) -> int:
        """Returns when trio has something to do for which the doorbell does not ring, a time of ``xd_now``."""
        if self.rang or self.fd is None:
            return NOW
        seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if seconds <= 0:
            return NOW
        return NEVER if seconds > _LONGEST else int(lib.xd_now()) + int(seconds * _SECOND)


def _epoll() -> int | None:
    """Returns the epoll descriptor in which trio waits in this thread, or None if it is not where it was."""
    try:
        from trio._core._run import GLOBAL_RUN_CONTEXT

        return int(GLOBAL_RUN_CONTEXT.runner.io_manager._epoll.fileno())
    except (ImportError, AttributeError):
        return None
