"""Writing a made-up trace down, and the small choices that every guest makes."""

from __future__ import annotations

import random
from typing import Any

from .machine import G2V_NOTIFY, GAMW_ECO_DEV_RW_IA, PDP, Trace

NOTIFY = {("l3", True): 2, ("l3", False): 3, ("l4", True): 4, ("l4", False): 5}
U64 = (1 << 64) - 1


class Pen:
    """``take`` deals out frames for tables; ``data_frame`` is any frame that something may point to."""

    def __init__(self, rng: random.Random, ram_frames: int, holes: bool) -> None:
        self.rng = rng
        self.ram_frames = ram_frames
        self.generation = rng.choice([8, 9, 9])
        self.vcpus = rng.choice([1, 1, 2, 4])
        self.trace: Trace = [{"trace": 1, "generation": self.generation, "ram_frames": ram_frames}]
        self.holes: list[list[int]] = []
        if holes and ram_frames > 8:
            for first in sorted(rng.sample(range(0, ram_frames, 4), rng.randint(1, min(4, ram_frames // 4)))):
                self.holes.append([first, rng.randint(1, 4)])
            self.holes = [[first, min(count, ram_frames - first)] for first, count in self.holes]
            self.trace[0]["holes"] = self.holes
        gone = {frame for first, count in self.holes for frame in range(first, first + count)}
        self.free = [frame for frame in range(1, ram_frames) if frame not in gone]
        self.dumps = 0

    def take(self, count: int) -> list[int]:
        """Frames for tables: mostly neighbours, as an allocator gives them; at most half of what is left."""
        count = max(1, min(count, len(self.free) // 2))
        first = self.rng.randrange(len(self.free) - count + 1)
        taken = self.free[first : first + count]
        del self.free[first : first + count]
        self.rng.shuffle(taken)
        return taken

    def data_frame(self) -> int:
        rng = self.rng
        if rng.random() < 0.06:
            return rng.choice([0, self.ram_frames - 1, self.ram_frames, (1 << 34) - 1, rng.getrandbits(34)])
        return rng.randrange(self.ram_frames)

    # Events.

    def event(self, op: str, **keys: Any) -> None:
        if "vcpu" not in keys and op in ("store", "fill", "mmio") and self.vcpus > 1:
            vcpu = self.rng.randrange(self.vcpus)
            if vcpu:
                keys["vcpu"] = vcpu
        self.trace.append({"op": op, **keys})

    def store(self, gpa: int, value: int, size: int = 8) -> None:
        self.event("store", gpa=gpa, size=size, value=value & ((1 << 8 * size) - 1))

    def entry(self, frame: int, index: int, value: int, halves: bool = False) -> None:
        """One table entry; in halves as a 32-bit driver writes it, either first."""
        gpa = frame << 12 | index << 3
        if not halves:
            self.store(gpa, value)
            return
        both = [(gpa, value), (gpa + 4, value >> 32)]
        if self.rng.random() < 0.5:
            both.reverse()
        for at, half in both:
            self.store(at, half, 4)

    def fill(self, gpa: int, count: int, value: int) -> None:
        self.event("fill", gpa=gpa, count=count, value=value & U64)

    def mmio(self, offset: int, value: int, size: int = 4) -> None:
        self.event("mmio", offset=offset, size=size, value=value & ((1 << 8 * size) - 1))

    def ips(self, on: bool) -> None:
        self.mmio(GAMW_ECO_DEV_RW_IA, 0xF if on else self.rng.choice([0, 0, 7, 0x10]))

    def notify(self, mode: str, root: int | list[int], create: bool) -> None:
        for number, address in enumerate([root] if isinstance(root, int) else root):
            if self.rng.random() < 0.3:
                self.mmio(PDP + 8 * number, address, 8)
            else:
                self.mmio(PDP + 8 * number, address)
                self.mmio(PDP + 8 * number + 4, address >> 32)
        self.mmio(G2V_NOTIFY, NOTIFY[mode, create])

    def submit(self, mode: str, root: int | list[int]) -> None:
        self.event("submit", mode=mode, root=root)

    def gpu_store(self, mode: str, root: int | list[int], va: int, value: int) -> None:
        self.event("gpu_store", mode=mode, root=root, va=va, value=value & U64)

    def dump(self) -> None:
        self.event("dump", id=f"dump {self.dumps}")
        self.dumps += 1
