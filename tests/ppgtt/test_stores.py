"""A store to a page table, from guest memory to the shadow: what is done at once, and what is left for later slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bus_world import request
from tests.support.counting_guest import FIRST_LEAF, CountingGuest, assert_bounded, large
from tests.support.engine_bench import EngineBench
from tests.support.serving import handled
from tests.support.tables import ENTRIES, FRAME, pte
from xengt_dm._core import ffi, lib
from xengt_dm.ioreq.bus import Bus
from xengt_dm.ioreq.journal import Journal
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import complete

SPACE = (Mode.L4, (0x1000,))
#: A directory above leaf tables.
DIRECTORY = 3


@pytest.mark.parametrize("sync", Sync)
def test_one_leaf_table_is_linked_and_unlinked_at_once(sync: Sync) -> None:
    guest, engine = large(sync)
    complete(engine.create_space(*SPACE))
    tables = engine.counters.tables
    guest.put(FIRST_LEAF, 5, pte(20))
    for entry, more in ((pte(FIRST_LEAF), 0), (pte(1), 1), (0, 0)):
        assert engine.stores.store(DIRECTORY * FRAME + 8 * 511, 8, entry) == lib.XD_ROUTE_DIRECTORY_STORE
        assert engine.counters.tables == tables + more
        assert engine.check() == []
    engine.close()


def test_a_store_that_leaves_work_is_begun() -> None:
    """Whoever looks before its first slice, an operator's audit perhaps, finds nothing that is wrong."""
    _, engine = large()
    complete(engine.create_space(*SPACE))
    (space,) = engine.spaces
    for entry in (0, pte(2)):
        rest = engine.stores.store(1 * FRAME, 8, entry)
        assert isinstance(rest, Iterator)
        assert complete(engine.audit(space)).mismatches == 0
        assert complete(rest) == lib.XD_ROUTE_DIRECTORY_STORE
        assert complete(engine.audit(space)) == (0, 0, 0)
    engine.close()


def test_a_store_that_links_or_unlinks_a_directory_is_bounded() -> None:
    guest, engine = large()
    complete(engine.create_space(*SPACE))
    for entry in (0, pte(DIRECTORY)):
        slices = guest.slices_of(lambda entry=entry: engine.stores.store(2 * FRAME, 8, entry))  # type: ignore[misc]
        assert_bounded(slices)
        assert sum(each.types for each in slices) == 501
    engine.close()


def test_a_store_that_is_never_finished_keeps_nothing() -> None:
    """Its request is dropped with the domain, or its job is closed."""
    guest, engine = large()
    complete(engine.create_space(*SPACE))
    rest = engine.stores.store(1 * FRAME, 8, 0)
    del rest
    complete(engine.destroy_space(*SPACE))
    complete(engine.create_space(*SPACE))
    complete(engine.destroy_space(*SPACE))
    assert (guest.protected, engine.shadow.live, engine.check()) == (set(), 0, [])
    engine.close()


def rep_stos(engine: Any, gfn: int, entries: list[int]) -> Any:
    postponed: dict[int, tuple[int, int]] = {}
    for slot, entry in enumerate(entries):
        assert engine.stores.store_of_many(gfn * FRAME + 8 * slot, 8, entry, postponed) == lib.XD_ROUTE_DIRECTORY_STORE
    assert postponed == {gfn: (0, len(entries) - 1)}
    return engine.stores.update_directories(postponed)


def test_a_directory_that_is_filled_anew_is_updated_in_bounded_slices() -> None:
    """512 tables come and 512 go: those that go do not count with those that come."""
    guest = CountingGuest(2048)
    guest.put(1, 0, pte(2))
    guest.put(2, 0, pte(DIRECTORY))
    before, after = ([pte(first + slot) for slot in range(ENTRIES)] for first in (8, 1024))
    for slot, entry in enumerate(before):
        guest.put(DIRECTORY, slot, entry)
    engine = guest.make_engine(max_tables=4096).steps
    complete(engine.create_space(*SPACE))
    complete(engine.frames.query_all(range(4)))
    slices = guest.slices_of(lambda: rep_stos(engine, DIRECTORY, after))
    assert_bounded(slices)
    assert sum(each.types for each in slices) == 2 * ENTRIES
    assert guest.protected == {1, 2, DIRECTORY, *range(1024, 1536)}
    engine.close()


def test_a_root_and_what_it_names_are_created_in_bounded_slices() -> None:
    guest = CountingGuest(1024)
    for slot in range(ENTRIES):
        guest.put(1, slot, pte(8 + slot))
    engine = guest.make_engine(max_tables=4096).steps
    roots = (0x1000, 0x1000, 0, 0x1000)
    assert_bounded(guest.slices_of(lambda: engine.create_space(Mode.L3, roots)))
    assert engine.counters.tables == 1 + ENTRIES
    assert_bounded(guest.slices_of(lambda: engine.destroy_space(Mode.L3, roots)))
    engine.close()


def test_a_copy_finds_a_frame_that_the_guest_has_added() -> None:
    """Nobody tells us of it, and its chunk was queried when it was a hole. Once a request is often enough."""
    guest = EngineBench()
    stores = guest.make_engine().stores
    guest.remove(40)
    assert stores.load(40 * FRAME, 8) == (1 << 64) - 1
    guest.add(40)
    guest.put(40, 0, 0x1234)
    assert stores.load(40 * FRAME, 8) == (1 << 64) - 1
    bus = Bus(stores, ffi.new("xd_counters *"), Journal.private())
    queries = guest.maps
    handled(bus, request(5 * FRAME, 8, 40 * FRAME, repeats=3, data_is_ptr=True))
    assert stores.load(5 * FRAME, 8) == 0x1234
    assert guest.maps == queries + 1
    guest.remove(41)
    handled(bus, request(5 * FRAME, 8, 41 * FRAME, repeats=64, data_is_ptr=True))
    assert guest.maps <= queries + 2
