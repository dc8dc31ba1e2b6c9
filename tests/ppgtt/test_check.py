"""Engine.check(): it finds what it must, whichever record of a healthy engine is damaged."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.engine_bench import EngineBench
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm._core import lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.units import CData

ROOT, PDP, PD, PT, WIDE, OTHER = 1, 2, 3, 4, 5, 6
HOLE = 9


def healthy() -> WholeEngine:
    """A space with every kind of entry; two leaf tables are unsynced, one of them in both kinds."""
    guest = EngineBench(1024)
    guest.holes.add(HOLE)
    for table, child in ((ROOT, PDP), (PDP, PD)):
        guest.put(table, 0, pte(child))
    for slot, entry in enumerate((pte(PT), pte(PT, 0x803), pte(OTHER), 0x83, pte(HOLE))):
        guest.put(PD, slot, entry)
    guest.put(PT, 0, pte(HOLE))
    engine = guest.make_engine(sync=Sync.RELAXED, generation=9)
    engine.set_64k_pages(True)
    for roots in ((ROOT << 12,), (PDP << 12,)):
        engine.create_space(Mode.L4, roots)
        engine.submit(Mode.L4, roots)
    engine.destroy_space(Mode.L4, (PDP << 12,))  # leaves numbers that are free
    for table in (PT, OTHER):  # protected since they were directories, too
        for slot in (8, 9):
            assert guest.store(engine, table * FRAME + 8 * slot, 8, pte(20))
    engine.submit(Mode.L4, (ROOT << 12,))
    for table in (PT, OTHER):
        assert not guest.store(engine, table * FRAME + 8, 8, pte(20))
    return engine


def table(engine: WholeEngine, gfn: int, kind: int) -> CData:
    number = lib.xd_find(engine.shadow, gfn, kind)
    assert number
    return engine.shadow.tables[number]


def entries(engine: WholeEngine, gfn: int, kind: int) -> CData:
    return engine.shadow.pages + lib.xd_find(engine.shadow, gfn, kind) * 512


def damage_entry(engine: WholeEngine, slot: int, entry: int) -> None:
    entries(engine, PD, 2)[slot] = entry


def add(owner: CData, name: str, value: int = 1) -> None:
    setattr(owner, name, getattr(owner, name) + value)


DAMAGES: dict[str, Callable[[WholeEngine], None]] = {
    "live": lambda engine: add(engine.shadow, "live"),
    "quota": lambda engine: setattr(engine.shadow, "max_tables", 3),
    "stale": lambda engine: add(table(engine, ROOT, 4), "epoch"),
    "stale tables": lambda engine: add(engine.shadow, "stale_tables"),
    "pending": lambda engine: add(table(engine, PD, 2), "pending"),
    "pending of a leaf": lambda engine: setattr(table(engine, PT, 1), "pending", 0),
    "pending tables": lambda engine: add(engine.shadow, "pending_tables"),
    "refs": lambda engine: add(table(engine, PDP, 3), "refs"),
    "no refs": lambda engine: setattr(table(engine, PDP, 3), "refs", 0),
    "root": lambda engine: engine.spaces[0].numbers.__setitem__(0, 0),
    "a link to nothing": lambda engine: damage_entry(engine, 5, pte(500)),
    "a link removed": lambda engine: damage_entry(engine, 2, 0),
    "a link to another level": lambda engine: damage_entry(engine, 2, pte(lib.xd_find(engine.shadow, ROOT, 4))),
    "parent": lambda engine: setattr(table(engine, PD, 2), "parent", lib.xd_find(engine.shadow, ROOT, 4)),
    "gfn": lambda engine: setattr(table(engine, OTHER, 1), "gfn", 77),
    "kind": lambda engine: setattr(table(engine, OTHER, 1), "kind", 2),
    "order of a frame's tables": lambda engine: setattr(
        table(engine, ROOT, 4), "next_of_frame", lib.xd_find(engine.shadow, PDP, 3)
    ),
    "free list": lambda engine: setattr(engine.shadow, "first_free", 0),
    "unreferenced": lambda engine: setattr(engine.shadow, "first_unreferenced", 1),
    "unsynced": lambda engine: setattr(table(engine, OTHER, 1), "flags", 0),
    "unsynced in one kind": lambda engine: setattr(table(engine, PT, 9), "flags", 0),
    "unsynced directory": lambda engine: setattr(table(engine, PD, 2), "flags", lib.XD_TABLE_UNSYNCED),
    "unsynced tables": lambda engine: add(engine.shadow, "unsynced_tables"),
    "last unsynced": lambda engine: setattr(engine.shadow, "last_unsynced", engine.shadow.first_unsynced),
    "previous unsynced": lambda engine: setattr(table(engine, OTHER, 1), "previous_unsynced", 0),
    "counted tables": lambda engine: add(engine.counters, "tables"),
    "counted spaces": lambda engine: add(engine.counters, "spaces"),
    "counted protected": lambda engine: add(engine.counters, "protected_pages"),
}


def test_a_healthy_engine_has_nothing_wrong() -> None:
    engine = healthy()
    assert engine.check() == []
    assert engine.shadow.first_free
    assert engine.shadow.unsynced_tables == 3
    engine.close()
    assert engine.check() == []


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found(what: str) -> None:
    engine = healthy()
    DAMAGES[what](engine)
    assert engine.check() != []
