"""What must always hold of the shadow tables of a domain, whatever the guest does; for tests and fuzzing.

The rules are those of ``core/ppgtt/shadow.h``. Nothing here is fast, and nothing is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.space import LiveSpaces
from xengt_dm.units import PAGE_SHIFT, CData

ENTRIES: int = lib.XD_ENTRIES
PRESENT = 1 << lib.XD_BIT_PRESENT
HUGE = 1 << lib.XD_BIT_HUGE
LEVEL_MASK: int = lib.XD_LEVEL_MASK
SPLIT: int = lib.XD_KIND_SPLIT
UNSYNCED: int = lib.XD_TABLE_UNSYNCED
STORED: int = lib.XD_TABLE_STORED


def violations(shadow: CData, spaces: LiveSpaces) -> list[str]:
    """The rules that the records of shadow tables break now, a line each. ``shadow`` is an ``xd_shadow *``."""
    return [*_Checker(shadow, spaces).violations()]


class _Checker:
    def __init__(self, shadow: CData, spaces: LiveSpaces) -> None:
        self._shadow = shadow
        self._spaces = spaces
        #: Tables in use, by number.
        self._tables: dict[int, CData] = {
            number: shadow.tables[number] for number in range(1, shadow.used + 1) if shadow.tables[number].kind
        }
        #: By number: the entries of its page.
        self._pages: dict[int, list[int]] = {
            number: ffi.unpack(shadow.pages + number * ENTRIES, ENTRIES) for number in self._tables
        }
        #: By number: the tables that its entries point to, once for each entry.
        self._children: dict[int, list[int]] = {
            number: [entry >> PAGE_SHIFT for entry in self._pages[number] if entry & (PRESENT | HUGE) == PRESENT]
            if table.kind & LEVEL_MASK > 1
            else []
            for number, table in self._tables.items()
        }

    def violations(self) -> Iterator[str]:
        yield from self._spaces.violations()
        yield from self._counts()
        yield from self._index()
        yield from self._references()
        yield from self._unsynced()
        for number, table in self._tables.items():
            yield from self._entries(number, table)

    def _counts(self) -> Iterator[str]:
        shadow, tables, counters = self._shadow, self._tables, self._shadow.counters
        stale = sum(table.epoch != shadow.epoch for table in tables.values())
        pending = sum(table.pending != 0 for table in tables.values())
        frames = {table.gfn: table for table in tables.values() if not table.kind & SPLIT}
        synced = sum(not table.flags & UNSYNCED for table in frames.values())
        for what, said, found in (
            ("live", shadow.live, len(tables)),
            ("counters.tables", counters.tables, len(tables)),
            ("counters.spaces", counters.spaces, len(self._spaces)),
            ("counters.protected_pages", counters.protected_pages, synced),
            ("stale_tables", shadow.stale_tables, stale),
            ("pending_tables", shadow.pending_tables, pending),
            ("the free list", self._free(), shadow.used - len(tables)),
        ):
            if said != found:
                yield f"{what} says {said}, there are {found}"
        if len(tables) > shadow.max_tables:
            yield f"{len(tables)} tables are more than the quota of {shadow.max_tables}"
        if shadow.first_unreferenced:
            yield f"table {shadow.first_unreferenced} is unreferenced and not freed"

    def _free(self) -> int:
        """How many numbers are on the free list."""
        count, number = 0, self._shadow.first_free
        while number and count <= self._shadow.used:
            count += 1
            number = self._shadow.tables[number].next_free
        return count

    def _index(self) -> Iterator[str]:
        """Each table is found by its frame and kind; a frame's tables follow each other, the highest level first."""
        shadow = self._shadow
        for number, table in self._tables.items():
            found = lib.xd_find(shadow, table.gfn, table.kind)
            if found != (0 if table.kind & SPLIT else number):
                yield f"table {number} of frame {table.gfn:#x} and kind {table.kind} is found as {found}"
            after = shadow.tables[table.next_of_frame]
            if table.next_of_frame and (
                after.gfn != table.gfn or after.kind & LEVEL_MASK > table.kind & LEVEL_MASK or after.kind == table.kind
            ):
                yield f"table {table.next_of_frame} follows table {number} of frame {table.gfn:#x}"

    def _references(self) -> Iterator[str]:
        """References are those of entries and roots; a parent has an entry that names its child."""
        counts: Counter[int] = Counter()
        for space in self._spaces:
            counts.update(number for number in space.numbers if number)
        for children in self._children.values():
            counts.update(children)
        for number, table in self._tables.items():
            if table.refs != counts[number] or not table.refs:
                yield f"table {number} says {table.refs} references, there are {counts[number]}"
            if table.parent and number not in self._children.get(table.parent, []):
                yield f"table {number} is not named by its parent {table.parent}"
        for number in counts.keys() - self._tables.keys():
            yield f"{counts[number]} references lead to table {number}, which is not in use"

    def _list(self, what: str, flag: int, first: int, last: int, count: int) -> Iterator[str]:
        """A list of leaf tables is one list in both directions, of the tables that have its flag."""
        listed: list[int] = []
        tables, number = self._shadow.tables, first
        while number and len(listed) <= self._shadow.used:
            if tables[number].previous_unsynced != (listed[-1] if listed else 0):
                yield f"{what} table {number} says that {tables[number].previous_unsynced} is before it"
            listed.append(number)
            number = tables[number].next_unsynced
        if last != (listed[-1] if listed else 0):
            yield f"the last {what} table is said to be {last}"
        marked = {number for number, table in self._tables.items() if table.flags & flag}
        if set(listed) != marked or len(listed) != count:
            yield f"{what} are {sorted(marked)}, listed {sorted(listed)}, said {count}"

    def _unsynced(self) -> Iterator[str]:
        """Unsynced tables, and candidates, are leaf tables; all tables of a frame are unsynced, or none."""
        it = self._shadow
        yield from self._list("unsynced", UNSYNCED, it.first_unsynced, it.last_unsynced, it.unsynced_tables)
        yield from self._list("stored", STORED, it.first_candidate, it.last_candidate, it.candidates)
        marked = {number for number, table in self._tables.items() if table.flags & UNSYNCED}
        for number, table in self._tables.items():
            if table.flags & STORED and (table.flags & UNSYNCED or table.kind & LEVEL_MASK > 1):
                yield f"table {number} of kind {table.kind} is unsynced or a directory, and a candidate"
        frames: dict[int, set[bool]] = {}
        for number, table in self._tables.items():
            if not table.kind & SPLIT:
                frames.setdefault(table.gfn, set()).add(number in marked)
            if number in marked and (table.kind & SPLIT or table.kind & LEVEL_MASK != 1):
                yield f"table {number} of kind {table.kind} is unsynced"
        for gfn, states in frames.items():
            if len(states) > 1:
                yield f"frame {gfn:#x} is unsynced in some of its tables"

    def _entries(self, number: int, table: CData) -> Iterator[str]:
        """Entries point one level down; as many are pending as the table says."""
        level = table.kind & LEVEL_MASK
        if table.kind & SPLIT:
            return
        pending = self._pages[number].count(lib.XD_PENDING)
        for child in self._children[number]:
            below = self._tables.get(child)
            if below is None:
                continue  # said by the references
            pending += bool(below.kind & SPLIT)
            if below.kind & LEVEL_MASK != level - 1:
                yield f"table {number} of level {level} names table {child} of kind {below.kind}"
        if pending != table.pending:
            yield f"table {number} says {table.pending} pending entries, there are {pending}"
