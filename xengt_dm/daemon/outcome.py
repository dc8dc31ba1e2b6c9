"""How a recording ended, and the note by which a successor learns that one ended with its daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from xengt_dm.trace.ending import End, EndedError

if TYPE_CHECKING:
    from xengt_dm.trace.background import BackgroundWriter


class Outcome:
    """A recording that is over. ``logged``: whether its end has been logged."""

    def __init__(self, name: str, writer: BackgroundWriter, error: EndedError | None) -> None:
        self.name = name
        self.logged = False
        self._writer = writer
        self._error = error

    @property
    def error(self) -> EndedError | None:
        """Why the recording ended by itself; None if it was stopped. A failure to write the file takes precedence."""
        return self._writer.error or self._error

    @property
    def events(self) -> int:
        """The number of events in the file."""
        return self._writer.events

    def wait(self, seconds: float) -> bool:
        """Waits until everything that was recorded is written and the file is closed, for at most ``seconds``.

        Returns False if that takes longer.
        """
        return self._writer.wait(seconds)

    def describe(self) -> dict[str, object]:
        """Returns what the control socket reports about the recording; docs/control.md explains the keys."""
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
    #: Not 0 if the daemon that wrote the note left its domain to a successor, and so did not die.
    left_at: int


class NoNote:
    """A note that no successor reads."""

    recording = False
    recording_name = ""
    left_at = 0


class LostOutcome:
    """The end of a recording of a predecessor; has the methods of :class:`Outcome`.

    ``handed_over``: the predecessor left its domain to us on purpose, after it had written the whole recording.
    """

    #: The number of events is not known.
    events: Final = 0
    logged: Final = True

    def __init__(self, name: str, *, handed_over: bool) -> None:
        self.name = name
        self.error = EndedError(End.UPGRADE if handed_over else End.KILLED)
        self._complete = handed_over

    def wait(self, seconds: float) -> bool:
        """Returns True: nothing is left to be written."""
        return True

    def describe(self) -> dict[str, object]:
        """As :meth:`Outcome.describe`; events and bytes are None, because they are not known."""
        return {
            "file": self.name,
            "events": None,
            "bytes": None,
            "complete": self._complete,
            "cut": self.error.end.value,
            "reason": self.error.detail,
        }
