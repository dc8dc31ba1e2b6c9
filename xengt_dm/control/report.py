"""What an engine says to people and programs: the answers on the control socket, and the dumps of docs/trace-format.md.

Where a guest decides how long an answer is (it has as many address spaces as it likes, each of up to a million runs),
the control socket's answers are lazy: one space at a time, so that neither the memory of the daemon nor the time
between two looks at the guest grows with their number.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from xengt_dm import __version__
from xengt_dm.control.json_stream import LazyList, LazyObject
from xengt_dm.errors import DataError, UsageError
from xengt_dm.stats.counters import read_counters

#: Runs that one dump on the control socket lists, over all spaces; what no longer fits is truncated. About 90 MiB.
DUMP_RUNS: Final = 1 << 21
#: GPU addresses have 48 bits.
VA_LIMIT: Final = 1 << 48

Arguments = Mapping[str, object]
Handler = Callable[[Arguments], object]


class Space(Protocol):
    """What is read of a :class:`xengt_dm.ppgtt.space.Space`."""

    @property
    def mode(self) -> enum.Enum: ...

    @property
    def roots(self) -> tuple[int, ...]: ...

    @property
    def refs(self) -> int: ...


class Page(Protocol):
    @property
    def va(self) -> int: ...

    @property
    def gpa(self) -> int: ...

    @property
    def writable(self) -> int: ...

    @property
    def cache(self) -> int: ...


S = TypeVar("S", bound=Space)


class Engine(Protocol[S]):
    """What is asked of a :class:`xengt_dm.ppgtt.engine.Engine`; its docstrings hold."""

    @property
    def generation(self) -> int: ...

    @property
    def sync(self) -> enum.Enum: ...

    @property
    def counters(self) -> Any: ...

    @property
    def spaces(self) -> Sequence[S]: ...

    def mappings(self, space: S) -> Sequence[Sequence[int]] | None: ...

    def resolve(self, space: S, va: int) -> Page | None: ...

    def audit(self, space: S) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Instance:
    """What a daemon knows of itself. ``started``: when it began to serve, in seconds on the clock of its handlers."""

    domid: int
    server: int
    vcpus: int
    started: float


def dump_spaces(engine: Engine[S]) -> list[dict[str, object]]:
    """The ``spaces`` of a dump as docs/trace-format.md has them, all at once."""
    return [_described(space, engine.mappings(space)) for space in engine.spaces]


def audit_spaces(engine: Engine[S]) -> int:
    """Audit every live space; how many entries differ or are overdue."""
    return sum(sum(engine.audit(space)) for space in engine.spaces)


def control_handlers(
    engine: Engine[S], instance: Instance, clock: Callable[[], float] = time.monotonic
) -> dict[str, Handler]:
    """The commands that an engine answers, for :func:`.control_server.serve_control`."""

    def status(arguments: Arguments) -> object:
        allow(arguments)
        return {
            "domid": instance.domid,
            "pid": os.getpid(),
            "version": __version__,
            "mode": engine.sync.value,
            "generation": engine.generation,
            "vcpus": instance.vcpus,
            "server": instance.server,
            "uptime_seconds": round(clock() - instance.started, 3),
            "counters": read_counters(engine.counters),
        }

    def spaces(arguments: Arguments) -> object:
        allow(arguments)
        return LazyList({**_name(space), "refs": space.refs} for space in _live(engine))

    def walk(arguments: Arguments) -> object:
        allow(arguments, "va", "mode", "root")
        va = arguments.get("va")
        if type(va) is not int or not 0 <= va < VA_LIMIT:
            raise UsageError('"va" is a GPU address: an integer from 0 to 2^48 - 1')
        chosen = _chosen(engine, arguments)
        return LazyObject(iter([("va", va), ("spaces", LazyList(_walked(engine, space, va) for space in chosen))]))

    def dump(arguments: Arguments) -> object:
        allow(arguments)
        return LazyObject(_dump(engine))

    def audit(arguments: Arguments) -> object:
        allow(arguments)
        return LazyObject(_audit(engine))

    return {"status": status, "spaces": spaces, "walk": walk, "dump": dump, "audit": audit}


def _dump(engine: Engine[S]) -> Iterator[tuple[str, object]]:
    mismatches = overdue = 0

    def spaces() -> Iterator[object]:
        nonlocal mismatches, overdue
        left = DUMP_RUNS
        for space in _live(engine):
            mappings = engine.mappings(space) if left else None
            if mappings is not None and len(mappings) > left:
                mappings, left = None, 0
            left -= len(mappings or ())
            found = engine.audit(space)
            mismatches, overdue = mismatches + found[0], overdue + found[1]
            yield _described(space, mappings)

    yield "spaces", LazyList(spaces())
    yield "counters", read_counters(engine.counters)
    yield "audit_mismatches", mismatches
    yield "audit_overdue", overdue


def _audit(engine: Engine[S]) -> Iterator[tuple[str, object]]:
    mismatches = overdue = 0

    def spaces() -> Iterator[object]:
        nonlocal mismatches, overdue
        for space in _live(engine):
            found = engine.audit(space)
            mismatches, overdue = mismatches + found[0], overdue + found[1]
            yield {**_name(space), "mismatches": found[0], "overdue": found[1]}

    yield "spaces", LazyList(spaces())
    yield "audit_mismatches", mismatches
    yield "audit_overdue", overdue


def _walked(engine: Engine[S], space: S, va: int) -> object:
    page = engine.resolve(space, va)
    if page is None:
        return {**_name(space), "page": None}
    found = {"va": va, "gpa": page.gpa + va - page.va, "writable": page.writable, "cache": page.cache}
    return {**_name(space), "page": found}


def _live(engine: Engine[S]) -> Iterator[S]:
    """The spaces that are live now, without those that the guest destroys before it is their turn."""
    return (space for space in engine.spaces if space.refs > 0)


def _name(space: Space) -> dict[str, object]:
    return {"mode": space.mode.value, "root": _root(space)}


def _root(space: Space) -> int | list[int]:
    """The one root of an L4 space, the list of four of an L3 space."""
    return space.roots[0] if len(space.roots) == 1 else list(space.roots)


def _described(space: Space, mappings: Sequence[Sequence[int]] | None) -> dict[str, object]:
    if mappings is None:
        return {**_name(space), "mappings": None, "truncated": True}
    return {**_name(space), "mappings": mappings}


def _chosen(engine: Engine[S], arguments: Arguments) -> Iterator[S]:
    """The live spaces that ``mode`` and ``root`` leave. Raises UsageError or DataError if they leave none."""
    mode, root = arguments.get("mode"), arguments.get("root")
    if mode not in (None, "l4", "l3"):
        raise UsageError('"mode" is "l4" or "l3"')
    roots = _roots(root)

    def fits(space: Space) -> bool:
        return mode in (None, space.mode.value) and roots in (None, space.roots)

    if (mode, roots) != (None, None) and not any(map(fits, engine.spaces)):
        raise DataError("no such address space is live; `spaces` lists those that are")
    return filter(fits, _live(engine))


def _roots(root: object) -> tuple[int, ...] | None:
    """The roots of the space that a request names, low 12 bits cleared; None if it names none."""
    if root is None:
        return None
    roots: list[Any] = root if isinstance(root, list) and len(root) == 4 else [root]
    if not all(type(each) is int and each >= 0 for each in roots):
        raise UsageError('"root" is the root address of an l4 space, or the list of the four of an l3 space')
    return tuple(each & ~0xFFF for each in roots)


def allow(arguments: Arguments, *names: str) -> None:
    """Raises UsageError for an argument that a command does not take."""
    for name in arguments:
        if name not in names:
            known = f"it takes {', '.join(names)}" if names else "it takes none"
            raise UsageError(f"the command has no argument {name[:40]!r}; {known}")
