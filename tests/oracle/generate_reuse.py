"""A guest that forgets what its pages were: table pages become plain data while they are still linked.

intel/gvt-linux issue 153: stores of any size and garbage entries ("type 9", all ones) in tables whose space is
destroyed only later, if ever. It writes entries in halves, as a 32-bit driver does.
"""

from __future__ import annotations

from dataclasses import dataclass

from .pen import U64, Pen


@dataclass
class Space:
    mode: str
    root: int | list[int]
    tables: list[tuple[int, int]]  # (frame, level)


class TableReuser:
    def __init__(self, pen: Pen, frames: list[int]) -> None:
        self.pen = pen
        self.rng = pen.rng
        self.frames = frames
        self.spaces: list[Space] = []
        self.dead: list[Space] = []
        self.halves = self.rng.random() < 0.6

    def step(self) -> None:
        if not self.spaces or (len(self.spaces) < 5 and self.rng.random() < 0.1):
            self.create()
            return
        act = self.rng.choices(
            [self.map, self.scribble, self.flood, self.submit, self.gpu_store, self.destroy, self.again],
            [40, 22, 6, 12, 5, 9, 3],
        )[0]
        act(self.rng.choice(self.spaces))

    def create(self) -> None:
        """Pages come back from earlier spaces as they were left, and the same page may be dealt out twice."""
        mode = self.rng.choice(["l3", "l4", "l4"])
        level = 4 if mode == "l4" else 2
        roots = [self.rng.choice(self.frames) for _ in range(1 if mode == "l4" else 4)]
        tables = [(frame, level) for frame in roots]
        if self.rng.random() < 0.5:
            for frame in roots:
                self.pen.fill(frame << 12, 512, 0)
        parents = list(tables)
        for below in range(level - 1, 0, -1):
            children = []
            for parent, _ in parents[:2]:
                for index in self.rng.sample([0, 1, 2, 3, 256, 511], self.rng.choice([1, 2])):
                    child = self.rng.choice(self.frames)
                    self.pen.entry(parent, index, child << 12 | 7, self.halves)
                    children.append((child, below))
            tables += children
            parents = children
        addresses = [frame << 12 if level == 4 or self.rng.random() < 0.8 else 0 for frame in roots]
        self.spaces.append(Space(mode, addresses[0] if mode == "l4" else addresses, tables))
        self.pen.notify(mode, self.spaces[-1].root, True)

    def map(self, space: Space) -> None:
        frame, level = self.rng.choice(space.tables)
        index = self.rng.choice([0, 1, 2, 3, 16, 17, 256, 511])
        target = self.rng.choice(self.frames) if level > 1 or self.rng.random() < 0.3 else self.pen.data_frame()
        flags = self.rng.choice([0x007, 0x00F, 0x083, 0x003, 0x001, 0x000])
        for number in range(self.rng.choice([1, 1, 1, 4])):
            value = 0 if flags == 0 else (target + number) % (1 << 34) << 12 | flags
            self.pen.entry(frame, min(511, index + number), value, self.halves)

    def scribble(self, space: Space) -> None:
        """A few stores of data, of any size, in a page that is a table."""
        frame, _ = self.rng.choice(space.tables)
        at = self.rng.choice([0, 8, 16, 128, 0x800, 0xFF8])
        for _ in range(self.rng.randint(1, 6)):
            size = self.rng.choice([1, 2, 4, 8])
            value = self.rng.choice([0, U64, self.rng.getrandbits(64), self.pen.data_frame() << 12 | 3])
            self.pen.store((frame << 12) + at + self.rng.randrange(0, 24), value, size)

    def flood(self, space: Space) -> None:
        frame, level = self.rng.choice(space.tables)
        count = self.rng.choice([32, 512])
        value = self.rng.choice([0, U64, 0x4141414141414141, 0x0000004100000040])
        if value == U64 and level == 1:
            value = self.pen.data_frame() << 12 | 0xFFF
        self.pen.fill(frame << 12, count, value)

    def submit(self, space: Space) -> None:
        self.pen.submit(space.mode, space.root)

    def gpu_store(self, space: Space) -> None:
        va = self.rng.choice([0, 1, 256, 511]) << 21 | self.rng.choice([0, 1, 2, 16, 256]) << 12
        self.pen.gpu_store(space.mode, space.root, va + 8 * self.rng.randrange(4), self.rng.getrandbits(64))

    def destroy(self, space: Space) -> None:
        if self.rng.random() < 0.7:
            for _ in range(self.rng.randint(1, 4)):
                self.scribble(space)
        self.spaces.remove(space)
        self.dead.append(space)
        if self.rng.random() < 0.9:
            self.pen.notify(space.mode, space.root, False)

    def again(self, space: Space) -> None:
        """Create what is live already, or destroy what is not any more."""
        if self.dead and self.rng.random() < 0.5:
            space = self.rng.choice(self.dead)
            self.pen.notify(space.mode, space.root, False)
        else:
            self.pen.notify(space.mode, space.root, True)
