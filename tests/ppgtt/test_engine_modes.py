"""An engine that is told to free its shadows, to shadow again, to change its mode, and to be watched."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.engine_bench import EngineBench, audit, mappings_of, unsynced_frames
from tests.support.tables import FRAME
from tests.support.whole_engine import WholeEngine
from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import complete

#: Frames of the tables of one L4 space, root first, and a frame of data.
L4, L3, L2, L1, DATA = range(2, 7)
ROOT = (L4 * FRAME,)
RW = 3


def entry(gfn: int) -> int:
    return gfn * FRAME | RW


def make_tables(guest: EngineBench) -> None:
    for table, child in ((L4, L3), (L3, L2), (L2, L1), (L1, DATA)):
        guest.put(table, 0, entry(child))


@pytest.fixture(params=list(Sync))
def sync(request: pytest.FixtureRequest) -> Sync:
    assert isinstance(request.param, Sync)
    return request.param


def with_space(guest: EngineBench, sync: Sync) -> WholeEngine:
    make_tables(guest)
    engine = guest.make_engine(sync=sync)
    engine.create_space(Mode.L4, ROOT)
    return engine


def test_quiesced_nothing_is_protected_open_or_mapped(sync: Sync) -> None:
    guest = EngineBench()
    engine = with_space(guest, sync)
    assert guest.store(engine, L1 * FRAME + 8, 8, entry(9)) == (sync is Sync.STRICT)
    engine.quiesce()
    assert engine.quiesced
    assert not guest.protected
    assert guest.maps == guest.unmaps
    assert [space.roots for space in engine.spaces] == [ROOT]
    assert (engine.counters.tables, engine.counters.protected_pages) == (0, 0)


def test_resumed_the_shadow_says_what_the_tables_say_by_then(sync: Sync) -> None:
    guest = EngineBench()
    engine = with_space(guest, sync)
    engine.quiesce()
    assert not guest.store(engine, L1 * FRAME + 8, 8, entry(9))
    assert mappings_of(engine) == {(Mode.L4, ROOT): []}
    engine.resume()
    assert guest.protected == {L4, L3, L2} | ({L1} if sync is Sync.STRICT else set())
    assert mappings_of(engine) == {(Mode.L4, ROOT): [(0, FRAME, DATA * FRAME, 1, 0), (FRAME, FRAME, 9 * FRAME, 1, 0)]}
    assert all(audit(engine, space) == (0, 0) for space in engine.spaces)


def test_spaces_come_and_go_while_quiesced(sync: Sync) -> None:
    guest = EngineBench()
    engine = with_space(guest, sync)
    engine.quiesce()
    engine.create_space(Mode.L3, (L2 * FRAME, 0, 0, 0))
    assert engine.destroy_space(Mode.L4, ROOT)
    assert not guest.protected
    engine.resume()
    assert guest.protected == {L2} | ({L1} if sync is Sync.STRICT else set())
    engine.close()
    assert not guest.protected


def test_frames_may_be_others_after_a_resume() -> None:
    """A domain that was restored has its frames anew."""
    guest = EngineBench()
    engine = with_space(guest, Sync.STRICT)
    engine.quiesce()
    guest.remove(DATA)
    engine.resume()
    assert mappings_of(engine) == {(Mode.L4, ROOT): []}


def test_going_strict_protects_and_reads_what_is_unsynced() -> None:
    guest = EngineBench()
    engine = with_space(guest, Sync.RELAXED)
    assert unsynced_frames(engine) == {L1}
    assert not guest.store(engine, L1 * FRAME + 16, 8, entry(10))
    engine.set_sync_mode(Sync.STRICT)
    assert not unsynced_frames(engine)
    assert guest.protected == {L4, L3, L2, L1}
    assert engine.counters.protected_pages == 4
    (space,) = engine.spaces
    assert [run.va for run in engine.mappings(space)] == [0, 2 * FRAME]
    assert guest.store(engine, L1 * FRAME + 24, 8, entry(11))
    engine.submit(Mode.L4, ROOT)
    assert not unsynced_frames(engine)


def test_what_cannot_be_protected_stays_unsynced_and_is_synced_all_the_same() -> None:
    guest = EngineBench()
    engine = with_space(guest, Sync.RELAXED)
    guest.refuse = {L1}
    engine.set_sync_mode(Sync.STRICT)
    assert unsynced_frames(engine) == {L1}
    guest.store(engine, L1 * FRAME + 16, 8, entry(10))
    assert audit(engine, engine.spaces[0]) == (0, 0)
    assert engine.resolve(engine.spaces[0], 2 * FRAME) is not None
    guest.store(engine, L3 * FRAME + 8, 8, entry(L1))  # as a directory it is refused
    assert engine.counters.unprotectable_entries == 1
    assert engine.check() == []


def test_going_relaxed_unsyncs_what_is_stored_to() -> None:
    guest = EngineBench()
    engine = with_space(guest, Sync.STRICT)
    engine.set_sync_mode(Sync.RELAXED)
    for slot in (1, 2):
        assert guest.store(engine, L1 * FRAME + 8 * slot, 8, entry(9))
    assert not unsynced_frames(engine)
    engine.submit(Mode.L4, ROOT)
    assert unsynced_frames(engine) == {L1}
    assert engine.counters.opened_pages == 1
    assert not guest.store(engine, L1 * FRAME + 8, 8, entry(10))


def protected_leaf() -> tuple[EngineBench, WholeEngine]:
    """Relaxed mode, with a leaf table that is protected because it has settled."""
    guest = EngineBench()
    engine = with_space(guest, Sync.RELAXED)
    for _ in range(lib.XD_CALM + 1):  # the first one finds the entry that was there before
        engine.submit(Mode.L4, ROOT)
    assert guest.protected == {L4, L3, L2, L1}
    assert (engine.counters.settled_tables, engine.counters.unsynced_births) == (1, 1)
    return guest, engine


def test_a_table_that_its_store_cannot_unsync_is_unsynced_after_another_submission() -> None:
    guest, engine = protected_leaf()
    guest.busy = {L1}
    for slot in (1, 2):
        assert guest.store(engine, L1 * FRAME + 8 * slot, 8, entry(9))
    engine.submit(Mode.L4, ROOT)
    assert guest.protected == {L4, L3, L2, L1}
    guest.busy = set()
    engine.submit(Mode.L4, ROOT)
    assert unsynced_frames(engine) == {L1}
    assert (engine.counters.opened_pages, engine.counters.protected_pages) == (1, 3)
    assert not guest.store(engine, L1 * FRAME + 16, 8, entry(10))
    assert audit(engine, engine.spaces[0]) == (0, 0)


def test_no_directory_is_unsynced() -> None:
    guest = EngineBench()
    engine = with_space(guest, Sync.RELAXED)
    for gfn in (L4, L3, L2):
        for slot in (5, 6):
            guest.store(engine, gfn * FRAME + 8 * slot, 8, 0)
    engine.submit(Mode.L4, ROOT)
    assert unsynced_frames(engine) == {L1}


def test_after_a_gap_a_submission_reads_every_table_again() -> None:
    guest = EngineBench()
    engine = with_space(guest, Sync.STRICT)
    guest.put(L1, 1, entry(9))
    engine.submit(Mode.L4, ROOT)
    assert audit(engine, engine.spaces[0]) == (1, 0)
    guest.gaps += 1
    engine.submit(Mode.L4, ROOT)
    assert audit(engine, engine.spaces[0]) == (0, 0)


def test_a_candidate_that_goes_is_forgotten() -> None:
    guest, engine = protected_leaf()
    for slot in (1, 2):
        guest.store(engine, L1 * FRAME + 8 * slot, 8, entry(9))
    engine.destroy_space(Mode.L4, ROOT)
    assert engine.shadow.candidates == 0
    engine.submit(Mode.L4, ROOT)
    assert (guest.protected, engine.counters.opened_pages) == (set(), 0)


def test_a_candidate_of_relaxed_mode_stays_protected_in_strict_mode() -> None:
    guest, engine = protected_leaf()
    for slot in (1, 2):
        guest.store(engine, L1 * FRAME + 8 * slot, 8, entry(9))
    engine.set_sync_mode(Sync.STRICT)
    engine.submit(Mode.L4, ROOT)
    assert guest.protected == {L4, L3, L2, L1}
    assert (engine.counters.opened_pages, engine.shadow.candidates) == (0, 0)


def test_above_the_cap_a_leaf_table_is_protected_from_the_start() -> None:
    guest = EngineBench()
    make_tables(guest)
    guest.put(L2, 1, entry(20))
    engine = guest.make_engine(sync=Sync.RELAXED)
    engine.shadow.max_unsynced = 1
    engine.create_space(Mode.L4, ROOT)
    assert (len(unsynced_frames(engine)), len(guest.protected)) == (1, 4)
    (protected,) = guest.protected & {L1, 20}
    for slot in (1, 2):
        assert guest.store(engine, protected * FRAME + 8 * slot, 8, entry(9))
    engine.submit(Mode.L4, ROOT)
    assert len(unsynced_frames(engine)) == 1


@pytest.mark.parametrize("waits", [L4, L3, L2, L1])
def test_a_table_is_created_when_no_store_lies_in_it_and_the_next_frame(sync: Sync, waits: int) -> None:
    """Until then nothing has changed, and the request that links it waits."""
    guest = EngineBench()
    make_tables(guest)
    engine = guest.make_engine(sync=sync)
    guest.straddled = {waits}
    work = engine.steps.create_space(Mode.L4, ROOT)
    if waits == L1 and sync is Sync.RELAXED:  # its leaf tables are not protected
        complete(work)
        return
    for _ in range(100):
        next(work)
    assert guest.protected == set(range(L4, waits))
    assert engine.counters.tables == engine.counters.protected_pages == len(guest.protected)
    guest.straddled = set()
    complete(work)
    (space,) = engine.spaces
    assert audit(engine, space) == (0, 0)
    assert engine.counters.unprotectable_entries == 0
    assert engine.resolve(space, 0) is not None
    assert not engine.check()


def test_tables_are_listed_with_their_level_and_whether_they_are_open() -> None:
    guest = EngineBench()
    engine = with_space(guest, Sync.RELAXED)
    assert sorted(engine.tables()) == [(L4, 4, 1, False), (L3, 3, 1, False), (L2, 2, 1, False), (L1, 1, 1, True)]
    engine.close()
    assert not list(engine.tables())


class Notes:
    """An Observer that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def frames_queried(self, first_gfn: int, count: int, errors: Any) -> None:
        self.said.append(("queried", first_gfn, count, sum(1 for i in range(count) if errors[i])))

    def table_read(self, gfn: int, page: Any) -> None:
        self.said.append(("read", gfn, ffi.unpack(page, 2)))

    def submitted(self, mode: Mode, roots: tuple[int, ...]) -> None:
        self.said.append(("submitted", mode, roots))

    def gpu_stored(self, mode: Mode, roots: tuple[int, ...], va: int, value: int, gpa: int) -> None:
        self.said.append(("gpu stored", mode, roots, va, value, gpa))


def test_an_observer_sees_every_table_before_it_counts(sync: Sync) -> None:
    guest = EngineBench()
    make_tables(guest)
    engine = guest.make_engine(sync=sync)
    notes = Notes()
    engine.observe(notes)
    guest.holes = {40}
    engine.create_space(Mode.L4, ROOT)
    assert notes.said == [
        ("queried", 0, guest.frames, 1),
        *(("read", table, [entry(child), 0]) for table, child in ((L4, L3), (L3, L2), (L2, L1))),
        *([("read", L1, [entry(DATA), 0])] if sync is Sync.STRICT else []),
    ]
    engine.submit(Mode.L4, ROOT)
    assert notes.said[-1] == (("submitted", Mode.L4, ROOT) if sync is Sync.STRICT else ("read", L1, [entry(DATA), 0]))


def test_an_observer_sees_what_became_of_an_unsynced_table() -> None:
    guest = EngineBench()
    engine = with_space(guest, Sync.RELAXED)
    notes = Notes()
    engine.observe(notes)
    guest.store(engine, L1 * FRAME + 8, 8, entry(9))
    guest.store(engine, L1 * FRAME + 8, 8, entry(10))
    assert notes.said == []
    engine.submit(Mode.L4, ROOT)
    assert notes.said == [("submitted", Mode.L4, ROOT), ("read", L1, [entry(DATA), entry(10)])]


def test_an_observer_sees_the_stores_of_the_gpu() -> None:
    guest = EngineBench()
    engine = with_space(guest, Sync.STRICT)
    notes = Notes()
    engine.observe(notes)
    assert engine.gpu_store(Mode.L4, ROOT, 8, 77)
    assert not engine.gpu_store(Mode.L4, ROOT, FRAME, 78)
    engine.observe(None)
    assert engine.gpu_store(Mode.L4, ROOT, 16, 79)
    submitted = ("submitted", Mode.L4, ROOT)
    assert notes.said == [submitted, ("gpu stored", Mode.L4, ROOT, 8, 77, DATA * FRAME + 8), submitted]
