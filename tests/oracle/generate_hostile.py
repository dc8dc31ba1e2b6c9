"""A guest that tries everything: cycles, one page at all levels, garbage bits, frames that are not there."""

from __future__ import annotations

from .machine import G2V_NOTIFY, PDP
from .pen import U64, Pen

INDICES = [0, 0, 1, 2, 15, 16, 17, 32, 255, 256, 510, 511]
PRESENT, WRITABLE, LARGE, IPS = 1, 2, 1 << 7, 1 << 11


class Hostile:
    def __init__(self, pen: Pen, frames: list[int]) -> None:
        self.pen = pen
        self.rng = pen.rng
        self.frames = frames
        self.indices = self.rng.sample(INDICES, self.rng.randint(3, 6))
        #: Without them, every trace would soon be all garbage: each guest has only some of the vices.
        self.vices = {vice: self.rng.random() < 0.5 for vice in ("garbage", "odd stores", "floods", "balloon", "ips")}
        self.roots = [self.root(mode) for mode in self.rng.choices(["l4", "l4", "l3"], k=3)]

    def root(self, mode: str) -> tuple[str, int | list[int]]:
        low = self.rng.choice([0, 0, 0, 1, 0x18, 0xFFF])
        if mode == "l4":
            return mode, self.rng.choice(self.frames) << 12 | low
        absent = self.rng.choice([0.0, 0.5])
        return mode, [0 if self.rng.random() < absent else self.rng.choice(self.frames) << 12 | low for _ in range(4)]

    def step(self) -> None:
        acts = [
            (self.entry, 50),
            (self.odd_store, 25 if self.vices["odd stores"] else 0),
            (self.fill, 6),
            (self.notify, 10),
            (self.submit, 6),
            (self.gpu_store, 8),
            (self.balloon, 6 if self.vices["balloon"] else 0),
            (self.ips, 5 if self.vices["ips"] else 1),
            (self.register, 2),
            (self.far_store, 1),
        ]
        self.rng.choices([act for act, _ in acts], [weight for _, weight in acts])[0]()

    def value(self) -> int:
        """An entry: most point to a page that is a table somewhere."""
        rng = self.rng
        if rng.random() < 0.15:
            return 0
        if self.vices["garbage"] and rng.random() < 0.1:
            return rng.choice([U64, U64 - 1, rng.getrandbits(64), 0xFFFFFFFF])
        frame = rng.choice(self.frames) if rng.random() < 0.75 else self.pen.data_frame()
        flags = PRESENT if rng.random() < 0.93 else 0
        flags |= rng.choice([0, WRITABLE, WRITABLE, WRITABLE])
        flags |= rng.choice([0, 0, 0, LARGE])
        flags |= IPS if rng.random() < (0.5 if self.vices["ips"] else 0.05) else 0
        flags |= rng.choice([0, 0, 0x8, 0x10, 0x18, 0x64, 0x1000])
        high = rng.getrandbits(18) << 46 if self.vices["garbage"] and rng.random() < 0.4 else 0
        return (frame << 12 | flags | high) & U64

    def index(self) -> int:
        return self.rng.choice(self.indices) if self.rng.random() < 0.95 else self.rng.randrange(512)

    def entry(self) -> None:
        self.pen.entry(self.rng.choice(self.frames), self.index(), self.value(), self.rng.random() < 0.1)

    def odd_store(self) -> None:
        """Part of an entry, or parts of two, or of two pages."""
        gpa = (self.rng.choice(self.frames) << 12) + 8 * self.index() + self.rng.randrange(8)
        size = self.rng.choice([1, 2, 4, 8])
        value = self.value() >> 8 * self.rng.randrange(8)
        if self.rng.random() < 0.3:
            value = self.rng.getrandbits(64)
        self.pen.store(max(0, gpa + self.rng.choice([0, 0, -8])), value, size)

    def fill(self) -> None:
        frame, index = self.rng.choice(self.frames), self.index()
        if self.rng.random() < 0.3:
            self.pen.fill(frame << 12, 512, 0)
            return
        if not self.vices["floods"] or self.rng.random() < 0.9:
            self.pen.fill(frame << 12 | index << 3, self.rng.choice([2, 3, 8]), self.value())
            return
        # Over the page's end as well. Mostly not to tables: 512 times 512 of those are a dump of megabytes.
        target = self.rng.choice([*set(range(self.pen.ram_frames + 1)) - set(self.frames)])
        value = self.value() if self.rng.random() < 0.03 else target << 12 | self.rng.getrandbits(12)
        self.pen.fill(frame << 12 | index << 3, self.rng.choice([300, 512, 600]), value)

    def pick(self) -> tuple[str, int | list[int]]:
        if self.rng.random() < 0.1:
            self.roots[self.rng.randrange(3)] = self.root(self.rng.choice(["l4", "l3"]))
        return self.rng.choice(self.roots)

    def notify(self) -> None:
        mode, root = self.pick()
        self.pen.notify(mode, root, self.rng.random() < 0.6)
        if self.rng.random() < 0.1:
            self.pen.mmio(G2V_NOTIFY, self.rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 0xFFFFFFFF]))

    def submit(self) -> None:
        self.pen.submit(*self.pick())

    def gpu_store(self) -> None:
        mode, root = self.pick()
        va = self.rng.randrange(512) << 3
        for level in range(4 if mode == "l4" else 2):
            va |= self.index() << 12 + 9 * level
        if mode == "l3":
            va |= self.rng.randrange(4) << 30
        if self.rng.random() < 0.03:
            va |= 1 << (48 if mode == "l4" else 32)
        self.pen.gpu_store(mode, root, va, self.value())

    def balloon(self) -> None:
        frame = self.rng.choice(self.frames) if self.rng.random() < 0.7 else self.pen.data_frame() % self.pen.ram_frames
        op = self.rng.choice(["remove", "add"])
        self.pen.event(op, gfn=frame, count=self.rng.choice([1, 1, 1, 2, 5]))

    def ips(self) -> None:
        self.pen.ips(self.rng.random() < 0.6)

    def register(self) -> None:
        """Register writes that straddle, miss, or come in one piece where two are usual."""
        offset = self.rng.choice([PDP - 4, PDP + 2, PDP + 4, 0x407C, 0x4082, 0x78000, 0, G2V_NOTIFY - 4, G2V_NOTIFY])
        self.pen.mmio(offset, self.rng.getrandbits(64), self.rng.choice([4, 8]))

    def far_store(self) -> None:
        """To no RAM: beside the last frame, in BAR0's usual place, at the end of all addresses."""
        gpa = self.rng.choice([(self.pen.ram_frames << 12) - 3, 0xF0078818, 0xFEDCBA98, (1 << 46) + 4096, U64 - 7])
        self.pen.store(gpa, self.value(), 8)
