"""Reports on the shadows: answers of the control socket, and the dumps of docs/trace-format.md.

Where a guest decides how long an answer is (it has as many address spaces as it likes, each of up to a million runs),
the answers of the control socket are lazy: one space at a time, so that neither the memory of the daemon nor the time
between two looks at the guest grows with their number.

With ``sync`` false, which is the default of the control socket, nothing here changes the engine but the counters of its
audits. A dump of a trace is "as if just submitted", so :func:`dump_spaces` and :func:`audit_spaces` sync.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from xengt_dm.control.json_stream import LazyList, LazyObject, Pause
from xengt_dm.ppgtt.engine import Engine
from xengt_dm.ppgtt.read import Audit
from xengt_dm.ppgtt.space import Space, sort_key
from xengt_dm.stats.counters import read_counters
from xengt_dm.steps import Slices, Steps, complete
from xengt_dm.vgpu.decode import Limits
from xengt_dm.vgpu.engine_view import EngineView
from xengt_dm.vgpu.listing import Section, values
from xengt_dm.vgpu.register_names import register_names

#: Runs that one dump on the control socket lists, over all spaces; what no longer fits is truncated. About 90 MiB.
DUMP_RUNS: Final = 1 << 21
#: Spaces that are sorted at once, which takes some 100 us.
SORTED_AT_ONCE: Final = 512

_T = TypeVar("_T")

#: The members of a lazy JSON object.
Members = Iterator[tuple[str, object]]


def dump_spaces(engine: Engine) -> list[dict[str, object]]:
    """The ``spaces`` of a dump as docs/trace-format.md has them, all at once; each is synced before it is read."""
    dump = []
    for space in engine.spaces:
        complete(engine.sync(space))
        dump.append(_described(space, complete(engine.mappings(space))))
    return dump


def audit_spaces(engine: Engine) -> int:
    """Sync and audit every live space, all at once; returns how many entries differ or are overdue."""
    found = [complete(engine.audit(space, complete(engine.sync(space)))) for space in engine.spaces]
    return sum(each.mismatches + each.overdue for each in found)


def in_slices(work: Steps[_T]) -> Generator[Pause, None, _T]:
    """Work among the elements of a lazy list, with a pause after each slice. Returns its value."""
    slices = Slices(work)
    for _ in slices:
        yield Pause.PAUSE
    return slices.value


def live(engine: Engine) -> Generator[Pause, None, Iterator[Space]]:
    """The spaces that are live now, sorted, without those that the guest destroys before it is their turn.

    There may be thousands, so they are sorted in parts, which are merged as they are taken.
    """
    spaces = engine.spaces_by_age
    parts = []
    for first in range(0, len(spaces), SORTED_AT_ONCE):
        parts.append(sorted(spaces[first : first + SORTED_AT_ONCE], key=sort_key))
        yield Pause.PAUSE
    return (space for space in heapq.merge(*parts, key=sort_key) if space.refs > 0)


def spaces(engine: Engine) -> Iterator[object]:
    """The elements of the answer to ``spaces``."""
    for space in (yield from live(engine)):
        yield {**_name(space), "refs": space.refs}


def walk(engine: Engine, chosen: Callable[[Space], bool], va: int, sync: bool) -> Members:
    """The answer to ``walk``: where the GPU address ``va`` leads in each of the chosen spaces."""

    def walked() -> Iterator[object]:
        for space in (yield from live(engine)):
            if not chosen(space):
                yield Pause.PAUSE
                continue
            if sync:
                yield from in_slices(engine.sync(space))
            page = engine.resolve(space, va)
            if page is None:
                yield {**_name(space), "page": None}
            else:
                gpa = page.gpa + va - page.va
                found = {"va": va, "gpa": gpa, "writable": page.writable, "cache": page.cache}
                yield {**_name(space), "page": found}

    yield "va", va
    yield "spaces", LazyList(walked())


def dump(engine: Engine, sync: bool) -> Members:
    """The answer to ``dump``: what each live space maps, and what an audit of it found."""
    totals = _Totals()

    def dumped() -> Iterator[object]:
        left = DUMP_RUNS
        for space in (yield from live(engine)):
            synced = (yield from in_slices(engine.sync(space))) if sync else None
            mappings = (yield from in_slices(engine.mappings(space))) if left else None
            if mappings is not None and len(mappings) > left:
                mappings, left = None, 0
            left -= len(mappings or ())
            totals.add((yield from in_slices(engine.audit(space, synced))))
            yield _described(space, mappings)

    yield "spaces", LazyList(dumped())
    yield "counters", read_counters(engine.counters)
    yield from totals.members()


def audit(engine: Engine, sync: bool) -> Members:
    """The answer to ``audit``: what an audit of each live space found."""
    totals = _Totals()

    def audited() -> Iterator[object]:
        for space in (yield from live(engine)):
            synced = (yield from in_slices(engine.sync(space))) if sync else None
            found = yield from in_slices(engine.audit(space, synced))
            totals.add(found)
            yield {**_name(space), **found._asdict()}

    yield "spaces", LazyList(audited())
    yield from totals.members()


def protected(engine: Engine) -> Iterator[object]:
    """The elements of the answer to ``protected``: every guest table that has a shadow."""
    for table in engine.tables():
        # "open" is the older name of "unsynced".
        yield {**table._asdict(), "open": table.unsynced}


class _Totals:
    """Sums over the audits of all spaces; complete once all of them were asked for."""

    def __init__(self) -> None:
        self._found = Audit(0, 0, 0)

    def add(self, found: Audit) -> None:
        self._found = Audit(*map(sum, zip(self._found, found, strict=True)))

    def members(self) -> Members:
        for name, value in self._found._asdict().items():
            yield f"audit_{name}", value


def _name(space: Space) -> dict[str, object]:
    return {"mode": space.mode.value, "root": _root(space)}


def _root(space: Space) -> int | list[int]:
    """The one root of an L4 space, the list of four of an L3 space."""
    return space.roots[0] if len(space.roots) == 1 else list(space.roots)


def _described(space: Space, mappings: Sequence[Sequence[int]] | None) -> dict[str, object]:
    if mappings is None:
        return {**_name(space), "mappings": None, "truncated": True}
    return {**_name(space), "mappings": mappings}


def decoded(views: Sequence[EngineView], whole: bool, limits: Limits) -> Members:
    """What these engines execute: the members of the answer, command by command."""
    names = register_names()
    sections = (section for view in views for section in view.sections(whole, limits))
    yield "sections", LazyList(_section(section, names) for section in sections)


def _section(section: Section, names: Mapping[int, str]) -> LazyObject:
    commands = LazyList(values(item, names) for item in section.items)
    return LazyObject(iter([("title", section.title), ("marks", section.named_marks), ("commands", commands)]))
