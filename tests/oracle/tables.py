"""What the tables mean: a page walk, written out, and a whole address space as runs.

A table is used at a level: 4 PML4, 3 page-directory-pointer table, 2 page directory, 1 page table. Everything below is
asked about (frame, level, wide) where ``wide`` says that a page table holds 64 KiB entries.
"""

from __future__ import annotations

from typing import NamedTuple

from .ram import PAGE, Ram

PRESENT = 1 << 0
WRITABLE = 1 << 1
LARGE = 1 << 7  # 2 MiB in a page directory, 1 GiB in a page-directory-pointer table
IPS = 1 << 11  # in a page directory: the page table holds 64 KiB entries
ADDRESS = ((1 << 46) - 1) & ~0xFFF  # bits 45:12
LIMIT = 1_048_576  # a space of more runs than this is not listed


class Table(NamedTuple):
    frame: int
    level: int
    wide: bool


class Page(NamedTuple):
    gpa: int
    writable: int
    cache: int

    def moved(self, pages: int) -> Page:
        return Page(self.gpa + pages * PAGE, self.writable, self.cache)


class Run(NamedTuple):
    """``size`` pages from page number ``start`` of whatever it is a part of; ``page`` is the first."""

    start: int
    size: int
    page: Page

    def after(self) -> Page:
        return self.page.moved(self.size)


class Summary(NamedTuple):
    """How many runs a part of an address space has, and its pages at its very first and very last place, if any."""

    runs: int
    first: Page | None
    last: Page | None


NOTHING = Summary(0, None, None)


def pages_of_entry(level: int) -> int:
    """How many 4 KiB pages one entry of a table at that level spans."""
    return 1 << 9 * (level - 1)


class Walker:
    """Guest tables as they are now. It remembers what it saw, so make a new one when memory has changed."""

    def __init__(self, ram: Ram, generation: int, register_4080: int) -> None:
        self.ram = ram
        self.ips = generation == 9 and register_4080 & 0xF == 0xF
        self._entries: dict[Table, list[Table | list[Run] | None]] = {}
        self._summaries: dict[Table, Summary] = {}
        self._runs: dict[Table, list[Run]] = {}

    # One entry.

    def below(self, table: Table, entry: int) -> Table | None:
        """The table that a directory entry points to."""
        if table.level == 1 or not entry & PRESENT:
            return None
        if entry & LARGE and table.level in (2, 3):
            return None
        frame = (entry & ADDRESS) // PAGE
        if not self.ram.has(frame):
            return None
        return Table(frame, table.level - 1, table.level == 2 and bool(entry & IPS) and self.ips)

    def leaf(self, table: Table, index: int, entry: int) -> list[Run]:
        """What an entry maps itself: pages counted from the entry's own start, those that are RAM."""
        if not entry & PRESENT:
            return []
        if table.level == 1 and table.wide:
            if index % 16:
                return []
            count, pat = 16, 7
        elif table.level == 1:
            count, pat = 1, 7
        elif table.level == 2 and entry & LARGE:
            count, pat = 512, 12
        else:
            return []
        writable = 1 if entry & WRITABLE else 0
        cache = 4 * (entry >> pat & 1) + 2 * (entry >> 4 & 1) + (entry >> 3 & 1)
        base = (entry & ADDRESS) // PAGE // count * count
        parts = self.ram.parts(base, count)
        return [Run(first - base, size, Page(first * PAGE, writable, cache)) for first, size in parts]

    def refused(self, table: Table, entry: int) -> bool:
        """A 1 GiB page."""
        return table.level == 3 and bool(entry & PRESENT) and bool(entry & LARGE)

    # One table.

    def entries(self, table: Table) -> list[Table | list[Run] | None]:
        """What each of the 512 entries leads to: a table, pages, or nothing."""
        if table not in self._entries:
            words = enumerate(self.ram.words(table.frame))
            self._entries[table] = [
                (self.below(table, entry) or self.leaf(table, index, entry) or None) if entry & PRESENT else None
                for index, entry in words
            ]
        return self._entries[table]

    def summary(self, table: Table) -> Summary:
        if table not in self._summaries:
            parts = []
            for entry in self.entries(table):
                if isinstance(entry, Table):
                    parts.append(self.summary(entry))
                else:
                    span = 16 if table.wide else pages_of_entry(table.level)
                    parts.append(summary_of(entry or [], span))
            self._summaries[table] = joined(parts[::16] if table.wide else parts)
        return self._summaries[table]

    def runs(self, table: Table) -> list[Run]:
        """The table's runs, counted from its own start. Ask for the summary first: there may be 2^36."""
        if table not in self._runs:
            found: list[Run] = []
            for index, entry in enumerate(self.entries(table)):
                offset = index * pages_of_entry(table.level)
                if isinstance(entry, Table):
                    append_joined(found, self.runs(entry), offset)
                elif entry:
                    append(found, entry, offset)
            self._runs[table] = found
        return self._runs[table]

    # One address space.

    def roots(self, mode: str, root: int | list[int]) -> list[Table | None]:
        """The tables that the roots name; 0 names none, and so does an address that is no RAM."""
        addresses = [root] if isinstance(root, int) else root
        level = 4 if mode == "l4" else 2
        frames = [address // PAGE for address in addresses]
        return [Table(frame, level, False) if frame and self.ram.has(frame) else None for frame in frames]

    def space_summary(self, mode: str, root: int | list[int]) -> Summary:
        return joined([self.summary(table) if table else NOTHING for table in self.roots(mode, root)])

    def mappings(self, mode: str, root: int | list[int]) -> list[list[int]] | None:
        """All runs as [va, length, gpa, writable, cache], or None if there are more than LIMIT."""
        if self.space_summary(mode, root).runs > LIMIT:
            return None
        found: list[Run] = []
        for number, table in enumerate(self.roots(mode, root)):
            append_joined(found, self.runs(table) if table else [], number << 18)
        return [[run.start * PAGE, run.size * PAGE, *run.page] for run in found]

    def tables(self, mode: str, root: int | list[int]) -> set[Table]:
        """Every table that the address space uses, its roots included."""
        todo = [table for table in self.roots(mode, root) if table]
        seen = set(todo)
        while todo:
            for entry in self.entries(todo.pop()):
                if isinstance(entry, Table) and entry not in seen:
                    seen.add(entry)
                    todo.append(entry)
        return seen

    def broken_pages(self, mode: str, root: int | list[int]) -> int:
        """How many 2 MiB entries have frames that are no RAM; a shadow needs a table in place of each."""
        tables = [table for table in self.tables(mode, root) if table.level == 2]
        entries = [entry for table in tables for entry in self.entries(table)]
        return sum(isinstance(entry, list) and entry[0].size < 512 for entry in entries)

    def resolve(self, mode: str, root: int | list[int], va: int) -> Page | None:
        """The page at ``va``, by the book: one index a level."""
        if va >> (48 if mode == "l4" else 32):
            return None
        table = self.roots(mode, root)[0 if mode == "l4" else va >> 30]
        while table:
            index = va >> 12 + 9 * (table.level - 1) & 511
            if table.wide:
                index = index // 16 * 16
            entry = self.ram.words(table.frame)[index]
            span = 16 if table.wide else pages_of_entry(table.level)
            number = va // PAGE % span
            for run in self.leaf(table, index, entry):
                if run.start <= number < run.start + run.size:
                    return run.page.moved(number - run.start)
            table = self.below(table, entry)
        return None


def summary_of(runs: list[Run], span: int) -> Summary:
    """Of the runs of one entry that spans that many pages."""
    if not runs:
        return NOTHING
    head, tail = runs[0], runs[-1]
    last = tail.page.moved(tail.size - 1)
    return Summary(len(runs), head.page if head.start == 0 else None, last if tail.start + tail.size == span else None)


def joined(parts: list[Summary]) -> Summary:
    """Of parts side by side: a run that goes on from one part into the next is one run."""
    runs = 0
    before: Page | None = None
    for part in parts:
        runs += part.runs
        if before and part.first and before.moved(1) == part.first:
            runs -= 1
        before = part.last
    return Summary(runs, parts[0].first, parts[-1].last)


def append(found: list[Run], runs: list[Run], offset: int) -> None:
    """Add runs that begin ``offset`` pages further on, joining each to the last one found if it continues that."""
    for start, size, page in runs:
        last = found[-1] if found else None
        if last and last.start + last.size == start + offset and last.after() == page:
            found[-1] = Run(last.start, last.size + size, last.page)
        else:
            found.append(Run(start + offset, size, page))


def append_joined(found: list[Run], runs: list[Run], offset: int) -> None:
    """The same for runs of which no two can be joined, as there may be a million of them."""
    append(found, runs[:1], offset)
    found += [Run(start + offset, size, page) for start, size, page in runs[1:]]
