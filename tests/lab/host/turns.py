"""Whose turn it is to have the host's processors.

Facts: an emulated processor is a thread that turns in circles while it waits for a lock of Xen's or for the other
processor. If the host runs something else in place of the one that holds the lock, the others use the time up. With
two machines of two processors each on a host of two, scenarios took two to five times what they take alone.

What we do: a machine that has as many processors as the host, or more, runs alone; smaller ones run beside each other.
Cost: a processor of the host is idle while such a machine uses one only.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from . import cache
from .progress import Progress


@contextmanager
def processors(cpus: int, progress: Progress) -> Iterator[None]:
    """Waits until a machine of so many processors may run. No other takes its turn until this context ends."""
    kind = fcntl.LOCK_EX if cpus >= len(os.sched_getaffinity(0)) else fcntl.LOCK_SH
    with (cache.directory() / "processors.lock").open("w") as lock:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("waiting until other machines are off")
            fcntl.flock(lock, kind)
        yield
