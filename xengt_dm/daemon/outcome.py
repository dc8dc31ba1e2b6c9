"""How a recording ended, and the note by which a successor learns that one ended with its daemon."""

from __future__ import annotations

from typing import Final, Protocol

from xengt_dm.trace.background import BackgroundWriter
from xengt_dm.trace.ending import End, EndedError


class Outcome:
    """A recording that is over. ``error``: why it ended by itself, None if it was told to. ``logged``: its end is."""

    def __init__(self, name: str, writer: BackgroundWriter, error: EndedError | None) -> None:
        self.name = name
        self.logged = False
        self._writer = writer
        self._error = error

    @property
    def error(self) -> EndedError | None:
        """Why it ended by itself. A file that could not be written comes first."""
        return self._writer.error or self._error

    @property
    def events(self) -> int:
        """Events in the file."""
        return self._writer.events

    def wait(self, seconds: float) -> bool:
        """Waits until the file has everything that was recorded, and is closed; False if that takes longer."""
        return self._writer.wait(seconds)

    def describe(self) -> dict[str, object]:
        """What the control socket tells of it; docs/control.md has the meanings."""
        error = self.error
        return {
            "file": self.name,
            "events": self.events,
            "bytes": self._writer.size,
            "complete": self.wait(0),
            "cut": error.end.value if error else None,
            "reason": error.detail if error else None,
        }


class Note(Protocol):
    """The note for a successor of what is being recorded: a :class:`~xengt_dm.state.life.Life`."""

    recording: bool
    recording_name: str


class NoNote:
    """A note that no successor reads."""

    recording = False
    recording_name = ""


class LostOutcome:
    """A recording that ended with a predecessor's death; as :class:`Outcome`."""

    error: Final = EndedError(End.KILLED)
    #: Nobody counted them.
    events: Final = 0
    logged: Final = True

    def __init__(self, name: str) -> None:
        self.name = name

    def wait(self, seconds: float) -> bool:
        return True

    def describe(self) -> dict[str, object]:
        return {
            "file": self.name,
            "events": None,
            "bytes": None,
            "complete": False,
            "cut": self.error.end.value,
            "reason": self.error.detail,
        }
