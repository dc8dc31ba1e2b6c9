"""A guest that keeps its tables as i915 does (gt/gen8_ppgtt.c and gt/intel_ppgtt.c of Linux 6.1).

Absent entries point into a scratch hierarchy that all spaces share; a table is filled before one store links it;
entries are inserted one by one and cleared by memset64; an empty table is unlinked before it is freed; DESTROY comes
before any page of a space is freed, and no table is cleared then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .pen import Pen

DIRECTORY = 0x003
DIRECTORY_SCRATCH = 0x01B
SCRATCH_PTE = 0x019
PTES = [0x083, 0x083, 0x01B, 0x013, 0x081, 0x019]
IPS = 1 << 11


@dataclass
class Node:
    """A table of the driver's own bookkeeping: what is linked below, or which entries of a page table are used."""

    frame: int
    level: int
    children: dict[int, Node] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)


@dataclass
class Space:
    mode: str
    roots: list[Node]
    root: int | list[int]


class LinuxDriver:
    def __init__(self, pen: Pen, frames: list[int], most_scratch: int = 4) -> None:
        self.pen = pen
        self.rng = pen.rng
        self.free = frames
        self.spaces: list[Space] = []
        self.mode = self.rng.choice(["l4", "l4", "l4", "l3"])
        self.ips = pen.generation == 9 and self.rng.random() < 0.5
        if self.ips:
            pen.ips(True)
        # How many levels have scratch for absent entries. All four make 2^36 runs, two make 2^18 of each directory.
        depth = self.rng.choices([0, 1, 2, 4], [32, 50, 1, 17] if self.mode == "l4" else [40, 60, 0, 0])[0]
        self.depth = depth if depth <= most_scratch else 1
        self.scratch = dict.fromkeys((1, 2, 3, 4), 0)
        entry = pen.data_frame() << 12 | SCRATCH_PTE
        for level in range(1, self.depth + 1):
            self.scratch[level] = entry
            if level < 4:
                table = self.new_page(level)
                entry = table << 12 | DIRECTORY_SCRATCH

    def new_page(self, level: int) -> int:
        frame = self.free.pop()
        self.pen.fill(frame << 12, 512, self.scratch[level])
        return frame

    def step(self) -> None:
        if not self.spaces or (len(self.spaces) < 4 and self.rng.random() < 0.08 and len(self.free) > 12):
            if len(self.free) > 8:
                self.create()
            return
        space = self.rng.choice(self.spaces)
        act = self.rng.choices(
            [self.insert, self.clear, self.drop, self.submit, self.gpu_store, self.migrate, self.destroy, self.balloon],
            [40, 18, 4, 14, 6, 4, 4, 2],
        )[0]
        act(space)

    def create(self) -> None:
        level = 4 if self.mode == "l4" else 2
        roots = [Node(self.new_page(level), level) for _ in range(1 if self.mode == "l4" else 4)]
        addresses = [node.frame << 12 for node in roots]
        root: int | list[int] = addresses[0] if self.mode == "l4" else addresses
        self.spaces.append(Space(self.mode, roots, root))
        if self.rng.random() < 0.95:  # some drivers never notify
            self.pen.notify(self.mode, root, True)

    def table(self, space: Space, va: int) -> tuple[Node, Node] | None:
        """The page table at ``va`` and its parent, allocating what is missing on the way."""
        node = space.roots[0 if space.mode == "l4" else va >> 30 & 3]
        parent = node
        while node.level > 1:
            index = va >> 12 + 9 * (node.level - 1) & 511
            if index not in node.children:
                if not self.free:
                    return None
                child = Node(self.new_page(node.level - 1), node.level - 1)
                self.pen.entry(node.frame, index, child.frame << 12 | DIRECTORY)
                node.children[index] = child
            parent, node = node, node.children[index]
        return parent, node

    def address(self, space: Space) -> int:
        """Few places, so that the same tables are met again."""
        table = self.rng.choice([0, 0, 1, 2, 511, 512, 1 << 18, 3 << 18, 511 << 18])
        if space.mode == "l3":
            table %= 1 << 11
        return table << 21 | self.rng.choice([0, 0, 16, 100, 496, self.rng.randrange(512)]) << 12

    def insert(self, space: Space) -> None:
        va = self.address(space)
        found = self.table(space, va)
        if found is None:
            return
        parent, table = found
        if self.ips and self.rng.random() < 0.3:
            self.insert_64k(parent, table, va)
            return
        start = va >> 12 & 511
        count = min(self.rng.choice([1, 2, 5, 16, 40]), 512 - start)
        frame, flags = self.pen.data_frame(), self.rng.choice(PTES)
        step = self.rng.choice([0, 1, 1, 1])
        for number in range(count):
            self.pen.entry(table.frame, start + number, (frame + number * step) % (1 << 34) << 12 | flags)
            table.used.add(start + number)

    def insert_64k(self, parent: Node, table: Node, va: int) -> None:
        start = (va >> 12 & 511) // 16 * 16
        frame, flags = self.pen.data_frame() // 16 * 16, self.rng.choice(PTES)
        for number in range(16):
            self.pen.entry(table.frame, start + number, (frame + number) << 12 | flags)
            table.used.add(start + number)
        index = va >> 21 & 511
        self.pen.entry(parent.frame, index, table.frame << 12 | DIRECTORY | IPS)

    def clear(self, space: Space) -> None:
        va = self.address(space)
        node = space.roots[0 if space.mode == "l4" else va >> 30 & 3]
        parents = []
        while node.level > 1:
            index = va >> 12 + 9 * (node.level - 1) & 511
            if index not in node.children:
                return
            parents.append((node, index))
            node = node.children[index]
        if not node.used:
            return
        if self.rng.random() < 0.4:
            first, last = min(node.used), max(node.used)
        else:
            first = self.rng.choice(sorted(node.used))
            last = min(511, first + self.rng.choice([0, 3, 15, 30]))
        self.pen.fill(node.frame << 12 | first << 3, last - first + 1, self.scratch[1])
        node.used -= set(range(first, last + 1))
        while not node.used and not node.children and parents:
            parent, index = parents.pop()
            self.pen.entry(parent.frame, index, self.scratch[parent.level])
            del parent.children[index]
            self.free.append(node.frame)
            node = parent

    def drop(self, space: Space) -> None:
        """A whole subtree at once: the parent's entry first, the tables freed as they are."""
        node = self.rng.choice(space.roots)
        while node.children:
            index, child = self.rng.choice(sorted(node.children.items(), key=lambda item: item[0]))
            if child.level == 1 or self.rng.random() < 0.4:
                self.pen.entry(node.frame, index, self.scratch[node.level])
                del node.children[index]
                self.release(child)
                return
            node = child

    def release(self, node: Node) -> None:
        for child in node.children.values():
            self.release(child)
        self.free.append(node.frame)

    def destroy(self, space: Space) -> None:
        self.spaces.remove(space)
        self.pen.notify(space.mode, space.root, False)
        for node in space.roots:
            self.release(node)
        if self.rng.random() < 0.5:  # the page's next owner
            self.pen.fill(space.roots[0].frame << 12, self.rng.choice([8, 512]), self.rng.getrandbits(64))

    def submit(self, space: Space) -> None:
        self.pen.submit(space.mode, space.root)

    def gpu_store(self, space: Space) -> None:
        va = self.address(space) + 8 * self.rng.randrange(512)
        self.pen.gpu_store(space.mode, space.root, va, self.rng.getrandbits(64))

    def migrate(self, space: Space) -> None:
        """A space maps one of its own page tables, and the GPU writes entries there (gt/intel_migrate.c)."""
        window = self.table(space, 0)
        target = self.table(space, self.address(space))
        if window is None or target is None:
            return
        self.pen.entry(window[1].frame, 7, target[1].frame << 12 | 0x083)
        window[1].used.add(7)
        for index in self.rng.sample(range(512), 3):
            entry = self.pen.data_frame() << 12 | self.rng.choice(PTES)
            self.pen.gpu_store(space.mode, space.root, 7 << 12 | index << 3, entry)
            target[1].used.add(index)

    def balloon(self, space: Space) -> None:
        frame = self.pen.data_frame() % self.pen.ram_frames
        self.pen.event("remove", gfn=frame, count=self.rng.choice([1, 1, 8]))
        if self.rng.random() < 0.7:
            self.submit(space)
            self.pen.event("add", gfn=frame, count=1)
