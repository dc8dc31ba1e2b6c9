"""The guest's RAM: which frames there are, and what is in them. Everything is little-endian, as the guest is."""

from __future__ import annotations

import struct
from collections.abc import Iterable

PAGE = 4096
EMPTY = bytes(PAGE)


class Ram:
    def __init__(self, frames: int, holes: list[list[int]] | None = None) -> None:
        # Sorted, disjoint, half-open ranges of frames: RAM may be far larger than what a trace touches.
        self.ranges: list[tuple[int, int]] = [(0, frames)]
        self.pages: dict[int, bytearray] = {}
        for first, count in holes or []:
            self.remove(first, count)

    def has(self, frame: int) -> bool:
        for first, end in self.ranges:  # noqa: SIM110 - written out, as this is asked more often than anything else
            if first <= frame < end:
                return True
        return False

    def parts(self, first: int, count: int) -> list[tuple[int, int]]:
        """Those of ``count`` frames from ``first`` that are RAM, as (first, count) in order."""
        clipped = [(max(first, low), min(first + count, high)) for low, high in self.ranges]
        return [(low, high - low) for low, high in clipped if low < high]

    def remove(self, first: int, count: int) -> None:
        kept: list[tuple[int, int]] = []
        for low, high in self.ranges:
            kept += [(low, min(high, first)), (max(low, first + count), high)]
        self.ranges = sorted((low, high) for low, high in kept if low < high)
        self.forget(first, count)

    def add(self, first: int, count: int) -> None:
        """Frames that are RAM already come back zeroed too."""
        self.remove(first, count)
        joined: list[tuple[int, int]] = []
        for low, high in sorted([*self.ranges, (first, first + count)]):
            if joined and joined[-1][1] == low:
                low = joined.pop()[0]
            if low < high:
                joined.append((low, high))
        self.ranges = joined

    def forget(self, first: int, count: int) -> None:
        for frame in [frame for frame in self.pages if first <= frame < first + count]:
            del self.pages[frame]

    def store(self, gpa: int, data: bytes) -> None:
        """A store within one page of RAM."""
        page = self.pages.setdefault(gpa // PAGE, bytearray(EMPTY))
        page[gpa % PAGE : gpa % PAGE + len(data)] = data

    def words(self, frame: int) -> tuple[int, ...]:
        """The 512 entries of a page."""
        return struct.unpack("<512Q", self.pages.get(frame, EMPTY))


def runs_of(frames: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending frames as runs, (first, count) each."""
    found: list[tuple[int, int]] = []
    for frame in frames:
        if found and sum(found[-1]) == frame:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((frame, 1))
    return found


def pieces(gpa: int, size: int) -> list[tuple[int, int]]:
    """A store of ``size`` bytes as Xen splits it, (gpa, size) each.

    One that stays within its page is one access at whatever alignment. Over a page's end, each page's part becomes
    accesses of the largest power of two that is left (hvmemul_linear_mmio_access, hvmemul_phys_mmio_access in
    xen/arch/x86/hvm/emulate.c).
    """
    if gpa % PAGE + size <= PAGE:
        return [(gpa, size)]
    found = []
    first = PAGE - gpa % PAGE
    for part in (first, size - first):
        while part:
            chunk = 1 << (part.bit_length() - 1)
            found.append((gpa, chunk))
            gpa += chunk
            part -= chunk
    return found
