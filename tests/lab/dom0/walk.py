"""The three views of an address space that have to agree, each as {va: (gpa, writable, cache)} by 4 KiB page."""

import struct
from collections.abc import Iterable

from .checks import ScenarioError
from .guest import RAM_SIZE
from .libxen import PAGE_SIZE, ForeignMemory

Mappings = dict[int, tuple[int, int, int]]

_TABLE = struct.Struct("<512Q")
_ADDRESS = ((1 << 46) - 1) & ~(PAGE_SIZE - 1)
_PRESENT, _WRITABLE, _PWT, _PCD, _LARGE_OR_PAT = 1, 2, 8, 16, 128

# The same values as in tests/lab/guest/space.h.
_INTENT_CACHE, _INTENT_WRITABLE, _INTENT_NO_RAM = 0x007, 0x008, 0x020


def of_tables(memory: ForeignMemory, root: int) -> Mappings:
    """What a GPU would find that walks the guest's own 4-level tables."""
    found: Mappings = {}
    _walk(memory, root, 4, 0, found)
    return found


def _walk(memory: ForeignMemory, table: int, level: int, base: int, found: Mappings) -> None:
    for index, entry in enumerate(_TABLE.unpack(memory.read(table, PAGE_SIZE))):
        va = base | index << 3 + 9 * level
        gpa = entry & _ADDRESS
        if not entry & _PRESENT or gpa >= RAM_SIZE:
            continue
        if level > 1:
            if entry & _LARGE_OR_PAT:
                raise ScenarioError(f"the guest's tables map a large page at {va:#x}")
            _walk(memory, gpa, level - 1, va, found)
        else:
            cache = bool(entry & _LARGE_OR_PAT) * 4 + bool(entry & _PCD) * 2 + bool(entry & _PWT)
            found[va] = (gpa, int(bool(entry & _WRITABLE)), cache)


def of_intents(records: Iterable[tuple[int, int]]) -> Mappings:
    """What the guest says that it meant."""
    return {
        va: (intent & _ADDRESS, int(bool(intent & _INTENT_WRITABLE)), intent & _INTENT_CACHE)
        for va, intent in records
        if not intent & _INTENT_NO_RAM
    }


def of_runs(runs: Iterable[tuple[int, int, int, int, int]]) -> Mappings:
    """What the daemon's shadow resolves to, from the runs [va, length, gpa, writable, cache] of its dump."""
    return {
        va + offset: (gpa + offset, int(writable), cache)
        for va, length, gpa, writable, cache in runs
        for offset in range(0, length, PAGE_SIZE)
    }


def difference(expected: Mappings, found: Mappings) -> str | None:
    """The first page at which two views differ, in words; None if they agree."""
    for va in sorted(expected.keys() | found.keys()):
        if expected.get(va) != found.get(va):
            return f"at {va:#x}: {_words(expected.get(va))} expected, {_words(found.get(va))} found"
    return None


def _words(mapping: tuple[int, int, int] | None) -> str:
    if mapping is None:
        return "nothing"
    gpa, writable, cache = mapping
    return f"{gpa:#x} {'rw' if writable else 'ro'} cache {cache}"
