"""A trace run by the book: what every dump must say, and between which bounds the counters must lie.

Nothing is kept from one event to the next but the guest's memory, its registers, which spaces are live, and which
tables are linked; the last is found again from the roots whenever a directory, a live space or RAM changes. Traces are
plain JSON values here, ``[header, event, ...]``: this uses none of the project's own code.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

from .ram import PAGE, Ram, pieces
from .tables import Table, Walker

PVINFO = 0x78000
G2V_NOTIFY = PVINFO + 0x818
PDP = PVINFO + 0x838
GAMW_ECO_DEV_RW_IA = 0x4080
CREATE = {2: "l3", 4: "l4"}
DESTROY = {3: "l3", 5: "l4"}

Trace = list[dict[str, Any]]
Space = tuple[str, int | tuple[int, ...]]


def load(path: str | Path) -> Trace:
    text = gzip.decompress(Path(path).read_bytes()) if str(path).endswith(".gz") else Path(path).read_bytes()
    return [json.loads(line) for line in text.decode().splitlines()]


def save(path: str | Path, trace: Trace) -> None:
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in trace).encode()
    Path(path).write_bytes(gzip.compress(text, mtime=0) if str(path).endswith(".gz") else text)


def expected(trace: Trace) -> dict[str, Any]:
    """What replay must say of the trace.

    ``dumps`` as in the output file; ``counters``: for each mode, counter -> [least, most]; ``tables``: for each dump,
    how many tables the shadow of each space needs, in the order of its spaces (with fewer, it may map less).
    """
    machine = Machine(trace[0])
    for event in trace[1:]:
        getattr(machine, event["op"])(**{key: value for key, value in event.items() if key != "op"})
    return {"dumps": machine.dumps, "counters": machine.bounds(), "tables": machine.tables_of_dumps}


class Machine:
    def __init__(self, header: dict[str, Any]) -> None:
        self.generation = header["generation"]
        self.ram = Ram(header["ram_frames"], header.get("holes"))
        self.registers: dict[int, int] = {}
        self.live: Counter[Space] = Counter()
        self.dumps: list[dict[str, Any]] = []
        self.tables_of_dumps: list[list[int]] = []
        self.linked: set[Table] = set()
        #: The same by frame, and of each directory among them the tables it points to.
        self.roles: dict[int, set[Table]] = {}
        self.below: dict[Table, set[Table]] = {}
        #: Leaf tables that were stored to since the last submission.
        self.stored: set[int] = set()
        #: Frames that came or went may have left protected what is no table any more, and the other way round.
        self.uncertain = False
        self.least: dict[str, Counter[str]] = {"strict": Counter(), "relaxed": Counter()}
        self.most: dict[str, Counter[str]] = {"strict": Counter(), "relaxed": Counter()}

    # The events.

    def store(self, gpa: int, size: int, value: int, vcpu: int = 0) -> None:
        data = value.to_bytes(size, "little")
        before = self.most["relaxed"]["dropped_stores"]
        for at, length in pieces(gpa, size):
            self.count_piece(at // PAGE)
            self.put(at, data[:length])
            data = data[length:]
        # A store over a page's end is one store or as many as it has pieces, by whoever counts.
        more = self.most["relaxed"]["dropped_stores"] - before
        for counters in self.least.values():
            counters["dropped_stores"] += min(more, 1)

    def fill(self, gpa: int, count: int, value: int, vcpu: int = 0) -> None:
        for number in range(count):
            self.store(gpa + 8 * number, 8, value)

    def mmio(self, offset: int, size: int, value: int, vcpu: int = 0) -> None:
        self.count("mmio_traps", 1, len(pieces(offset, size)))
        for number, byte in enumerate(value.to_bytes(size, "little")):
            self.registers[offset + number] = byte
        if offset <= G2V_NOTIFY and offset + size >= G2V_NOTIFY + 4:
            self.notify(self.register(G2V_NOTIFY, 4))

    def submit(self, mode: str, root: int | list[int]) -> None:
        """Nothing that a later dump could show. Relaxed mode may unsync what was stored to since the one before."""
        self.most["relaxed"]["opened_pages"] += len(self.stored)
        self.stored.clear()

    def gpu_store(self, mode: str, root: int | list[int], va: int, value: int) -> None:
        self.submit(mode, root)
        page = self.walker().resolve(mode, clear_low_bits(root), va)
        if page and page.writable:
            self.put(page.gpa + va % PAGE, value.to_bytes(8, "little"))
        else:
            self.count("dropped_stores", 0, 1)

    def remove(self, gfn: int, count: int) -> None:
        self.ram.remove(gfn, count)
        self.lose(gfn, count)

    def add(self, gfn: int, count: int) -> None:
        self.ram.add(gfn, count)
        self.lose(gfn, count)

    def lose(self, gfn: int, count: int) -> None:
        """Tables may have come or gone with the frames, which no store tells: it is found out at submissions."""
        before = self.linked
        self.below.clear()
        self.link()
        if before != self.linked or any(gfn <= table.frame < gfn + count for table in self.linked):
            self.uncertain = True

    def dump(self, id: str | int) -> None:  # noqa: A002 - the event's own key
        walker = self.walker()
        spaces, tables = [], []
        for mode, key in sorted(self.live):
            root = list_of(key)
            mappings = walker.mappings(mode, root)
            space = {"mode": mode, "root": root, "mappings": mappings}
            spaces.append(space if mappings is not None else {**space, "truncated": True})
            tables.append(len(walker.tables(mode, root)) + walker.broken_pages(mode, root))
        self.dumps.append({"id": id, "spaces": spaces})
        self.tables_of_dumps.append(tables)
        for mode, key in self.live:
            self.submit(mode, list_of(key))
        self.uncertain = False

    # What they mean.

    def register(self, offset: int, size: int) -> int:
        return int.from_bytes([self.registers.get(offset + number, 0) for number in range(size)], "little")

    def notify(self, what: int) -> None:
        mode = CREATE.get(what) or DESTROY.get(what)
        if mode is None:
            self.count("ignored_notifications", 0, 1)
            return
        pdps = [clear_low_bits(self.register(PDP + 8 * n, 8)) for n in range(4)]
        space: Space = (mode, pdps[0] if mode == "l4" else tuple(pdps))
        if what in CREATE:
            self.live[space] += 1
        elif space in self.live:
            self.live[space] -= 1
            self.live += Counter()  # drops those at zero
        else:
            self.count("ignored_notifications", 1, 1)
        self.link()

    def put(self, gpa: int, data: bytes) -> None:
        """Bytes within one page, by a CPU or the GPU."""
        frame = gpa // PAGE
        if not self.ram.has(frame):
            return
        self.ram.store(gpa, data)
        directories = [table for table in self.roles.get(frame, ()) if table.level > 1]
        below = {table: self.tables_below(table) for table in directories}
        if any(below[table] != self.below[table] for table in directories):
            self.below.update(below)
            self.link()

    def tables_below(self, table: Table) -> set[Table]:
        # Frames are the same whatever register 0x4080 says; the entry's bit is what makes two tables of one frame.
        walker = Walker(self.ram, 9, 0xF)
        return {below for entry in set(self.ram.words(table.frame)) if (below := walker.below(table, entry))}

    def link(self) -> None:
        """Find out again which tables are linked."""
        todo = [table for mode, root in self.live for table in self.walker().roots(mode, list_of(root)) if table]
        linked = set(todo)
        while todo:
            table = todo.pop()
            if table.level > 1:
                if table not in self.below:
                    self.below[table] = self.tables_below(table)
                todo += self.below[table] - linked
                linked |= self.below[table]
        self.below = {table: self.below[table] for table in linked if table.level > 1}
        self.roles = {}
        for table in linked:
            self.roles.setdefault(table.frame, set()).add(table)
        self.linked = linked

    def is_leaf(self, frame: int) -> bool:
        return all(table.level == 1 for table in self.roles[frame])

    def walker(self) -> Walker:
        """Of memory and registers as they are now: a change of the register holds from the next submission on, and
        whatever asks here is a submission or says what one would see."""
        return Walker(self.ram, self.generation, self.register(GAMW_ECO_DEV_RW_IA, 4))

    # What is counted.

    def count(self, name: str, least: int, most: int) -> None:
        for counters in self.least.values():
            counters[name] += least
        for counters in self.most.values():
            counters[name] += most

    def count_piece(self, frame: int) -> None:
        """One access of a store: a trap if the page is write-protected. In relaxed mode no leaf table need be."""
        if not self.ram.has(frame):
            self.count("dropped_stores", 0, 1)
            return
        if self.uncertain:
            for counters in self.most.values():
                counters["store_traps"] += 1
            self.stored.add(frame)
            return
        if frame not in self.roles:
            return
        self.least["strict"]["store_traps"] += 1
        for counters in self.most.values():
            counters["store_traps"] += 1
        if self.is_leaf(frame):
            self.stored.add(frame)
        else:
            self.least["relaxed"]["store_traps"] += 1

    def bounds(self) -> dict[str, dict[str, list[int]]]:
        walker = self.walker()
        tables = {table for mode, root in self.live for table in walker.tables(mode, list_of(root))}
        refused = any(walker.refused(table, word) for table in tables for word in self.ram.words(table.frame))
        found = {}
        for mode, least in self.least.items():
            most = self.most[mode]
            found[mode] = {name: [least[name], most[name]] for name in sorted({*least, *most, *COUNTED})}
            found[mode]["audit_mismatches"] = [0, 0]
            found[mode]["audit_overdue"] = [0, 0]
            if not self.uncertain:
                frames = len({table.frame for table in tables})
                found[mode]["protected_pages"] = [frames if mode == "strict" else 0, frames]
                if not tables:
                    found[mode]["tables"] = [0, 0]
            if refused:
                found[mode]["unsupported_entries"] = [1, 1 << 64]
        return found


#: Counters that are bounded even where no event moved them.
COUNTED = ("store_traps", "mmio_traps", "opened_pages", "ignored_notifications", "dropped_stores")


def list_of(root: int | tuple[int, ...]) -> int | list[int]:
    return root if isinstance(root, int) else list(root)


def clear_low_bits(root: Any) -> Any:
    return root & ~0xFFF if isinstance(root, int) else [clear_low_bits(one) for one in root]
