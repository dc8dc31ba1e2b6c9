"""How a scenario says that something is wrong, and how it waits."""

import time
from collections.abc import Callable

_POLL_SECONDS = 0.05


class ScenarioError(Exception):
    """The scenario failed; the message says why in one line."""


def require(condition: bool, why: str) -> None:
    """Raise ScenarioError unless the condition holds."""
    if not condition:
        raise ScenarioError(why)


def say(text: str) -> None:
    """A progress line for whoever watches the lab."""
    print(f"[lab] {text}", flush=True)


def wait_until(what: str, seconds: float, condition: Callable[[], bool]) -> None:
    """Poll until the condition holds. Raises ScenarioError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ScenarioError(f"waited {seconds:.0f} s for {what}")
        time.sleep(_POLL_SECONDS)
