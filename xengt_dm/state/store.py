"""The place where an instance's state is kept for a successor, as :mod:`xengt_dm.instance` uses it."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Protocol

from xengt_dm.state.buffer import State
from xengt_dm.state.layout import Capacities, Layout


class StateStore(Protocol):
    """The place of one state. Methods raise HostError."""

    def read(self, frames: int) -> State | None:
        """Returns the state that a predecessor left; None if there is none, or none that can be trusted.

        ``frames``: how many frames the domain can have.
        """

    @property
    def problem(self) -> str | None:
        """Why what was found is not used; None if nothing was found, or nothing is wrong with it."""

    @property
    def left_server(self) -> int | None:
        """The id of the server that the state that was found is about, if it is of this domain. Before :meth:`read`."""

    @property
    def certain(self) -> bool:
        """Whether the state that was found has the domain's uuid."""

    def refuse(self, problem: str) -> None:
        """Discards the state that was found, because of ``problem``. No view of it may be used any more."""

    def create(self, capacities: Capacities) -> State:
        """Returns a state of zeros, which replaces the one that was found."""

    def remove(self) -> None:
        """Leaves nothing for a successor. Does nothing if there is nothing."""


class PrivateStore:
    """A :class:`StateStore` that no successor finds."""

    problem: str | None = None
    left_server: int | None = None
    certain = False

    def read(self, frames: int) -> State | None:
        return None

    def refuse(self, problem: str) -> None: ...

    def create(self, capacities: Capacities) -> State:
        """In small pages, so that an untouched page costs nothing."""
        memory = mmap.mmap(-1, Layout(capacities).size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        return State.create(memoryview(memory), capacities)

    def remove(self) -> None: ...
