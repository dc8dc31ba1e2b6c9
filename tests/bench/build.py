"""Building the shadow of a space that maps so much in 4 KiB pages, against memcpy of its leaf tables.

Two references, because a copy costs most where it goes: *warm*, into memory that was written before, as the pages of a
shadow are when they are used again; *fresh*, into memory that the kernel has yet to find, as they are at first. Frames
are known to be RAM throughout; a chunk of 2 MiB is asked about once in the life of a guest that keeps its memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from tests.bench.measure import MICRO, Figure, best, cpu
from tests.bench.world import Guest
from tests.support.tables import FRAME
from xengt_dm._core import ffi
from xengt_dm.units import CData

#: Of 4 KiB mappings in one leaf table.
LEAVES_A_GIB = 512
TARGET = 4.0


def run(quick: bool) -> Iterator[Figure]:
    for gib in (1 / 64,) if quick else (1, 8):
        for scattered in (False, True):
            guest = Guest(int(gib * LEAVES_A_GIB), scattered=scattered)
            name = f"{gib:g} GiB {'scattered' if scattered else 'in order'}"
            yield _warm(guest, name, 2 if quick else 200 // int(gib))
            yield _fresh(guest, name, 2 if quick else 24 // int(gib))


def _warm(guest: Guest, name: str, rounds: int) -> Figure:
    engine = guest.engine()
    memory = mmap.mmap(-1, guest.leaves * FRAME)
    target = ffi.from_buffer(memory)

    def build() -> float:
        seconds = cpu(lambda: guest.create(engine))
        guest.destroy(engine)
        return seconds

    build()
    _copy(guest, target)
    return _figure(guest, f"{name}, warm", *best(rounds, lambda: cpu(lambda: _copy(guest, target)), build))


def _fresh(guest: Guest, name: str, rounds: int) -> Figure:
    def build() -> float:
        engine = guest.engine()
        return cpu(lambda: guest.create(engine))

    def copy() -> float:
        memory = mmap.mmap(-1, guest.leaves * FRAME, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        target = ffi.from_buffer(memory)
        return cpu(lambda: _copy(guest, target))

    return _figure(guest, f"{name}, fresh", *best(rounds, copy, build))


def _copy(guest: Guest, target: CData) -> None:
    ffi.memmove(target, ffi.cast("char *", guest.leaf(0)), guest.leaves * FRAME)


def _figure(guest: Guest, what: str, copied: float, built: float) -> Figure:
    how = f"{built / guest.leaves * MICRO:.2f} us a table, memcpy {copied / guest.leaves * MICRO:.2f}"
    return Figure("build", what, built / copied, "x memcpy", how, TARGET)
