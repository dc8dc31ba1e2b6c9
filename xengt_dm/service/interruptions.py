"""Signals that ask a command to end, for work that must not be left in its middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def as_exception(number: int) -> BaseException:
    """Returns what ends a command that got a signal: KeyboardInterrupt, or SystemExit with a shell's status for it."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def interruptions_raised() -> Iterator[None]:
    """A block in which each of the signals is an exception, so that what was done can be undone."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise as_exception(number)

    with handled_by(stop):
        yield


@contextmanager
def interruptions_held() -> Iterator[None]:
    """A block that is not interrupted in its middle: the first signal is raised at its end, a second one at once."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise as_exception(number)

    with handled_by(note):
        yield
    if came:
        raise as_exception(came[0])


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A block with a handler for the signals, but for those that are ignored; only the main thread can have one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    changed = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    try:
        for number in changed:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in changed.items():
            signal.signal(number, old)
