"""Chunks that are unmapped to make room for others, and who needed them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine_bench import EngineBench
from tests.support.tables import FRAME, pte
from xengt_dm._core import ffi
from xengt_dm.ppgtt.engine import Engine
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import complete

CHUNK = 512


@pytest.fixture
def guest() -> EngineBench:
    guest = EngineBench(3 * CHUNK)
    guest.put(1, 0, pte(2))
    guest.put(2, 0, pte(3))
    for slot in range(3):
        guest.put(3, slot, pte(4 + slot * CHUNK))  # a leaf table in each chunk
    return guest


@pytest.fixture
def engine(guest: EngineBench) -> Iterator[Engine]:
    """An engine that may have two of the three chunks mapped."""
    engine = Engine(guest, guest, ffi.new("xd_counters *"), frame_limit=guest.frames, max_mapped_chunks=2)
    complete(engine.create_space(Mode.L4, (FRAME,)))
    yield engine
    engine.close()


def test_works_that_need_each_others_chunks_come_to_an_end(engine: Engine) -> None:
    """One slice of each in turn, as the serve loop does: none of them is undone by the others for ever."""
    works = {}
    for chunk in range(3):
        work = engine.stores.store((4 + chunk * CHUNK) * FRAME, 8, pte(9))
        if not isinstance(work, int):
            works[chunk] = work
    assert works
    for _ in range(20):
        for chunk, work in list(works.items()):
            try:
                next(work)
            except StopIteration:
                del works[chunk]
    assert not works
    (space,) = engine.spaces
    assert [run.gpa // FRAME for run in complete(engine.mappings(space)) or ()] == [9, 9, 9]


def test_an_audit_takes_no_unmapped_table_for_a_wrong_one(engine: Engine) -> None:
    (space,) = engine.spaces
    found = complete(engine.audit(space, complete(engine.sync(space))))
    assert (found.mismatches, found.overdue) == (0, 0)
    assert found.unsynced == 1  # of the chunk that is not mapped


def test_what_is_loaded_from_an_unmapped_chunk_is_what_it_holds(guest: EngineBench, engine: Engine) -> None:
    """A load of the guest's, such as the source of a repeated store to a register."""
    for chunk in range(3):
        guest.put(20 + chunk * CHUNK, 0, 1000 + chunk)
    for _ in range(2):
        assert [engine.stores.load((20 + chunk * CHUNK) * FRAME, 8) for chunk in range(3)] == [1000, 1001, 1002]
