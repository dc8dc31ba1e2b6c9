"""Lines that say what the lab is doing, with the seconds since it started."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Prints progress lines and remembers the latest, for the verdict of a run that hangs."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.latest = "starting"

    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Print one line now."""
        self.latest = text
        print(f"[{self.seconds():6.1f}s] {text}", flush=True)

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Print the start and the duration of a step."""
        self.say(text)
        start = time.monotonic()
        yield
        self.say(f"{text}: {time.monotonic() - start:.1f} s")
