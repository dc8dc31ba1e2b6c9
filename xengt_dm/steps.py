"""Work in slices, so that the vCPUs of other requests need not wait until long work is complete.

Facts: one store of a guest can link a tree of 65,000 page tables, which takes seconds. Other vCPUs, signals and the
operator are served by the same thread. What follows: such work is a generator that yields after each *slice*: at most
64 changes of p2m types, or 512 mapped frames, or about half a millisecond. Its caller looks at the ioreq slots after
each slice, as :meth:`xengt_dm.ioreq.loop.ServeLoop.run` does. Where no request can wait, :func:`complete` runs all
slices at once. Most work fits in one slice and needs no generator: a method may do it at once and return None, or
return steps that do the rest.

At each yield the shadow tables are consistent. Until the work continues, frames, tables and spaces may change. So a
piece of work keeps nothing across a yield but table numbers that it holds a reference to. Work may be closed at a
yield, and then does not continue.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")

#: Work that ends with a value.
Steps = Generator[None, None, _T]


class Slices(Generic[_T]):
    """The slices of a piece of work, to iterate over; after the last one, ``value`` is the value of the work."""

    value: _T

    def __init__(self, steps: Steps[_T]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[None]:
        self.value = yield from self._steps


def complete(steps: Steps[_T]) -> _T:
    """Run work to its end. Returns its value, and raises what it raises."""
    slices = Slices(steps)
    for _ in slices:
        pass
    return slices.value


def begin(steps: Steps[_T]) -> Steps[_T] | None:
    """Do the first slice of work. Returns the rest, or None if that was all of it."""
    ended = object()
    return None if next(steps, ended) is ended else steps


def begun(steps: Steps[_T]) -> Steps[_T]:
    """The rest of work whose first slice has been made just now, so that others are served before the next one."""
    yield
    return (yield from steps)


def finish(steps: Steps[object] | None) -> None:
    """Run what is left of work, if anything is."""
    if steps is not None:
        complete(steps)


def in_order(work: Iterable[Steps[object]]) -> Steps[None]:
    """Runs pieces of work one after the other."""
    for each in work:
        yield from each
