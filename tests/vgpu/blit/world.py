"""GPU memory with holes and read-only pages, on which the blitter in C and its twin work: each on bytes of its own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.support.core_bench import CHUNK, CoreBench
from tests.support.tables import FRAME, pte
from tests.vgpu.blit.pixels import ADDRESS_MASK
from xengt_dm._core import ffi, lib
from xengt_dm.units import CData

#: Numbers of frames that hold the guest tables; only their shadows exist.
FIRST_TABLE = 1 << 20
#: Several pages that are mapped one after the other.
REGION_PAGES = 96
#: Regions begin at a boundary of the largest tiles.
REGION_STARTS = (  # none of them reaches another one
    0x0000_0030_0000,
    0x0000_4000_0000 - 0x20000,  # across two page directories
    0x7FFF_FFFE_0000,  # across the end of the lower canonical half
    0xFFFF_FFFE_0000,  # across the end of all addresses
    0x0080_0000_0000 - 0x20000,  # across two PDPs
)


@dataclass(frozen=True)
class Page:
    gfn: int
    writable: bool


class Guest:
    """``chunks`` times 2 MiB of RAM, and one 4-level space of the GPU.

    ``holes``: how many frames are none. ``known``: the chunks that were queried.
    """

    def __init__(
        self, rng: random.Random, *, chunks: int = 3, holes: int = 0, known: Iterable[int] | None = None
    ) -> None:
        self.rng = rng
        frames = chunks * CHUNK
        self.bench = CoreBench(frames, holes=rng.sample(range(frames), holes), known=known, max_tables=128)
        self.bench.memory[:] = rng.randbytes(len(self.bench.memory))
        self.free = rng.sample(range(frames), frames)
        self.pages: dict[int, Page] = {}
        self._tables: dict[tuple[int, int], int] = {}
        self.root = self._table(4, 0)

    def map(self, page: int, gfn: int, *, writable: bool = True) -> None:
        """GPU page number ``page`` leads to a frame."""
        self.pages[page] = Page(gfn, writable)
        leaf = self._table(1, page)
        self.bench.shadow.pages[leaf * 512 + page % 512] = pte(gfn, 3 if writable else 1)

    def unmap(self, page: int) -> None:
        self.pages.pop(page, None)
        self.bench.shadow.pages[self._table(1, page) * 512 + page % 512] = 0

    def frame(self, gfn: int) -> memoryview:
        """The bytes of a frame."""
        return memoryview(self.bench.memory)[gfn * FRAME : (gfn + 1) * FRAME]

    def map_region(self, start: int, *, missing: float = 0.0, read_only: float = 0.0) -> int:
        """Maps pages from address ``start`` on, some of them not, some read-only. Returns ``start``."""
        for i in range(REGION_PAGES):
            page = (start + i * FRAME & ADDRESS_MASK) // FRAME
            if page not in self.pages and self.rng.random() >= missing:
                self.map(page, self.free.pop(), writable=self.rng.random() >= read_only)
        return start

    def _table(self, level: int, page: int) -> int:
        """The number of the shadow table that ``page`` goes through."""
        key = (level, page >> 9 * level)
        if key not in self._tables:
            self._tables[key] = number = self.bench.add(FIRST_TABLE + len(self._tables), level)
            self.bench.set_entries(number, [0] * 512)
            self._set_checked(number)
            if level < 4:
                parent = self._table(level + 1, page)
                self.bench.shadow.pages[parent * 512 + (page >> 9 * level) % 512] = pte(number)
        return self._tables[key]

    def _set_checked(self, number: int) -> None:
        """Its entries are what the guest's say: so an entry that maps nothing is a fault, and no reason to sync."""
        shadow = self.bench.shadow
        table = shadow.tables[number]
        shadow.stale_tables -= table.epoch != shadow.epoch
        table.epoch = shadow.epoch
        table.flags = 0

    def is_ram(self, gfn: int) -> bool:
        return gfn not in self.bench.holes and gfn < self.bench.limit


class TwinMemory:
    """What the twin works on: a copy of the guest's memory."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.bytes = bytearray(guest.bench.memory)

    def _place(self, address: int, writing: bool) -> int | None:
        page = self.guest.pages.get((address & ADDRESS_MASK) // FRAME)
        if page is None or not self.guest.is_ram(page.gfn) or (writing and not page.writable):
            return None
        return page.gfn * FRAME + address % FRAME

    def read(self, address: int, size: int) -> int:
        if address % FRAME + size > FRAME:
            return sum(self.read(address + i, 1) << 8 * i for i in range(size))
        place = self._place(address, False)
        return 0 if place is None else int.from_bytes(self.bytes[place : place + size], "little")

    def write(self, address: int, value: int, size: int) -> None:
        if address % FRAME + size > FRAME:
            for i in range(size):
                self.write(address + i, value >> 8 * i & 0xFF, 1)
        elif (place := self._place(address, True)) is not None:
            self.bytes[place : place + size] = value.to_bytes(size, "little")


class MalformedInCError(Exception):
    """The C calls a command malformed."""


class Blitter:
    """The blitter in C. ``budgets``: how much each of its turns may do."""

    def __init__(self, guest: Guest, budgets: Sequence[int] = (1 << 40,)) -> None:
        self.guest = guest
        self.budgets = budgets
        self.blit: CData = ffi.new("xd_blit *")
        self.bounce: CData = ffi.new("uint8_t[]", FRAME)
        self.memory: CData = ffi.new("xd_gpu_memory *")
        self.memory.shadow = guest.bench.shadow
        self.memory.frames = guest.bench.frames
        self.space: CData = ffi.new("xd_gpu_space *", {"level": 4, "roots": [guest.root, 0, 0, 0]})
        self.space.epoch = guest.bench.shadow.epoch
        self.turns: list[int] = []

    def begin(self, dwords: Sequence[int], swctrl: int = 0) -> int:
        return int(lib.xd_blit_begin(self.blit, ffi.new("uint32_t[]", dwords), len(dwords), swctrl))

    def turn(self, budget: int) -> int:
        left = ffi.new("uint64_t *", budget)
        result = int(lib.xd_blit_run(self.blit, self.memory, self.space, self.bounce, left))
        self.turns.append(result)
        assert left[0] <= budget
        return result

    def execute(self, dwords: Sequence[int], swctrl: int = 0) -> None:
        result = self.begin(dwords, swctrl)
        if result == lib.XD_BLIT_MALFORMED:
            raise MalformedInCError
        if result == lib.XD_BLIT_RUN:
            self.finish()

    def finish(self) -> None:
        turn = 0
        while result := self.turn(self.budgets[turn % len(self.budgets)]):
            turn += 1
            self.answer(result)

    def answer(self, result: int) -> None:
        """Does what a turn asks for."""
        if result == lib.XD_GM_AGAIN:
            assert not self.memory.stale
            for chunk in ffi.unpack(self.memory.need.chunks, self.memory.need.count):
                self.guest.bench.query(chunk)
            self.memory.need.count = 0
            lib.xd_gm_drop(self.memory)
        else:
            assert result in (lib.XD_BLIT_BUDGET, lib.XD_GM_DIRECTORY)
