"""What a driver makes of an engine's context status buffer, and what it does not accept.

As i915 does (gt/intel_execlists_submission.c process_csb): an event with bit 0 or bit 1 makes the pending list the
active one; any other event ends the first element of the active list. An event for which there is no such list or
element makes the driver reset the engine, and so it is an error here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ENTRIES: Final = 6
#: Where the buffer is in the engine's status page, and the number of its last entry.
BUFFER, WRITE_INDEX = 0x40, 0x7C
RESET_INDEX: Final = ENTRIES - 1
#: What a driver writes to an entry that it has read; never the value of an event.
READ: Final = (1 << 64) - 1
_PROMOTES: Final = 0x3


class EventError(AssertionError):
    """An event that a driver does not accept."""


class Event(NamedTuple):
    """An entry of the buffer."""

    bits: int
    context: int


class Lists:
    """The lists of an engine as its driver believes them to be. Elements are whatever tells them apart."""

    def __init__(self) -> None:
        self.active: list[object] = []
        self.pending: list[object] = []
        #: Elements that have ended, the first one first.
        self.ended: list[object] = []

    @property
    def idle(self) -> bool:
        return not self.active and not self.pending

    def submit(self, elements: list[object]) -> None:
        """The driver writes a list to the submission port. Raises EventError if it must not now."""
        if self.pending:
            raise EventError("a list is submitted while another one is pending")
        self.pending = list(elements)

    def process(self, event: Event) -> None:
        """Raises EventError for an event that cannot be."""
        if event.bits & _PROMOTES:
            if not self.pending:
                raise EventError(f"event {event.bits:#x} without a pending list")
            self.active, self.pending = self.pending, []
        elif not self.active:
            raise EventError(f"event {event.bits:#x} without an active element")
        else:
            self.ended.append(self.active.pop(0))
