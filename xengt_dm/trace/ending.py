"""Why a recording ends by itself, and how its trace says so."""

from __future__ import annotations

import enum
from typing import Final


class End(enum.Enum):
    """The reason for which a recording ended by itself."""

    SIZE = "size"
    DURATION = "duration"
    QUEUE = "queue"
    HOLES = "holes"
    FILE = "file"
    UPGRADE = "upgrade"
    #: No trace has this mark, because the process that would write it is dead.
    KILLED = "killed"

    @property
    def mark(self) -> str:
        """The id of the last dump of a trace that was cut. Every version of the format allows it."""
        return f"cut: {self.value}"


#: The reasons in words, for messages.
REASONS: Final = {
    End.SIZE: "the trace has the size that is allowed",
    End.DURATION: "the time that is allowed is over",
    End.QUEUE: "the file takes the events more slowly than the guest causes them",
    End.HOLES: "the domain has holes in too many places",
    End.FILE: "the file cannot be written",
    End.UPGRADE: "the daemon that recorded left its domain to another",
    End.KILLED: "the daemon that recorded died",
}


class EndedError(Exception):
    """A recording ends by itself. ``detail`` is a sentence for people; ``error`` is the file's, if there is one."""

    def __init__(self, end: End, error: OSError | None = None) -> None:
        self.end = end
        self.error = error
        why = "" if error is None else f": {error.strerror or error}"
        self.detail = REASONS[end] + why
        super().__init__(self.detail)
