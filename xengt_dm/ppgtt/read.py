"""Reading shadows as a GPU would, and auditing them.

Everything here is pure: a reader changes no table, no counter, no frame's record and no order of spaces. What it sees
is the shadow as it is now: as of the last sync for unsynced tables, and nothing for a space whose shadow was freed to
make room. A caller who wants the shadow as of now calls :meth:`xengt_dm.ppgtt.engine.Engine.sync` first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, overload

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.space import Space
from xengt_dm.steps import Steps
from xengt_dm.units import CData

#: A space of more runs than this is not listed: a driver that points whole directories at one scratch page makes 2^36.
MAX_RUNS = 1 << 20
#: Entries that an audit compares, and frames that it looks up, in a slice; about 3 million instructions.
AUDIT_LOOKS = 1 << 15
#: Entries that a list of runs looks at in a slice; about 0.15 ms, or 3 million instructions.
WALK_LOOKS = 1 << 15


class Mapping(NamedTuple):
    """A maximal run of mapped pages; ``cache`` is 4*PAT + 2*PCD + PWT of the entry, lengths are in bytes."""

    va: int
    length: int
    gpa: int
    writable: int
    cache: int


class Table(NamedTuple):
    """One shadow table: the frame of its guest table, its level (1: leaf), its references, whether it is unsynced."""

    gfn: int
    level: int
    refs: int
    unsynced: bool


class Audit(NamedTuple):
    """What an audit of one space found.

    ``mismatches``: shadow entries that differ from what the guest's tables say. ``overdue``: entries that map nothing
    without a reason. ``unsynced``: tables that were left out, because they are compared only after the next sync.
    """

    mismatches: int
    overdue: int
    unsynced: int


class Runs(Sequence[Mapping]):
    """The runs that a space was found to map, in order of va; kept as C arrays, and converted when read."""

    #: How many are rendered at a time, which takes about a millisecond.
    SLICE = 8192

    def __init__(self, parts: Sequence[tuple[CData, int]]) -> None:
        """``parts``: arrays of ``xd_run``, and how many of each count: SLICE of each but the last one."""
        self._parts = parts

    def __len__(self) -> int:
        return sum(count for _, count in self._parts)

    def __iter__(self) -> Iterator[Mapping]:
        return (_mapping(runs[i]) for runs, count in self._parts for i in range(count))

    @overload
    def __getitem__(self, index: int) -> Mapping: ...
    @overload
    def __getitem__(self, index: slice) -> list[Mapping]: ...
    def __getitem__(self, index: int | slice) -> Mapping | list[Mapping]:
        which = range(len(self))[index]
        return [self._get(i) for i in which] if isinstance(which, range) else self._get(which)

    def _get(self, index: int) -> Mapping:
        return _mapping(self._parts[index // self.SLICE][0][index % self.SLICE])

    def json_pieces(self) -> Iterator[bytes]:
        """A JSON array of the runs, in pieces."""
        separator = b"["
        text = ffi.new("char[]", lib.XD_RUN_JSON * min(len(self), self.SLICE))
        for runs, count in self._parts:
            if count:
                size = lib.xd_runs_json(runs, count, text)
                yield separator + ffi.buffer(text, size)[:]
                separator = b","
        yield b"[]" if separator == b"[" else b"]"


def _mapping(run: CData) -> Mapping:
    return Mapping(run.va, run.length, run.gpa, run.writable, run.cache)


class Reader:
    """Reads the shadow tables behind an ``xd_shadow *``."""

    def __init__(self, shadow: CData) -> None:
        self._shadow = shadow

    def mappings(self, space: Space) -> Steps[Runs | None]:
        """What the space maps, in order of va; None if that is more than :data:`MAX_RUNS` runs. Raises MemoryError.

        What the guest stores while this is under way may be in it or not: each table is shown as it was at some moment
        between the beginning and the end. If nobody stores meanwhile, it is what the space maps.
        """
        walker = lib.xd_walk_new(self._shadow, space.numbers, space.mode.root_level)
        if walker == ffi.NULL:
            raise MemoryError("no memory for a list of what a space maps")
        try:
            count, ended = ffi.new("uint64_t *"), ffi.new("int *")
            while not lib.xd_walk_count(walker, WALK_LOOKS, count):
                yield
            parts: list[tuple[CData, int]] = []
            listed, part, filled = 0, ffi.NULL, Runs.SLICE
            while not ended[0] and max(count[0], listed) <= MAX_RUNS:
                yield
                if filled == Runs.SLICE:
                    part, filled = ffi.new("xd_run[]", Runs.SLICE), 0
                    parts.append((part, 0))
                found = lib.xd_walk_list(walker, WALK_LOOKS, part + filled, Runs.SLICE - filled, ended)
                listed += found
                filled += found
                parts[-1] = part, filled
        finally:
            lib.xd_walk_free(walker)
        return Runs(parts) if ended[0] and listed <= MAX_RUNS else None

    def resolve(self, space: Space, va: int) -> Mapping | None:
        """The 4 KiB page at ``va``, or None if nothing is mapped there."""
        run = lib.xd_resolve(self._shadow, space.numbers, space.mode.root_level, va)
        if not run.length:
            return None
        return _mapping(run)

    def tables(self) -> Iterator[Table]:
        """Every shadow of a guest table, in no order. Those that come or go while the caller iterates may be missed."""
        number = 1
        while number <= self._shadow.used:
            table = self._shadow.tables[number]
            if table.kind and not table.kind & lib.XD_KIND_SPLIT and not table.flags & lib.XD_TABLE_UNREFERENCED:
                unsynced = bool(table.flags & lib.XD_TABLE_UNSYNCED)
                yield Table(table.gfn, table.kind & lib.XD_LEVEL_MASK, table.refs, unsynced)
            number += 1

    def audit(self, space: Space, how: int, refused: Collection[int] = ()) -> Steps[Audit]:
        """Compare the shadow of a space with the guest's tables, entry by entry.

        ``how`` is one of ``XD_AUDIT_*`` (``core/ppgtt/audit.h``). ``refused``: frames that could not be write-protected
        in the sync just made. Raises MemoryError.
        """
        found: CData = ffi.new("xd_audit *")
        gfns = ffi.new("uint64_t[]", sorted(refused))
        auditor = lib.xd_audit_new(self._shadow, space.numbers, space.mode.root_level, how, gfns, len(refused), found)
        if auditor == ffi.NULL:
            raise MemoryError("no memory for an audit")
        try:
            while not lib.xd_audit_step(auditor, AUDIT_LOOKS):
                yield
        finally:
            lib.xd_audit_free(auditor)
        return Audit(found.mismatches, found.overdue, found.unsynced)
