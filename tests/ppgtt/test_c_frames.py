"""What is known of frames: the C against a model that remembers every query and every invalidation."""

from __future__ import annotations

import errno
import random

from hypothesis import given
from hypothesis import strategies as st

from tests.support.core_bench import CHUNK, CoreBench
from tests.support.examples import examples
from tests.support.tables import FRAME
from xengt_dm._core import ffi, lib
from xengt_dm.units import CData

UNKNOWN, RAM, HOLE = 0, 1, 2
#: Two chunks and a bit.
LIMIT = 2 * CHUNK + 10
CHUNKS = 3
FRAMES = (0, 1, 2, 510, 511, 512, 513, 1023, 1024, LIMIT - 1, LIMIT, LIMIT + 600, (1 << 34) - 1, (1 << 52) - 1)

chunks = st.integers(0, CHUNKS - 1)
events = st.one_of(
    st.tuples(st.just("query"), chunks),
    st.tuples(st.just("forget"), chunks),
    st.tuples(st.just("invalidate"), st.just(0)),
    st.tuples(st.just("invalidate holes"), st.just(0)),
    st.tuples(st.just("remove"), st.sampled_from(FRAMES[:10])),
    st.tuples(st.just("add"), st.sampled_from(FRAMES[:10])),
)


class Model:
    """Frame by frame: what was last said of it, if that was not invalidated since; and which chunks are mapped."""

    def __init__(self) -> None:
        self.said: dict[int, int] = {}
        self.believed: set[int] = set()
        self.mapped: set[int] = set()

    def happen(self, what: str, which: int, holes: set[int]) -> None:
        frames = range(which * CHUNK, (which + 1) * CHUNK)
        if what == "query":
            self.said |= {gfn: HOLE if gfn in holes or gfn >= LIMIT else RAM for gfn in frames}
            self.believed |= set(frames)
            self.mapped.add(which)
        elif what == "forget":
            self.believed -= set(frames)
            self.said = {gfn: said for gfn, said in self.said.items() if gfn not in frames}
            self.mapped.discard(which)
        elif what == "invalidate":
            self.believed.clear()
        elif what == "invalidate holes":
            self.believed -= {gfn for gfn, said in self.said.items() if said == HOLE}

    def state(self, gfn: int) -> int:
        if gfn >= LIMIT:
            return HOLE
        return self.said[gfn] if gfn in self.believed else UNKNOWN

    def access(self, gpa: int, size: int) -> int:
        """0 or the errno of touching memory. What was RAM when it was mapped may be touched after an invalidation."""
        gfn = gpa // FRAME
        if gpa % FRAME + size > FRAME:
            return errno.EINVAL
        if self.state(gfn) == HOLE:
            return errno.ENOENT
        return 0 if gfn // CHUNK in self.mapped and self.said.get(gfn) == RAM else errno.EAGAIN


def make(done: list[tuple[str, int]]) -> tuple[CoreBench, Model]:
    bench, model = CoreBench(LIMIT, known=[]), Model()
    for what, which in done:
        if what == "query":
            bench.query(which)
        elif what == "forget":
            lib.xd_frames_forget(bench.frames, which)
        elif what == "invalidate":
            lib.xd_frames_invalidate(bench.frames)
        elif what == "invalidate holes":
            lib.xd_frames_invalidate_holes(bench.frames)
        elif what == "remove":
            bench.holes.add(which)
        else:
            bench.holes.discard(which)
        model.happen(what, which, bench.holes)
    return bench, model


@examples(60)
@given(st.lists(events, max_size=12))
def test_knowledge(done: list[tuple[str, int]]) -> None:
    bench, model = make(done)
    assert [bench.state(gfn) for gfn in FRAMES] == [model.state(gfn) for gfn in FRAMES]


@examples(60)
@given(st.lists(events, max_size=12), st.sampled_from(FRAMES), st.integers(0, FRAME), st.sampled_from([1, 2, 4, 8]))
def test_access(done: list[tuple[str, int]], gfn: int, offset: int, size: int) -> None:
    bench, model = make(done)
    gpa = gfn * FRAME + min(offset, FRAME - 1)
    value = 0x8877665544332211
    error = model.access(gpa, size)
    assert lib.xd_frames_store(bench.frames, gpa, value, size) == -error
    loaded = ffi.new("uint64_t *", 0xDEAD)
    assert lib.xd_frames_load(bench.frames, gpa, size, loaded) == -error
    if not error:
        assert loaded[0] == value & (1 << 8 * size) - 1
        assert bench.memory[gpa : gpa + size] == value.to_bytes(8, "little")[:size]
        bench.memory[gpa : gpa + size] = bytes(size)
    assert bytes(bench.memory) == bytes(len(bench.memory))
    page = ffi.new("char[4096]")
    assert lib.xd_frames_read_page(bench.frames, gfn << 12, page) == -model.access(gfn << 24, FRAME)
    assert lib.xd_frames_read_page(bench.frames, gfn, page) == -model.access(gfn * FRAME, FRAME)


def test_a_limit_of_nothing() -> None:
    frames = ffi.gc(lib.xd_frames_new(0), lib.xd_frames_free)
    assert lib.xd_frames_state(frames, 0) == HOLE
    assert lib.xd_frames_store(frames, 0, 0, 8) == -errno.ENOENT


def test_a_large_limit_costs_no_room_until_it_is_used() -> None:
    """16 TiB of guest, as far as the numbers of frames in an entry reach."""
    frames = ffi.gc(lib.xd_frames_new(1 << 32), lib.xd_frames_free)
    assert lib.xd_frames_state(frames, (1 << 32) - 1) == UNKNOWN
    lib.xd_frames_record(frames, (1 << 23) - 1, ffi.NULL, ffi.new("int[512]", [0, 1] * 256))
    assert [lib.xd_frames_state(frames, (1 << 32) - 2 + i) for i in range(3)] == [RAM, HOLE, HOLE]


# Runs of chunks that are RAM throughout

RUN_CHUNKS = 300
run_chunks = st.integers(0, RUN_CHUNKS - 1)
run_events = st.one_of(
    st.tuples(st.just("query"), run_chunks),
    st.tuples(st.sampled_from(["lose a frame of", "forget"]), run_chunks),
    st.tuples(st.just("invalidate"), st.just(0)),
    st.tuples(st.just("query from"), run_chunks),
)


def runs_of(frames: CData) -> list[range]:
    return [range(run.first, run.end) for run in frames.ram]


@examples(200)
@given(st.lists(run_events, max_size=12))
def test_runs_hold_nothing_but_ram(done: list[tuple[str, int]]) -> None:
    frames = ffi.gc(lib.xd_frames_new(RUN_CHUNKS * CHUNK), lib.xd_frames_free)
    whole: set[int] = set()
    good, bad = ffi.new("int[512]"), ffi.new("int[512]", [0] * 77 + [errno.ENOENT])
    for what, chunk in done:
        if what in ("query", "query from"):
            for each in range(chunk, chunk + 1 if what == "query" else min(chunk + 100, RUN_CHUNKS)):
                lib.xd_frames_record(frames, each, ffi.NULL, good)
                whole.add(each)
        elif what == "invalidate":
            lib.xd_frames_invalidate(frames)
            whole.clear()
        else:
            whole.discard(chunk)
            if what == "forget":
                lib.xd_frames_forget(frames, chunk)
            else:
                lib.xd_frames_record(frames, chunk, ffi.NULL, bad)
        for run in runs_of(frames):
            assert set(run) <= whole


def runs_after(order: list[int], holes: tuple[int, int]) -> list[range]:
    frames = ffi.gc(lib.xd_frames_new(len(order) * CHUNK), lib.xd_frames_free)
    good, bad = ffi.new("int[512]"), ffi.new("int[512]", [errno.ENOENT])
    for chunk in order:
        lib.xd_frames_record(frames, chunk, ffi.NULL, bad if chunk in holes else good)
    return sorted((run for run in runs_of(frames) if run), key=lambda run: run.start)


def test_runs_grow_as_their_chunks_are_queried() -> None:
    """A page missing at the start and a hole for devices, as real guests have."""
    for order in (list(range(200)), list(range(199, -1, -1))):
        assert runs_after(order, (0, 60)) == [range(1, 60), range(61, 200)]


@examples(30)
@given(st.randoms(use_true_random=False), st.integers(2, 100), st.integers(102, 200))
def test_the_longest_run_is_found_in_whatever_order_it_is_queried(rng: random.Random, hole: int, end: int) -> None:
    order = list(range(end))
    rng.shuffle(order)
    longest = max(range(1, hole), range(hole + 1, end), key=len)
    assert any(run.start <= longest.start and longest.stop <= run.stop for run in runs_after(order, (0, hole)))
