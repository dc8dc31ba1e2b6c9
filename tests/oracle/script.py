"""Writing a small trace by hand, in the words of the tables: link this table there, map that frame, dump."""

from __future__ import annotations

import itertools
from typing import Any

from .machine import G2V_NOTIFY, GAMW_ECO_DEV_RW_IA, PDP, Trace
from .pen import NOTIFY

PRESENT, RW = 1, 2
DIRECTORY = PRESENT | RW
PTE = PRESENT | RW | 0x80  # cached, as i915 writes it
RO = PRESENT | 0x80
PS = 1 << 7  # a page-directory entry that is a 2 MiB page, a page-directory-pointer entry that is a 1 GiB page
PAT_2M = 1 << 12
IPS = 1 << 11


class Script:
    def __init__(self, frames: int = 64, generation: int = 9, holes: list[list[int]] | None = None) -> None:
        self.trace: Trace = [{"trace": 1, "generation": generation, "ram_frames": frames}]
        if holes:
            self.trace[0]["holes"] = holes

    def event(self, op: str, **keys: Any) -> None:
        self.trace.append({"op": op, **keys})

    def store(self, gpa: int, value: int, size: int = 8) -> None:
        self.event("store", gpa=gpa, size=size, value=value)

    def entry(self, table: int, index: int, frame: int, flags: int) -> None:
        """One entry of the table in that frame."""
        self.store(table << 12 | index << 3, frame << 12 | flags)

    def clear(self, table: int, index: int) -> None:
        self.store(table << 12 | index << 3, 0)

    def fill(self, table: int, index: int, count: int, value: int) -> None:
        self.event("fill", gpa=table << 12 | index << 3, count=count, value=value)

    def path(self, *frames: int, index: int = 0) -> None:
        """Tables linked in a chain, each in entry ``index`` of the one before; the first is not linked anywhere."""
        for table, below in itertools.pairwise(frames):
            self.entry(table, index, below, DIRECTORY)

    def mmio(self, offset: int, value: int, size: int = 4) -> None:
        self.event("mmio", offset=offset, size=size, value=value)

    def ips(self, on: bool = True) -> None:
        self.mmio(GAMW_ECO_DEV_RW_IA, 0xF if on else 0)

    def notify(self, mode: str, roots: list[int], create: bool) -> None:
        for number, frame in enumerate(roots):
            address = frame << 12
            self.mmio(PDP + 8 * number, address & 0xFFFFFFFF)
            self.mmio(PDP + 8 * number + 4, address >> 32)
        self.mmio(G2V_NOTIFY, NOTIFY[mode, create])

    def create(self, *roots: int) -> None:
        """An L4 space of one root frame, or an L3 space of four."""
        self.notify("l4" if len(roots) == 1 else "l3", list(roots), True)

    def destroy(self, *roots: int) -> None:
        self.notify("l4" if len(roots) == 1 else "l3", list(roots), False)

    def submit(self, *roots: int) -> None:
        self.event("submit", **_space(roots))

    def gpu_store(self, roots: tuple[int, ...], va: int, value: int) -> None:
        self.event("gpu_store", **_space(roots), va=va, value=value)

    def remove(self, gfn: int, count: int = 1) -> None:
        self.event("remove", gfn=gfn, count=count)

    def add(self, gfn: int, count: int = 1) -> None:
        self.event("add", gfn=gfn, count=count)

    def dump(self, name: str) -> None:
        self.event("dump", id=name)


def _space(roots: tuple[int, ...]) -> dict[str, Any]:
    addresses = [frame << 12 for frame in roots]
    return {"mode": "l4", "root": addresses[0]} if len(roots) == 1 else {"mode": "l3", "root": addresses}
