"""Two engines, one strict and one relaxed, on two guests that do the same; and an independent walker that judges both.

After everything that happens, :meth:`Lockstep.check` looks at what must always hold; :meth:`Lockstep.look` submits a
space on both sides and compares what they map with each other and with a walk of the guest's tables.
"""

from __future__ import annotations

from tests.oracle.compare import _minus as minus
from tests.oracle.ram import runs_of
from tests.oracle.tables import Table, Walker
from tests.support.engine_bench import EngineBench, audit, unsynced_frames
from tests.support.tables import FRAME
from tests.support.whole_engine import WholeEngine
from xengt_dm._core import lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.read import Runs
from xengt_dm.ppgtt.space import Mode, Space
from xengt_dm.units import CData

Key = tuple[Mode, tuple[int, ...]]


def key_of(space: Space) -> Key:
    return space.mode, space.roots


class WatchedGuest(EngineBench):
    """Notices when protection is asked for, to tell how often stores may trap."""

    def __init__(self, frames: int) -> None:
        super().__init__(frames)
        self.protect_calls = 0

    def protect(self, gfns, count, errors):  # type: ignore[no-untyped-def]
        self.protect_calls += 1
        return super().protect(gfns, count, errors)


class GuestRam:
    """A EngineBench's memory as tests.oracle.ram.Ram shows it."""

    def __init__(self, guest: EngineBench) -> None:
        self.guest = guest

    def has(self, frame: int) -> bool:
        return frame < self.guest.frames and frame not in self.guest.holes

    def parts(self, first: int, count: int) -> list[tuple[int, int]]:
        return runs_of(filter(self.has, range(first, min(first + count, self.guest.frames))))

    def words(self, frame: int) -> tuple[int, ...]:
        view = memoryview(self.guest.memory)[frame * FRAME : (frame + 1) * FRAME].cast("Q")
        return tuple(view)


class RefusingWalker(Walker):
    """Frames in ``refused`` cannot be protected, so nothing is seen of them as tables."""

    refused: frozenset[int] = frozenset()

    def below(self, table: Table, entry: int) -> Table | None:
        found = super().below(table, entry)
        return None if found and found.frame in self.refused else found

    def roots(self, mode: str, root: int | list[int]) -> list[Table | None]:
        return [None if table and table.frame in self.refused else table for table in super().roots(mode, root)]


class Side:
    """One engine and its guest."""

    def __init__(self, sync: Sync, frames: int, generation: int, max_tables: int, refused: frozenset[int]) -> None:
        self.sync = sync
        self.guest = WatchedGuest(frames)
        self.guest.refuse = set(refused)
        self.engine: WholeEngine = self.guest.make_engine(sync=sync, generation=generation, max_tables=max_tables)
        self.shadow: CData = self.engine.shadow

    def tables(self) -> dict[int, CData]:
        """Every shadow by its number."""
        shadow = self.shadow
        return {number: shadow.tables[number] for number in range(1, shadow.used + 1) if shadow.tables[number].kind}

    def frames(self) -> dict[int, list[CData]]:
        """The shadows of each frame that is a table."""
        found: dict[int, list[CData]] = {}
        for table in self.tables().values():
            if not table.kind & lib.XD_KIND_SPLIT:
                found.setdefault(table.gfn, []).append(table)
        return found

    def is_leaf(self, gfn: int) -> bool:
        tables = self.frames().get(gfn, [])
        return bool(tables) and all(table.kind & lib.XD_LEVEL_MASK == 1 for table in tables)

    def store(self, gpa: int, size: int, value: int) -> None:
        """A CPU's store. To an unsynced table it does not trap, and to a protected leaf table it changes no types."""
        gfn = gpa // FRAME
        leaf, calls = self.is_leaf(gfn), self.guest.protect_calls
        unsynced = gfn in unsynced_frames(self.engine)
        trapped = self.guest.store(self.engine, gpa, size, value)
        assert not (trapped and unsynced), f"a store to unsynced table {gfn} trapped"
        if trapped and leaf:
            assert self.guest.protect_calls == calls, f"a store to leaf table {gfn} had frames protected"

    def check(self) -> None:
        guest, shadow, counters = self.guest, self.shadow, self.engine.counters
        assert guest.protected.isdisjoint(unsynced_frames(self.engine))
        assert self.engine.check() == []
        for space in self.engine.spaces:  # as it is, without a sync
            found = self.engine.audit(space)
            assert (found.mismatches, found.overdue) == (0, 0), key_of(space)
        frames = self.frames()
        is_open = {gfn for gfn, of_frame in frames.items() if of_frame[0].flags & lib.XD_TABLE_UNSYNCED}
        assert all(table.flags & lib.XD_TABLE_UNSYNCED for gfn in is_open for table in frames[gfn])
        assert all(self.is_leaf(gfn) for gfn in is_open)
        assert self.sync is Sync.RELAXED or not is_open
        assert guest.protected <= set(frames)
        if not shadow.stale_tables:
            assert guest.protected == set(frames) - is_open
            assert counters.protected_pages == len(guest.protected)

    def space(self, key: Key) -> Space:
        (space,) = [space for space in self.engine.spaces if key_of(space) == key]
        return space

    def end(self) -> None:
        """Nothing is left."""
        self.engine.forget_all_spaces()
        guest, shadow = self.guest, self.shadow
        assert (shadow.live, shadow.unsynced_tables, shadow.pending_tables, shadow.stale_tables) == (0, 0, 0, 0)
        assert (guest.protected, unsynced_frames(self.engine)) == (set(), set())
        assert (self.engine.counters.protected_pages, self.engine.counters.spaces) == (0, 0)
        self.engine.close()
        assert guest.maps >= guest.unmaps
        assert self.engine.frames.mapped_chunks == 0


class Lockstep:
    def __init__(self, frames: int, generation: int, max_tables: int, refused: frozenset[int] = frozenset()) -> None:
        self.sides = [Side(sync, frames, generation, max_tables, refused) for sync in Sync]
        self.strict = self.sides[0]
        self.generation = generation
        self.max_tables = max_tables
        self.refused = refused
        self.register = 0
        #: Something changed that only a submission finds out.
        self.out_of_date = False

    def walker(self, side: Side) -> RefusingWalker:
        walker = RefusingWalker(GuestRam(side.guest), self.generation, self.register)  # type: ignore[arg-type]
        walker.refused = self.refused
        return walker

    def judge(self, side: Side, key: Key, mapped: Runs | None) -> list[list[int]] | None:
        """Compare with the walker; a space that the quota has no room for may map less. Returns what is mapped."""
        mode, roots = key[0].value, list(key[1])
        root = roots[0] if len(roots) == 1 else roots
        walker = self.walker(side)
        want = walker.mappings(mode, root)
        if mapped is None:
            assert want is None
            return None
        got = [list(run) for run in mapped]
        fits = len(walker.tables(mode, root)) + walker.broken_pages(mode, root) <= self.max_tables
        if fits:
            assert got == want, f"{key}: too much {minus(got, want or [])[:3]}, too little {minus(want or [], got)[:3]}"
        elif want is not None:
            assert minus(got, want) == [], f"{key}: mapped and should not be: {minus(got, want)[:3]}"
        return got

    def look(self, key: Key) -> None:
        """Submit a live space on both sides, compare, and audit."""
        found = []
        for side in self.sides:
            space = side.space(key)
            side.engine.submit(*key)
            found.append(self.judge(side, key, side.engine.mappings(space)))
            assert audit(side.engine, space) == (0, 0)
        if self.max_tables >= 1024:
            assert found[0] == found[1]

    def look_at_all(self) -> None:
        for space in self.strict.engine.spaces:
            self.look(key_of(space))
        self.out_of_date = False

    def check(self) -> None:
        for side in self.sides:
            side.check()
        strict, relaxed = self.sides
        assert strict.guest.memory_is_that_of(relaxed.guest)
        assert [*map(key_of, strict.engine.spaces)] == [*map(key_of, relaxed.engine.spaces)]
        if not self.out_of_date and self.max_tables >= 1024:
            for space in strict.engine.spaces:  # as it is, without a submission
                self.judge(strict, key_of(space), strict.engine.mappings(space))
