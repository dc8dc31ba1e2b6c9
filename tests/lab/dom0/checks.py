"""How a scenario says that something is wrong, how large it is, and how it waits."""

import time
from collections.abc import Callable
from pathlib import Path

_POLL_SECONDS = 0.05
#: What is waited for stands still: the least that any wait allows, whatever its caller asks for. Some steps of a start
#: show no sign of life, and an emulated machine that shares its processors takes minutes for them.
STILL_SECONDS = 300
#: Of one wait, however much moves.
_LONGEST_SECONDS = 3600
#: How often a wait says that something moves. tests/lab/host/machine.py gives up when nobody says anything.
_SAY_SECONDS = 60
_FULL = Path("/lab/full")


class ScenarioError(Exception):
    """The scenario failed; the message says why in one line."""


def require(condition: bool, why: str) -> None:
    """Raise ScenarioError unless the condition holds."""
    if not condition:
        raise ScenarioError(why)


def say(text: str) -> None:
    """A progress line for whoever watches the lab."""
    print(f"[lab] {text}", flush=True)


def sized(gate: int, full: int) -> int:
    """A number that is smaller in a run that has to be short than in one that was asked to be full."""
    return full if _FULL.exists() else gate


class Patience:
    """Waits for something as long as something moves: a slow machine is no reason to fail.

    What is to be seen moving gets so many seconds without a change, and never less than STILL_SECONDS.
    """

    def __init__(self, what: str, seconds: float) -> None:
        self._what = what
        self._still = max(seconds, STILL_SECONDS)
        self._start = self._moved = self._said = time.monotonic()
        self._sign: object = None

    def look(self, sign: object) -> None:
        """Compare a sign of life with the one before it. Raises ScenarioError if it has been the same for too long."""
        now = time.monotonic()
        if sign != self._sign:
            self._sign, self._moved = sign, now
        if now > self._moved + self._still:
            raise ScenarioError(
                f"waited {now - self._start:.0f} s for {self._what}, nothing has moved for {self._still:.0f} s"
            )
        if now > self._start + _LONGEST_SECONDS:
            raise ScenarioError(f"waited {now - self._start:.0f} s for {self._what}")
        if now > self._said + _SAY_SECONDS:
            self._said = now
            say(f"waiting for {self._what}; something moved {now - self._moved:.0f} s ago")


def wait_until(
    what: str, seconds: float, condition: Callable[[], bool], moving: Callable[[], object] | None = None
) -> None:
    """Poll until the condition holds.

    Raises ScenarioError when what `moving` returns has been the same for so many seconds (see Patience). Without
    `moving`, nothing is known to move.
    """
    patience = Patience(what, seconds)
    while not condition():
        patience.look(moving() if moving is not None else None)
        time.sleep(_POLL_SECONDS)
