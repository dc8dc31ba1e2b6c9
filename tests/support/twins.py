"""The C kernels once more, slowly and plainly: one entry at a time, from what the entries mean.

Sources: Intel PRM Broadwell vol. 5, "PPGTT table entries"; ``GEN8_*`` in Linux 6.1 drivers/gpu/drm/i915/gt/intel_gtt.h.
Nothing here is shared with the sources of the C, constants included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

PRESENT = 1 << 0
WRITABLE = 1 << 1
PWT = 1 << 3
PCD = 1 << 4
PAT = 1 << 7
LARGE = 1 << 7
IPS = 1 << 11
PAT_OF_LARGE = 1 << 12
ADDRESS = ((1 << 46) - 1) & ~0xFFF

#: Shadow entries that are not present, and why.
PENDING = 2
REFUSED = 4
#: Kinds of shadows beside the level.
WIDE = 8
SPLIT = 16

UNKNOWN, RAM, HOLE = 0, 1, 2

State = Callable[[int], int]


# Leaf tables


def named_by(page: Sequence[int], slot: int, wide: bool) -> int:
    """What slot of a leaf table maps, as a 4 KiB entry with nothing in it that a GPU ignores; 0 if nothing."""
    word = page[slot - slot % 16] if wide else page[slot]
    if not word & PRESENT:
        return 0
    address = word & ADDRESS
    if wide:
        address = address - address % 0x10000 + slot % 16 * 0x1000
    return address | word & (PRESENT | WRITABLE | PWT | PCD | PAT)


def leaf(page: Sequence[int], wide: bool, state: State) -> list[int]:
    """The shadow of a leaf table. An entry of which nothing is known maps nothing yet."""
    shadow = []
    for slot in range(512):
        entry = named_by(page, slot, wide)
        known = state(entry >> 12 & (1 << 34) - 1) if entry else RAM
        shadow.append(entry if known == RAM else PENDING if known == HOLE else 0)
    return shadow


def unknown_of_leaf(page: Sequence[int], slots: range, wide: bool, state: State) -> set[int]:
    """The frames behind these slots of which nothing is known."""
    frames = {(entry & ADDRESS) >> 12 for slot in slots if (entry := named_by(page, slot, wide))}
    return {frame for frame in frames if state(frame) == UNKNOWN}


def group(slots: range, wide: bool) -> range:
    """What must be looked at when these slots were stored to."""
    return range(slots.start // 16 * 16, -(-slots.stop // 16) * 16) if wide else slots


# Directories


class Child(NamedTuple):
    """A table that an entry names."""

    gfn: int
    kind: int


class Large(NamedTuple):
    """A 2 MiB page: its first frame, and the bits of each of its 4 KiB parts."""

    gfn: int
    bits: int


def meaning(word: int, level: int, ips: bool) -> Child | Large | int:
    """What an entry of a directory asks for; 0 or REFUSED if nothing can be done."""
    if not word & PRESENT:
        return 0
    frame = (word & ADDRESS) >> 12
    if word & LARGE and level == 3:
        return REFUSED
    if word & LARGE and level == 2:
        bits = word & (PRESENT | WRITABLE | PWT | PCD) | (PAT if word & PAT_OF_LARGE else 0)
        return Large(frame - frame % 512, bits)
    return Child(frame, level - 1 | (WIDE if level == 2 and word & IPS and ips else 0))


def states(large: Large, state: State) -> list[int]:
    return [state(large.gfn + i) for i in range(512)]


def parts(large: Large, state: State) -> list[int]:
    """The 4 KiB entries that a 2 MiB page stands for, where it is RAM."""
    return [large.gfn + i << 12 | large.bits if state(large.gfn + i) == RAM else 0 for i in range(512)]


def wanted(words: Sequence[int], level: int, ips: bool, state: State, has: Callable[[Child], bool]) -> set[Child]:
    """The tables that these entries name and that have no shadow."""
    found = {what for word in words if isinstance(what := meaning(word, level, ips), Child)}
    return {child for child in found if state(child.gfn) == RAM and not has(child)}


def splits(words: Sequence[int], level: int, ips: bool, state: State) -> int:
    """How many entries ask for a 2 MiB page that is RAM in part."""
    large = [what for word in words if isinstance(what := meaning(word, level, ips), Large)]
    return sum({RAM, HOLE} == set(states(each, state)) for each in large)


def unknown_of_directory(words: Sequence[int], level: int, ips: bool, state: State) -> set[int]:
    """The frames that these entries name and of which nothing is known."""
    frames = set()
    for word in words:
        what = meaning(word, level, ips)
        if isinstance(what, Child) and state(what.gfn) == UNKNOWN:
            frames.add(what.gfn)
        elif isinstance(what, Large):
            frames |= {what.gfn + i for i in range(512) if state(what.gfn + i) == UNKNOWN}
    return frames


def directory(
    words: Sequence[int], level: int, ips: bool, state: State, number_of: Callable[[Child], int]
) -> list[int | Large]:
    """The shadow entries; a Large where a table of 4 KiB entries must stand in for a 2 MiB page."""
    shadow: list[int | Large] = []
    for word in words:
        what = meaning(word, level, ips)
        if isinstance(what, int):
            shadow.append(what)
        elif isinstance(what, Child):
            number = number_of(what) if state(what.gfn) == RAM else 0
            shadow.append(number << 12 | PRESENT | WRITABLE if number else PENDING)
        elif set(states(what, state)) == {RAM}:
            kept = word & (ADDRESS & ~0x1FFFFF | PRESENT | WRITABLE | PWT | PCD | LARGE | PAT_OF_LARGE)
            shadow.append(kept)
        else:
            shadow.append(what if RAM in states(what, state) else PENDING)
    return shadow


# Reading


class Run(NamedTuple):
    va: int
    length: int
    gpa: int
    writable: int
    cache: int


def pages(shadow_page: Callable[[int], Sequence[int]], number: int, level: int, va: int = 0) -> Iterator[Run]:
    """Every page below a shadow table, one by one."""
    span = 1 << 12 + 9 * (level - 1)
    for slot, entry in enumerate(shadow_page(number)):
        here = va + slot * span
        if not entry & PRESENT:
            continue
        if level == 1:
            yield page_at(here, entry & ADDRESS, entry, 7)
        elif level == 2 and entry & LARGE:
            base = entry & ADDRESS & ~0x1FFFFF
            for i in range(512):
                yield page_at(here + i * 0x1000, base + i * 0x1000, entry, 12)
        else:
            yield from pages(shadow_page, entry >> 12, level - 1, here)


def page_at(va: int, gpa: int, entry: int, pat: int) -> Run:
    cache = 4 * (entry >> pat & 1) + 2 * (entry >> 4 & 1) + (entry >> 3 & 1)
    return Run(va, 0x1000, gpa, entry >> 1 & 1, cache)


def runs(found: Iterator[Run]) -> list[Run]:
    """Pages that go on where the one before ended are one run."""
    joined: list[Run] = []
    for page in found:
        last = joined[-1] if joined else None
        if last and (last.va + last.length, last.gpa + last.length, *last[3:]) == (page.va, page.gpa, *page[3:]):
            joined[-1] = last._replace(length=last.length + page.length)
        else:
            joined.append(page)
    return joined
