"""The live spaces and their region: what an engine leaves there, and what a successor makes of it."""

from __future__ import annotations

import mmap
import random
import struct
import tempfile
from collections.abc import Iterable, Sequence

import pytest

from tests.support.engine_bench import EngineBench, audit, mappings_of
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm.errors import DataError
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import ENTRY_BYTES, LiveSpaces, Mode, SpaceKey

L4_ROOT = (5 * FRAME,)
L3_ROOTS = (6 * FRAME, 0, 1 << 40, FRAME)


def region(*entries: Sequence[int], most: int = 4) -> memoryview:
    """The region of ``most`` entries that begins with these."""
    words = [word for entry in entries for word in entry]
    return memoryview(bytearray(struct.pack(f"<{len(words)}Q", *words)).ljust(most * ENTRY_BYTES, b"\0"))


def entries(memory: memoryview) -> list[list[int]]:
    """Those that have references."""
    words = struct.unpack(f"<{len(memory) // 8}Q", memory)
    return [list(words[i : i + 8]) for i in range(0, len(words), 8) if words[i]]


def listed(spaces: LiveSpaces) -> list[tuple[Mode, SpaceKey, int]]:
    return [(space.mode, space.roots, space.refs) for space in spaces]


# The region


def test_an_entry_is_laid_out_as_documented() -> None:
    memory = region()
    spaces = LiveSpaces(4, memory)
    spaces.announce(Mode.L3, L3_ROOTS)
    spaces.set_references(spaces.announce(Mode.L4, L4_ROOT), 7)
    assert entries(memory) == [[1, 2, *L3_ROOTS, 0, 0], [7, 1, *L4_ROOT, 0, 0, 0, 0, 0]]


def test_a_successor_finds_what_is_live() -> None:
    memory = region([7, 1, *L4_ROOT, 0, 0, 0, 0, 0], [0, 99, 1, 2, 3, 4, 5, 6], [1, 2, *L3_ROOTS, 0, 0])
    spaces = LiveSpaces(4, memory)
    assert listed(spaces) == [(Mode.L4, L4_ROOT, 7), (Mode.L3, L3_ROOTS, 1)]
    assert [*spaces.violations()] == []
    spaces.announce(Mode.L4, (0,))  # into the entry that looks used
    assert entries(memory)[1] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_every_change_of_references_is_one_store_and_the_last() -> None:
    memory = region()
    changes: list[tuple[int, int, list[list[int]]]] = []
    words = memory.cast("Q")

    def commit(word: int, value: int) -> None:
        changes.append((word, value, words[word + 1 : word + 6].tolist()))
        words[word] = value

    spaces = LiveSpaces(4, memory, commit)
    first = spaces.announce(Mode.L4, L4_ROOT)
    second = spaces.announce(Mode.L3, L3_ROOTS)
    spaces.set_references(first, 2)
    spaces.set_references(second, 0)
    of_first, of_second = [1, *L4_ROOT, 0, 0, 0], [2, *L3_ROOTS]
    assert changes == [(0, 1, of_first), (8, 1, of_second), (0, 2, of_first), (8, 0, of_second)]
    assert listed(LiveSpaces(4, memory)) == [(Mode.L4, L4_ROOT, 2)]


def test_an_announcement_that_was_not_committed_did_not_happen() -> None:
    memory = region()

    def die(word: int, value: int) -> None:
        raise InterruptedError

    spaces = LiveSpaces(4, memory, die)
    with pytest.raises(InterruptedError):
        spaces.announce(Mode.L4, L4_ROOT)
    assert listed(spaces) == listed(LiveSpaces(4, memory)) == []


def test_any_history_is_found_again() -> None:
    rng = random.Random(3)
    memory = region(most=6)
    spaces, model = LiveSpaces(6, memory), dict[SpaceKey, int]()
    for _ in range(500):
        key: SpaceKey = (rng.randrange(8) * FRAME,)
        space = spaces.get(key)
        assert (space.refs if space else 0) == model.get(key, 0)
        if space is None:
            if not spaces.full:
                spaces.announce(Mode.L4, key)
                model[key] = 1
        else:
            model[key] += rng.choice([1, -1, -1])
            spaces.set_references(space, model[key])
            if not model[key]:
                del model[key]
        assert [*spaces.violations()] == []
        assert {roots: refs for _, roots, refs in listed(LiveSpaces(6, memory))} == model
        if rng.random() < 0.1:
            spaces = LiveSpaces(6, memory)
    assert spaces.full is (len(model) == 6)


DAMAGE = {
    "no such mode": [1, 3, *L4_ROOT, 0, 0, 0, 0, 0],
    "no mode": [1, 0, *L4_ROOT, 0, 0, 0, 0, 0],
    "a root within a page": [1, 1, 8, 0, 0, 0, 0, 0],
    "the fourth root within a page": [1, 2, 0, 0, 0, 1, 0, 0],
    "too many roots": [1, 1, *L4_ROOT, 0, FRAME, 0, 0, 0],
    "words behind the roots": [1, 2, *L3_ROOTS, 0, 1],
    "too many references": [1 << 63, 1, *L4_ROOT, 0, 0, 0, 0, 0],
    "a space twice": [2, 1, *L4_ROOT, 0, 0, 0, 0, 0],
}


@pytest.mark.parametrize("entry", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_refused(entry: list[int]) -> None:
    with pytest.raises(DataError, match="entry 2 of the live spaces"):
        LiveSpaces(4, region([1, 1, *L4_ROOT, 0, 0, 0, 0, 0], [0] * 8, entry))


def test_random_contents_are_refused() -> None:
    for seed in range(20):
        with pytest.raises(DataError):
            LiveSpaces(64, memoryview(bytearray(random.Random(seed).randbytes(64 * ENTRY_BYTES))))


def test_memory_that_is_gone_is_damage() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * FRAME)
        memory = memoryview(mmap.mmap(file.fileno(), 2 * FRAME))
        file.truncate(FRAME)
        with pytest.raises(DataError, match="not there"):
            LiveSpaces(128, memory)


@pytest.mark.parametrize("size", [0, 63, 3 * ENTRY_BYTES, 4 * ENTRY_BYTES + 8])
def test_memory_of_the_wrong_size(size: int) -> None:
    with pytest.raises(ValueError, match="no region of 4 spaces"):
        LiveSpaces(4, memoryview(bytearray(size)))


# An engine that succeeds another one

#: Frames of the tables of an L4 space and, below its second table, of an L3 space; and a frame of data.
L4, L3, L2, L1, DATA = range(2, 7)
SPACES = ((Mode.L4, (L4 * FRAME,)), (Mode.L3, (L2 * FRAME, 0, 0, 0)))
TABLES = {L4, L3, L2, L1}
MAPPED = {key: [(0, FRAME, DATA * FRAME, 1, 0)] for key in SPACES}


class Cut:
    """A guest, and an engine that dies with these announcements; nothing of it stays but the region."""

    def __init__(self, announced: Iterable[tuple[Mode, SpaceKey]] = SPACES, *, sync: Sync = Sync.STRICT) -> None:
        self.guest = EngineBench()
        self.sync = sync
        self.memory = region()
        for table, child in ((L4, L3), (L3, L2), (L2, L1), (L1, DATA)):
            self.guest.put(table, 0, pte(child))
        engine = self.make()
        for each in announced:
            engine.create_space(*each)

    def make(self, *, quiesced: bool = False) -> WholeEngine:
        self.guest.protected.clear()
        return self.guest.make_engine(spaces=LiveSpaces(4, self.memory), sync=self.sync, quiesced=quiesced)


def test_a_successor_shadows_what_was_live() -> None:
    cut = Cut([*SPACES, SPACES[1]])
    engine = cut.make()
    assert engine.counters.spaces == 2
    assert [(space.mode, space.roots, space.refs) for space in engine.spaces] == [(*SPACES[1], 2), (*SPACES[0], 1)]
    assert (cut.guest.protected, engine.check()) == (set(), [])
    engine.rebuild()
    assert cut.guest.protected == TABLES
    assert [*engine.rebuild.__wrapped__()] == []  # nothing is left to do
    assert mappings_of(engine) == MAPPED
    assert all(audit(engine, space) == (0, 0) for space in engine.spaces)
    assert engine.check() == []


def test_readers_find_nothing_wrong_before_the_rebuild() -> None:
    engine = Cut().make()
    for space in engine.spaces:
        assert len(engine.mappings(space)) == 0
        assert engine.resolve(space, 0) is None
        found = engine.audit(space)
        assert (found.mismatches, found.overdue) == (0, 0)
    assert [*engine.tables()] == []


@pytest.mark.parametrize("key", SPACES)
def test_a_submission_before_the_rebuild_shadows_its_space(key: tuple[Mode, SpaceKey]) -> None:
    cut = Cut()
    engine = cut.make()
    engine.submit(*key)
    (space,) = [space for space in engine.spaces if (space.mode, space.roots) == key]
    assert [tuple(run) for run in engine.mappings(space)] == MAPPED[key]
    assert cut.guest.protected == (TABLES if key[0] is Mode.L4 else {L2, L1})
    engine.rebuild()
    assert (mappings_of(engine), engine.check()) == (MAPPED, [])


def test_the_gpu_stores_before_the_rebuild() -> None:
    cut = Cut()
    assert cut.make().gpu_store(*SPACES[0], 8, 0x1234)
    assert cut.guest.entry(DATA, 1) == 0x1234


def test_spaces_that_end_before_the_rebuild_are_not_shadowed() -> None:
    cut = Cut([*SPACES, SPACES[0]])
    engine = cut.make()
    assert engine.destroy_space(*SPACES[1])
    assert engine.destroy_space(*SPACES[0])
    assert not engine.destroy_space(*SPACES[1])
    assert engine.counters.spaces == 1
    assert engine.destroy_space(*SPACES[0])
    engine.rebuild()
    assert (cut.guest.protected, engine.spaces, entries(cut.memory)) == (set(), [], [])


def test_an_announcement_before_the_rebuild_is_counted() -> None:
    cut = Cut()
    engine = cut.make()
    engine.create_space(*SPACES[0])
    assert sorted(entry[0] for entry in entries(cut.memory)) == [1, 2]
    engine.rebuild()
    assert mappings_of(engine) == MAPPED


@pytest.mark.parametrize("sync", list(Sync))
def test_a_store_before_the_rebuild_is_in_the_shadow(sync: Sync) -> None:
    cut = Cut(sync=sync)
    engine = cut.make()
    cut.guest.protected = {L1}  # as the predecessor left it
    assert cut.guest.store(engine, L1 * FRAME + 8, 8, pte(9))
    cut.guest.protected = set()
    engine.rebuild()
    assert set(mappings_of(engine)) == set(SPACES)
    for runs in mappings_of(engine).values():
        assert runs == [(0, FRAME, DATA * FRAME, 1, 0), (FRAME, FRAME, 9 * FRAME, 1, 0)]


def test_between_the_slices_of_a_rebuild_anything_may_happen() -> None:
    """The guest stores, submits, announces and destroys after each slice in turn; the end is what its tables say."""
    for when in range(12):
        cut = Cut()
        engine = cut.make()
        for i, _ in enumerate(engine.rebuild.__wrapped__()):
            if i == when:
                cut.guest.store(engine, L1 * FRAME + 8, 8, pte(9))
                engine.submit(*SPACES[1])
                engine.create_space(Mode.L4, (L3 * FRAME,))
                engine.destroy_space(*SPACES[0])
        if when > i:
            break
        assert {(space.mode, space.roots) for space in engine.spaces} == {SPACES[1], (Mode.L4, (L3 * FRAME,))}
        assert all(audit(engine, space) == (0, 0) for space in engine.spaces)
        assert cut.guest.protected >= {L2, L1}
        assert L4 not in cut.guest.protected
        assert engine.check() == []
    assert when > 3


@pytest.mark.parametrize("sync", Sync)
def test_a_submission_syncs_what_a_rebuild_has_begun(sync: Sync) -> None:
    """The rebuild goes on between the slices of the sync, and creates tables that the sync then finds."""
    for begun in range(40):
        engine = Cut([SPACES[0]], sync=sync).make()
        (space,) = engine.spaces
        rebuilding = engine.rebuild.__wrapped__()
        for _ in range(begun):
            next(rebuilding, None)
        for _ in engine.steps.sync(space):
            next(rebuilding, None)
        assert [*map(tuple, engine.mappings(space))] == MAPPED[SPACES[0]], begun


def test_a_quiesce_ends_a_rebuild() -> None:
    cut = Cut()
    engine = cut.make()
    rebuilding = engine.rebuild.__wrapped__()
    next(rebuilding)
    engine.quiesce()
    for _ in rebuilding:
        assert not cut.guest.protected
    assert not cut.guest.protected
    engine.resume()
    assert mappings_of(engine) == MAPPED


def test_the_successor_of_one_that_was_quiesced_is_quiesced() -> None:
    cut = Cut()
    engine = cut.make(quiesced=True)
    engine.rebuild()
    engine.submit(*SPACES[0])
    assert (engine.quiesced, cut.guest.protected) == (True, set())
    engine.resume()
    assert (engine.quiesced, cut.guest.protected) == (False, TABLES)
    assert mappings_of(engine) == MAPPED


def test_a_quota_that_has_no_room_for_all() -> None:
    cut = Cut([(Mode.L4, (L4 * FRAME,)), (Mode.L4, (L3 * FRAME,)), (Mode.L4, (L2 * FRAME,))])
    cut.guest.protected.clear()
    engine = cut.guest.make_engine(spaces=LiveSpaces(4, cut.memory), max_tables=4)
    engine.rebuild()
    assert engine.check() == []
    assert any(space.shadowed for space in engine.spaces)
    for space in engine.spaces:
        engine.submit(Mode.L4, space.roots)
        assert audit(engine, space)[0] == 0


def test_an_engine_that_ends_leaves_the_region_to_a_successor() -> None:
    cut = Cut([*SPACES, SPACES[0]])
    engine = cut.make()
    engine.rebuild()
    before = bytes(cut.memory)
    engine.close()
    assert (engine.spaces, engine.counters.spaces, cut.guest.protected) == ([], 0, set())
    assert bytes(cut.memory) == before


def test_a_space_too_many_is_refused_and_leaves_no_trace() -> None:
    cut = Cut([(Mode.L4, (gfn * FRAME,)) for gfn in (L4, L3, L2, L1)])
    before = bytes(cut.memory)
    engine = cut.make()
    engine.create_space(Mode.L4, (20 * FRAME,))
    assert engine.counters.refused_spaces == 1
    assert bytes(cut.memory) == before
    assert engine.destroy_space(Mode.L4, (L3 * FRAME,))
    engine.create_space(Mode.L4, (20 * FRAME,))
    assert len(entries(cut.memory)) == 4
