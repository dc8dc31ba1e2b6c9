"""Ends a simulation in order when a signal interrupts it, at any moment.

Facts: a vCPU waits in C for the answer to its store. If the task that serves it is cancelled first, the vCPU waits for
ever, and so does a thread that joins it. A KeyboardInterrupt may come between any two steps of Python, also in the
middle of an answer.
What follows: no exception may interrupt the serving task, and no task may wait for a guest that is not served.
Decision: a signal handler only records the signal. A task notices that and destroys the domain, which stops every vCPU
at any point, and ends the rest in order. Then the exception is raised that belongs to the signal. A second signal ends
the process at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import trio

from xengt_dm.service.interruptions import INTERRUPTIONS, as_exception, handled_by


class Ending:
    """The signal that interrupted the simulation, if there was one."""

    def __init__(self) -> None:
        self.number: int | None = None

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """A handler of the signals."""
        if self.number is not None:
            os._exit(128 + number)
        self.number = number

    async def watch(
        self,
        stop: Callable[[], None],
        scope: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Does ``stop`` and cancels ``scope`` once the simulation is interrupted, be it before this began."""
        if threading.current_thread() is not threading.main_thread():
            task_status.started()
            return
        with trio.open_signal_receiver(*INTERRUPTIONS) as signals:
            task_status.started()
            if self.number is None:
                self.note(await anext(signals))
        stop()
        scope.cancel()

    def end(self) -> NoReturn:
        """Raises what the signal is."""
        assert self.number is not None
        raise as_exception(self.number) from None


@contextmanager
def ending_in_order() -> Iterator[Ending]:
    """A block with a simulation in it. If it is interrupted, what goes wrong at its end because of that is passed over.

    Raises KeyboardInterrupt or SystemExit if it was interrupted.
    """
    ending = Ending()
    try:
        with handled_by(ending.note):
            yield ending
    except Exception:
        if ending.number is None:
            raise
    if ending.number is not None:
        ending.end()
