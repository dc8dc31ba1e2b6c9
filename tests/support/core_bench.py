"""The C kernels without an engine above them: guest memory, what is known of its frames, and shadows."""

from __future__ import annotations

import errno
import mmap
import struct
from collections.abc import Iterable, Sequence

from tests.support.tables import ENTRIES, FRAME
from xengt_dm._core import ffi, lib
from xengt_dm.units import CData

CHUNK = 512

Page = Sequence[int]


def page_of(entries: dict[int, int]) -> list[int]:
    """A page with these entries and zeros."""
    page = [0] * ENTRIES
    for slot, entry in entries.items():
        page[slot] = entry
    return page


class CoreBench:
    """``frames`` frames of RAM but for ``holes``, all of them known unless ``known`` says which chunks are."""

    def __init__(
        self, frames: int, *, holes: Iterable[int] = (), max_tables: int = 64, known: Iterable[int] | None = None
    ) -> None:
        assert lib.xd_guard_install() == 0
        self.limit = frames
        self.holes = set(holes)
        self.memory = mmap.mmap(-1, -(-frames // CHUNK) * CHUNK * FRAME)
        self._view = ffi.from_buffer(self.memory)
        self.base = int(ffi.cast("uintptr_t", self._view))
        self.counters: CData = ffi.new("xd_counters *")
        self.frames: CData = ffi.gc(lib.xd_frames_new(frames), lib.xd_frames_free)
        self.shadow: CData = ffi.gc(lib.xd_shadow_new(self.frames, self.counters, max_tables), lib.xd_shadow_free)
        self.need: CData = ffi.new("xd_need *")
        for chunk in range(-(-frames // CHUNK)) if known is None else known:
            self.query(chunk)

    def query(self, chunk: int) -> None:
        first = chunk * CHUNK
        errors = [errno.ENOENT if first + i in self.holes else 0 for i in range(CHUNK)]
        address = ffi.cast("void *", self.base + first * FRAME)
        lib.xd_frames_record(self.frames, chunk, address, ffi.new("int[]", errors))

    def state(self, gfn: int) -> int:
        return int(lib.xd_frames_state(self.frames, gfn))

    # Guest memory

    def put(self, gfn: int, page: Page) -> None:
        struct.pack_into("<512Q", self.memory, gfn * FRAME, *page)

    def page(self, gfn: int) -> tuple[int, ...]:
        return struct.unpack_from("<512Q", self.memory, gfn * FRAME)

    # Shadows

    def add(self, gfn: int, kind: int) -> int:
        """A new empty shadow with one reference."""
        number = lib.xd_add(self.shadow, gfn, kind)
        assert number
        lib.xd_ref(self.shadow, number)
        return int(number)

    def table(self, number: int) -> CData:
        return self.shadow.tables[number]

    def entries(self, number: int) -> list[int]:
        """The shadow page."""
        first = number * ENTRIES
        return list(self.shadow.pages[first : first + ENTRIES])

    def set_entries(self, number: int, entries: Page) -> None:
        """Write a shadow page behind everybody's back."""
        ffi.memmove(self.shadow.pages + number * ENTRIES, struct.pack("<512Q", *entries), FRAME)

    def needed(self) -> set[int]:
        """The chunks that the last kernel asked for."""
        return set(ffi.unpack(self.need.chunks, self.need.count))

    def numbers_in_use(self) -> list[int]:
        return [number for number in range(1, self.shadow.used + 1) if self.shadow.tables[number].kind]

    def unsynced_tables(self) -> list[int]:
        """The list of unsynced tables, which must be one list in both directions."""
        shadow = self.shadow
        numbers, number = [], shadow.first_unsynced
        while number:
            assert shadow.tables[number].previous_unsynced == (numbers[-1] if numbers else 0)
            numbers.append(number)
            number = shadow.tables[number].next_unsynced
        assert shadow.last_unsynced == (numbers[-1] if numbers else 0)
        assert shadow.unsynced_tables == len(numbers)
        return numbers

    def recount(self, roots: Iterable[int] = ()) -> dict[int, int]:
        """How many references each shadow in use should have: from the entries of the others, and from ``roots``."""
        counts = dict.fromkeys(self.numbers_in_use(), 0)
        for root in roots:
            counts[root] += 1
        for number in counts:
            if self.shadow.tables[number].kind & lib.XD_LEVEL_MASK > 1:
                for entry in self.entries(number):
                    if entry & 0x81 == 1:
                        counts[entry >> 12] += 1
        return counts

    def references(self) -> dict[int, int]:
        """How many references each shadow in use says it has."""
        return {number: int(self.shadow.tables[number].refs) for number in self.numbers_in_use()}
