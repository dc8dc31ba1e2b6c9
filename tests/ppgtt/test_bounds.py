"""What the shadow may cost: memory for each table, work for each change, and what happens when the quota is used up."""

from __future__ import annotations

import collections
import subprocess
import sys
from typing import Any

import pytest

from tests.support.engine_bench import EngineBench, audit, mappings
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt import engine as engine_module
from xengt_dm.ppgtt import leaves, stores, syncing, tree
from xengt_dm.ppgtt.space import Mode, Space

#: Bytes that a shadow table may take.
MOST_PER_TABLE = 4400


# Memory


@pytest.mark.parametrize("quota", [1, 255, 256, 65536, 65537, 1 << 20])
def test_what_a_table_takes_is_bounded(quota: int) -> None:
    """Its page, its record, and its share of the index, once the quota is used."""
    shadow = ffi.gc(lib.xd_shadow_new(lib.xd_frames_new(1), ffi.new("xd_counters *"), quota), lib.xd_shadow_free)
    index = (shadow.bucket_mask + 1) * 4
    assert index <= 8 * quota + 1024
    assert FRAME + ffi.sizeof("xd_table") + 8 <= MOST_PER_TABLE


PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from tests.support.engine_bench import EngineBench, audit, mappings
from tests.support.tables import FRAME
from xengt_dm.ppgtt.space import Mode

TABLES, FIRST = 20000, 100

class Guest(EngineBench):
    "Keeps no books, so that what grows is the engine."
    def protect(self, gfns, count, errors):
        errors[0:count] = [0] * count
        return 0

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))

guest = Guest(FIRST + TABLES)
page = b"".join((FIRST + i << 12 | 3).to_bytes(8, "little") for i in range(512))
for gfn in range(FIRST, FIRST + TABLES):
    guest.memory[gfn * FRAME : (gfn + 1) * FRAME] = page
guest.put(1, 0, 2 << 12 | 3)
guest.put(2, 0, 3 << 12 | 3)
for slot in range(TABLES // 512 + 1):
    guest.put(2, slot, 10 + slot << 12 | 3)
for i in range(TABLES):
    guest.put(10 + i // 512, i % 512, FIRST + i << 12 | 3)
engine = guest.make_engine(max_tables=65536)
before = anonymous()
engine.create_space(Mode.L4, (FRAME,))
after = anonymous()
assert engine.counters.tables > TABLES
print((after - before) / engine.counters.tables)
"""


@pytest.mark.python_heavy
def test_memory_for_20_000_tables(checkout: Any) -> None:
    """Measured as the process's own pages, what does not depend on their number included."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(checkout)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    each = float(done.stdout)
    assert FRAME < each <= MOST_PER_TABLE


# Work


class Counted:
    """The C library, with its calls counted by name."""

    def __init__(self) -> None:
        self.calls: collections.Counter[str] = collections.Counter()

    def __getattr__(self, name: str) -> Any:
        value = getattr(lib, name)
        if not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            self.calls[name] += 1
            return value(*arguments)

        return call


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    proxy = Counted()
    for module in (engine_module, tree, leaves, stores, syncing):
        monkeypatch.setattr(module, "lib", proxy)
    return proxy


ROOT, PDP, PD, PT = 1, 2, 3, 4


def chain(guest: EngineBench, references: int) -> None:
    """Four tables; each names the next ``references`` times."""
    for table, child in ((ROOT, PDP), (PDP, PD), (PD, PT)):
        for slot in range(references):
            guest.put(table, slot, pte(child))


def test_512_references_cost_no_more_walks_than_one(counted: Counted) -> None:
    costs = []
    for references in (1, 512):
        guest = EngineBench()
        chain(guest, references)
        engine = guest.make_engine()
        counted.calls.clear()
        engine.create_space(Mode.L4, (ROOT << 12,))
        costs.append(dict(counted.calls))
        assert sorted(table.refs for table in engine.tables()) == sorted([1, *[references] * 3])
        counted.calls.clear()
        engine.forget_all_spaces()
        costs[-1] |= {f"destroying {name}": count for name, count in counted.calls.items()}
    assert costs[0] == costs[1]


def test_one_reference_more_is_a_look_up_and_not_a_walk(counted: Counted) -> None:
    """A driver that fills a directory with its scratch table entry by entry."""
    guest = EngineBench()
    chain(guest, 1)
    engine = guest.make_engine()
    engine.create_space(Mode.L4, (ROOT << 12,))
    costs = []
    for slot in range(1, 512):
        counted.calls.clear()
        guest.store(engine, PD * FRAME + slot * 8, 8, pte(PT))
        costs.append(dict(counted.calls))
    assert all(cost == costs[0] for cost in costs)
    for walk in ("xd_leaf_update", "xd_leaf_update_many", "xd_create_tables", "xd_add"):
        assert walk not in costs[0]
    assert engine.counters.tables == 4


def test_a_change_costs_the_same_however_many_tables_there_are(counted: Counted) -> None:
    """Linking and unlinking a subtree of two tables, beside 3 others and beside 1,500."""
    costs = []
    for others in (1, 3 * 512):
        guest = EngineBench(4096)
        chain(guest, 1)
        for i in range(others - 1):
            guest.put(PDP, 1 + i // 512, pte(10 + i // 512))
            guest.put(10 + i // 512, i % 512, pte(100 + i))
        guest.put(20, 0, pte(21))
        engine = guest.make_engine(max_tables=4096)
        engine.create_space(Mode.L4, (ROOT << 12,))
        assert engine.counters.tables >= others
        counted.calls.clear()
        guest.store(engine, PDP * FRAME + 8 * 100, 8, pte(20))
        linked = dict(counted.calls)
        counted.calls.clear()
        guest.store(engine, PDP * FRAME + 8 * 100, 8, 0)
        costs.append((linked, dict(counted.calls)))
    assert costs[0] == costs[1]


# The quota


def spaces_of_four(guest: EngineBench, count: int) -> list[int]:
    """``count`` spaces of four tables each, which share nothing; the roots."""
    for i in range(count):
        first = 10 + 4 * i
        for table in range(first, first + 3):
            guest.put(table, 0, pte(table + 1))
        guest.put(first + 3, 0, pte(5))
        guest.put(first + 3, 1, pte(5))
    return [10 + 4 * i << 12 for i in range(count)]


def with_shadows(engine: WholeEngine) -> set[int]:
    """The roots of the spaces that have their shadows now."""
    return {space.roots[0] for space in engine.spaces if space.numbers[0]}


def by_root(engine: WholeEngine, root: int) -> Space:
    (space,) = [space for space in engine.spaces if space.roots[0] == root]
    return space


def test_the_space_submitted_longest_ago_loses_its_shadows_first() -> None:
    guest = EngineBench()
    a, b, c, d = spaces_of_four(guest, 4)
    engine = guest.make_engine(max_tables=12)
    for root in (a, b, c):
        engine.create_space(Mode.L4, (root,))
    engine.submit(Mode.L4, (a,))
    engine.create_space(Mode.L4, (d,))
    assert with_shadows(engine) == {a, c, d}
    assert engine.counters.reclaimed_spaces == 1
    engine.submit(Mode.L4, (b,))
    assert with_shadows(engine) == {a, b, d}
    assert engine.counters.reclaimed_spaces == 2
    assert engine.counters.quota_entries == 0


def test_every_space_is_whole_at_its_submission() -> None:
    guest = EngineBench()
    roots = spaces_of_four(guest, 5)
    engine = guest.make_engine(max_tables=4)
    for root in roots:
        engine.create_space(Mode.L4, (root,))
    for root in roots * 2:
        assert len(mappings(engine, by_root(engine, root)) or ()) == 2
        assert audit(engine, by_root(engine, root)) == (0, 0)
        assert with_shadows(engine) == {root}
        assert len(guest.protected) == 4


def test_what_was_reclaimed_is_plain_memory_meanwhile() -> None:
    """Stores to it are not trapped; the next submission reads what they left."""
    guest = EngineBench()
    a, b = spaces_of_four(guest, 2)
    engine = guest.make_engine(max_tables=4)
    engine.create_space(Mode.L4, (a,))
    engine.create_space(Mode.L4, (b,))
    assert not guest.store(engine, (a >> 12) + 3 << 12, 8, pte(9))
    first = (mappings(engine, by_root(engine, a)) or [])[0]
    assert first.gpa == 9 << 12


@pytest.mark.parametrize("quota", [1, 2, 3, 4, 5, 100, 514])
def test_a_space_larger_than_the_quota_maps_less(quota: int) -> None:
    """Counted, never more tables than allowed, and every store of the guest goes where it should."""
    guest = EngineBench(2048)
    guest.put(ROOT, 0, pte(PDP))
    guest.put(PDP, 0, pte(PD))
    for slot in range(512):
        guest.put(PD, slot, pte(100 + slot))
        guest.put(100 + slot, 0, pte(7))
    engine = guest.make_engine(max_tables=quota)
    engine.create_space(Mode.L4, (ROOT << 12,))
    (space,) = engine.spaces
    mapped = mappings(engine, space)
    assert mapped is not None
    assert len(mapped) == max(0, quota - 3)
    assert engine.counters.quota_entries > 0
    assert engine.counters.tables <= quota
    assert audit(engine, space) == (0, 0)
    for slot in (0, 511):
        guest.store(engine, (100 + slot) * FRAME + 8, 8, pte(8))
        assert guest.entry(100 + slot, 1) == pte(8)
    engine.destroy_space(space.mode, space.roots)
    assert (engine.counters.tables, guest.protected) == (0, set())
