"""Reading shadows as a GPU would, and auditing them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, overload

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.space import Space
from xengt_dm.units import CData

#: A space of more runs than this is not listed: a driver that points whole directories at one scratch page makes 2^36.
MAX_RUNS = 1 << 20


class Mapping(NamedTuple):
    """A maximal run of mapped pages; ``cache`` is 4*PAT + 2*PCD + PWT of the leaf, lengths are in bytes."""

    va: int
    length: int
    gpa: int
    writable: int
    cache: int


class Table(NamedTuple):
    """One shadow table: the frame of its guest table, at which level (1: leaf), how often named, and whether open."""

    gfn: int
    level: int
    refs: int
    open: bool


class Audit(NamedTuple):
    """How many shadow entries differ from what the guest's tables say, and how many map nothing for no reason yet."""

    mismatches: int
    overdue: int


class Runs(Sequence[Mapping]):
    """The runs that a space was found to map, in order of va; they stay in C until somebody looks at one."""

    #: How many are rendered at a time; takes about a millisecond.
    SLICE = 8192

    def __init__(self, runs: CData, count: int) -> None:
        self._runs = runs
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Mapping]:
        return (_mapping(run) for run in self._runs)

    @overload
    def __getitem__(self, index: int) -> Mapping: ...
    @overload
    def __getitem__(self, index: slice) -> list[Mapping]: ...
    def __getitem__(self, index: int | slice) -> Mapping | list[Mapping]:
        which = range(self._count)[index]
        if isinstance(which, range):
            return [_mapping(self._runs[i]) for i in which]
        return _mapping(self._runs[which])

    def json_pieces(self) -> Iterator[bytes]:
        """A JSON array of the runs, in pieces."""
        separator = b"["
        text = ffi.new("char[]", lib.XD_RUN_JSON * min(self._count, self.SLICE))
        for first in range(0, self._count, self.SLICE):
            count = min(self.SLICE, self._count - first)
            size = lib.xd_runs_json(self._runs + first, count, text)
            yield separator + ffi.buffer(text, size)[:]
            separator = b","
        yield b"]" if self._count else b"[]"


def _mapping(run: CData) -> Mapping:
    return Mapping(run.va, run.length, run.gpa, run.writable, run.cache)


class Walker:
    """Walks the shadows behind an ``xd_shadow *``. The caller sees to it that they are in line."""

    def __init__(self, shadow: CData) -> None:
        self._shadow = shadow
        self._audit: CData = ffi.new("xd_audit *")

    def mappings(self, space: Space) -> Runs | None:
        """What the space maps, in order of va; None if that is more than :data:`MAX_RUNS` runs."""
        level = space.mode.root_level
        count = lib.xd_count_runs(self._shadow, space.numbers, level)
        if count > MAX_RUNS:
            return None
        runs = ffi.new("xd_run[]", count)
        lib.xd_list_runs(self._shadow, space.numbers, level, runs)
        return Runs(runs, count)

    def resolve(self, space: Space, va: int) -> Mapping | None:
        """The 4 KiB page at ``va``."""
        run = lib.xd_resolve(self._shadow, space.numbers, space.mode.root_level, va)
        if not run.length:
            return None
        return _mapping(run)

    def tables(self) -> Iterator[Table]:
        """Every shadow of a guest table, in no order; those that come or go meanwhile may be missed."""
        number = 1
        while number <= self._shadow.used:
            table = self._shadow.tables[number]
            if table.kind and not table.kind & lib.XD_KIND_SPLIT and not table.flags & lib.XD_TABLE_UNREFERENCED:
                is_open = bool(table.flags & lib.XD_TABLE_UNSYNCED)
                yield Table(table.gfn, table.kind & lib.XD_LEVEL_MASK, table.refs, is_open)
            number += 1

    def audit(self, space: Space, refused: Collection[int]) -> Audit:
        """``refused``: frames that could not be protected when the space was brought in line."""
        gfns = ffi.new("uint64_t[]", sorted(refused))
        how = lib.XD_AUDIT_SYNCED
        lib.xd_audit_space(self._shadow, space.numbers, space.mode.root_level, how, gfns, len(refused), self._audit)
        return Audit(self._audit.mismatches, self._audit.overdue)
