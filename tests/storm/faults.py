"""Faults that a storm must find: each takes out one thing that a successor needs. The zygote calls one of them."""

from __future__ import annotations

from typing import Any

from xengt_dm import instance
from xengt_dm.ioreq.journal import Journal, Progress
from xengt_dm.ioreq.slots import Slots
from xengt_dm.ppgtt.space import LiveSpaces


def no_journal() -> None:
    """Nothing is recorded of a request, so a successor does each one afresh that was begun (J3)."""

    def change(self: Journal, word: int, value: int) -> None:
        self.words[word] = value

    Journal.change = change  # type: ignore[method-assign]
    Journal.copies = lambda self, vcpu, element, value, old: None  # type: ignore[method-assign]
    Journal.done = lambda self, vcpu, elements: None  # type: ignore[method-assign]
    Journal.progress = lambda self, vcpu: Progress()  # type: ignore[method-assign]
    Journal.take_over = lambda self, regions: None  # type: ignore[method-assign]


def forget_registers() -> None:
    """A successor's device begins with a reset, as if nobody had used it."""
    wire = instance._wire

    def wired(*arguments: Any) -> instance.Instance:
        made = wire(*arguments)
        made.device.reset()
        return made

    instance._wire = wired  # type: ignore[assignment]


def forget_spaces() -> None:
    """The live spaces are nowhere but in the process."""
    init = LiveSpaces.__init__

    def without_memory(self: LiveSpaces, most: int, memory: object = None, *rest: Any) -> None:
        init(self, most, None, *rest)

    LiveSpaces.__init__ = without_memory  # type: ignore[assignment,method-assign]


def leave_answers() -> None:
    """A successor does not notify the vCPUs that its predecessor answered (J4)."""
    Slots.answered = lambda self: []  # type: ignore[method-assign]
