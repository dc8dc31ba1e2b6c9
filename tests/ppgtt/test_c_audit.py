"""The audit: what is in sync passes, and whatever is changed behind its back is found, each entry once."""

from __future__ import annotations

import struct
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.engine_bench import EngineBench
from tests.support.engine_bench import audit as sync_and_audit
from tests.support.examples import examples
from tests.support.pages import slots
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.space import Mode
from xengt_dm.units import CData

ROOT, PDP, PD, PT, WIDE = 1, 2, 3, 4, 5
HOLE = 9
#: A 2 MiB page of which frame HOLE is missing, so that a table stands in for it; and one that is whole.
BROKEN, WHOLE = 0x83, pte(512, 0x83)


@pytest.fixture
def guest() -> EngineBench:
    return tree()


def tree() -> EngineBench:
    guest = EngineBench(1024)
    guest.holes.add(HOLE)
    guest.put(ROOT, 0, pte(PDP))
    guest.put(ROOT, 5, pte(HOLE))
    guest.put(PDP, 0, pte(PD))
    guest.put(PDP, 1, 0x83)
    for slot, entry in enumerate((pte(PT), pte(WIDE, 0x803), BROKEN, WHOLE, pte(HOLE))):
        guest.put(PD, slot, entry)
    for slot in range(512):
        guest.put(PT, slot, (slot % 20) << 12 | slot % 2)
        guest.put(WIDE, slot, pte(slot))
    return guest


def engine_on(guest: EngineBench) -> tuple[WholeEngine, CData]:
    """An engine with the space, and its shadows."""
    engine = guest.make_engine(generation=9)
    engine.set_64k_pages(True)
    engine.create_space(Mode.L4, (ROOT << 12,))
    engine.submit(Mode.L4, (ROOT << 12,))
    return engine, engine.shadow


def audit(engine: WholeEngine, refused: Collection[int] = ()) -> CData:
    (space,) = engine.spaces
    result = ffi.new("xd_audit *")
    gfns = ffi.new("uint64_t[]", sorted(refused))
    auditor = lib.xd_audit_new(engine.shadow, space.numbers, 4, lib.XD_AUDIT_SYNCED, gfns, len(refused), result)
    while not lib.xd_audit_step(auditor, 1):
        pass
    lib.xd_audit_free(auditor)
    return result


def test_a_tree_of_every_kind_of_entry_is_in_sync(guest: EngineBench) -> None:
    engine, _ = engine_on(guest)
    result = audit(engine)
    assert (result.mismatches, result.overdue) == (0, 0)
    assert result.tables == 5
    present = sum(word & 1 for gfn in (ROOT, PDP, PD) for word in words(guest, gfn))
    wide = sum(word & 1 for word in words(guest, WIDE))
    assert result.entries == present + sum(word & 1 for word in words(guest, PT)) + wide


def words(guest: EngineBench, gfn: int) -> tuple[int, ...]:
    return struct.unpack_from("<512Q", guest.memory, gfn * FRAME)


KINDS = {ROOT: 4, PDP: 3, PD: 2, PT: 1, WIDE: 9}


def entry_at(shadow: CData, gfn: int, slot: int) -> CData:
    number = lib.xd_find(shadow, gfn, KINDS[gfn])
    assert number
    return shadow.pages + number * 512 + slot


@examples(60)
@given(data=st.data())
def test_entries_of_the_shadow_that_are_wrong(data: st.DataObject) -> None:
    """Any bits of any entries: as many mismatches as entries that map something else now."""
    guest = tree()
    engine, shadow = engine_on(guest)
    changed = 0
    for gfn, slot in data.draw(st.sets(st.tuples(st.sampled_from([PT, WIDE]), slots), min_size=1, max_size=6)):
        entry = entry_at(shadow, gfn, slot)
        before = entry[0]
        entry[0] = before ^ data.draw(st.sampled_from([0x1, 0x2, 0x8, 0x1000, 1 << 45, 1 << 63, 0x201]))
        changed += (before | entry[0]) & 1
    assert audit(engine).mismatches == changed


@examples(60)
@given(data=st.data())
def test_entries_of_the_guest_that_changed_unseen(data: st.DataObject) -> None:
    """A store that was never trapped shows, as far as it changed what the table means."""
    guest = tree()
    engine, _ = engine_on(guest)
    slot = data.draw(slots)
    before = guest.entry(PT, slot)
    after = before ^ data.draw(st.sampled_from([0x0, 0x1, 0x2, 0x4, 0x1000, 0x20, 1 << 63]))
    guest.put(PT, slot, after)
    result = audit(engine)
    assert result.mismatches == (meaning(guest, before) != meaning(guest, after))
    if result.mismatches:
        assert (result.gfn, result.kind, result.slot, result.guest) == (PT, 1, slot, after)


def meaning(guest: EngineBench, word: int) -> object:
    frame = word >> 12 & (1 << 34) - 1
    ram = frame < guest.frames and frame not in guest.holes
    return (frame, word & 0x9A) if word & 1 and ram else None


@pytest.mark.parametrize(
    ("gfn", "slot", "make"),
    [
        (ROOT, 0, lambda entry: 0),
        (ROOT, 0, lambda entry: entry + 0x1000),
        (ROOT, 1, lambda entry: pte(3)),
        (ROOT, 5, lambda entry: pte(3)),
        (PDP, 1, lambda entry: 0x83),
        (PD, 0, lambda entry: 0x83),
        (PD, 2, lambda entry: BROKEN),
        (PD, 3, lambda entry: entry | 0x1000),
        (PD, 3, lambda entry: entry + 0x200000),
        (PD, 4, lambda entry: pte(HOLE)),
    ],
)
def test_directory_entries_of_the_shadow_that_are_wrong(guest: EngineBench, gfn: int, slot: int, make) -> None:  # type: ignore[no-untyped-def]
    engine, shadow = engine_on(guest)
    entry = entry_at(shadow, gfn, slot)
    entry[0] = make(entry[0])
    result = audit(engine)
    assert result.mismatches == 1
    assert (result.gfn, result.slot) == (gfn, slot)


def test_a_table_that_stands_in_for_a_large_page(guest: EngineBench) -> None:
    engine, shadow = engine_on(guest)
    split = entry_at(shadow, PD, 2)[0] >> 12
    shadow.pages[split * 512 + HOLE] = pte(HOLE)
    assert audit(engine).mismatches == 1


def test_frames_that_left_without_a_word(guest: EngineBench) -> None:
    """Mapped and no RAM is always wrong: in leaf tables, in a large page, and in the table that stands in for one."""
    engine, _ = engine_on(guest)
    guest.holes |= {11, 600}
    for chunk in range(2):
        engine.frames.query(chunk)
    in_leaf = sum(word & 1 and word >> 12 == 11 for word in words(guest, PT))
    assert in_leaf > 20
    assert audit(engine).mismatches == in_leaf + 3


def test_a_table_that_left_without_a_word(guest: EngineBench) -> None:
    """Its directory must not name it, it must map nothing, and nothing must map it."""
    engine, _ = engine_on(guest)
    guest.holes.add(PT)
    engine.frames.query(0)
    mapped = sum(word & 1 and word >> 12 != HOLE for word in words(guest, PT))
    assert audit(engine).mismatches == mapped + 3


def test_an_unsynced_table_that_differs_is_left_out(guest: EngineBench) -> None:
    engine, shadow = engine_on(guest)
    lib.xd_set_unsynced(shadow, PT, 1)
    assert (audit(engine).mismatches, audit(engine).unsynced) == (0, 0)
    lib.xd_set_unsynced(shadow, PT, 0)
    guest.put(PT, 3, 0x7003)
    assert (audit(engine).mismatches, audit(engine).unsynced) == (1, 0)
    lib.xd_set_unsynced(shadow, PT, 1)
    assert (audit(engine).mismatches, audit(engine).unsynced) == (0, 1)
    lib.xd_set_unsynced(shadow, PT, 0)


@pytest.mark.parametrize(("gfn", "slot"), [(ROOT, 0), (PDP, 0), (PD, 0), (PD, 1), (PD, 2), (PD, 3)])
def test_entries_pending_for_nothing(guest: EngineBench, gfn: int, slot: int) -> None:
    """To tables, to a large page, and to one that needs a table, being RAM in part: overdue, no more."""
    engine, shadow = engine_on(guest)
    entry_at(shadow, gfn, slot)[0] = lib.XD_PENDING
    result = audit(engine)
    assert (result.mismatches, result.overdue) == (0, 1)


@pytest.mark.parametrize(("slot", "frame"), [(0, PT), (1, WIDE)])
def test_entries_pending_for_a_frame_that_xen_refused(guest: EngineBench, slot: int, frame: int) -> None:
    engine, shadow = engine_on(guest)
    entry_at(shadow, PD, slot)[0] = lib.XD_PENDING
    assert audit(engine, [2, frame, 700]).overdue == 0
    assert audit(engine, [2, 700]).overdue == 1


@pytest.mark.parametrize(("slot", "overdue"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 0)])
def test_entries_pending_for_room(guest: EngineBench, slot: int, overdue: int) -> None:
    """A large page that is RAM throughout takes no table."""
    engine, shadow = engine_on(guest)
    entry_at(shadow, PD, slot)[0] = lib.XD_PENDING
    shadow.max_tables = shadow.live
    assert audit(engine).overdue == overdue


def test_the_engine_knows_what_xen_refused() -> None:
    guest = tree()
    guest.refuse.add(PT)
    engine, shadow = engine_on(guest)
    (space,) = engine.spaces
    assert entry_at(shadow, PD, 0)[0] == lib.XD_PENDING
    assert engine.sync(space).refused == {PT}
    assert sync_and_audit(engine, space) == (0, 0)
    assert audit(engine).overdue == 1
    guest.refuse.clear()
    assert sync_and_audit(engine, space) == (0, 0)
    assert entry_at(shadow, PD, 0)[0] != lib.XD_PENDING
    entry_at(shadow, PDP, 0)[0] = lib.XD_PENDING  # nothing else has a submission look at this table
    assert sync_and_audit(engine, space) == (0, 1)
    assert engine.counters.audit_overdue == 1
