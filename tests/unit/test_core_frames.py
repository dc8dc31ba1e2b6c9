"""What is known of frames: the C against a model that remembers every question and every doubt."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st

from tests.support.arena import CHUNK, FRAME, Arena
from tests.support.examples import examples
from xengt_dm._core import ffi, lib

UNKNOWN, RAM, HOLE = 0, 1, 2
#: Two chunks and a bit.
LIMIT = 2 * CHUNK + 10
CHUNKS = 3
FRAMES = (0, 1, 2, 510, 511, 512, 513, 1023, 1024, LIMIT - 1, LIMIT, LIMIT + 600, (1 << 34) - 1, (1 << 52) - 1)

chunks = st.integers(0, CHUNKS - 1)
events = st.one_of(
    st.tuples(st.just("learn"), chunks),
    st.tuples(st.just("forget"), chunks),
    st.tuples(st.just("doubt all"), st.just(0)),
    st.tuples(st.just("doubt holes"), st.just(0)),
    st.tuples(st.just("remove"), st.sampled_from(FRAMES[:10])),
    st.tuples(st.just("add"), st.sampled_from(FRAMES[:10])),
)


class Model:
    """Frame by frame: what was last said of it, if nobody has doubted that since; and which chunks are mapped."""

    def __init__(self) -> None:
        self.said: dict[int, int] = {}
        self.believed: set[int] = set()
        self.mapped: set[int] = set()

    def happen(self, what: str, which: int, holes: set[int]) -> None:
        frames = range(which * CHUNK, (which + 1) * CHUNK)
        if what == "learn":
            self.said |= {gfn: HOLE if gfn in holes or gfn >= LIMIT else RAM for gfn in frames}
            self.believed |= set(frames)
            self.mapped.add(which)
        elif what == "forget":
            self.believed -= set(frames)
            self.said = {gfn: said for gfn, said in self.said.items() if gfn not in frames}
            self.mapped.discard(which)
        elif what == "doubt all":
            self.believed.clear()
        elif what == "doubt holes":
            self.believed -= {gfn for gfn, said in self.said.items() if said == HOLE}

    def state(self, gfn: int) -> int:
        if gfn >= LIMIT:
            return HOLE
        return self.said[gfn] if gfn in self.believed else UNKNOWN

    def access(self, gpa: int, size: int) -> int:
        """0 or the errno of touching memory. What was RAM when it was mapped may be touched, whoever doubts it."""
        gfn = gpa // FRAME
        if gpa % FRAME + size > FRAME:
            return errno.EINVAL
        if self.state(gfn) == HOLE:
            return errno.ENOENT
        return 0 if gfn // CHUNK in self.mapped and self.said.get(gfn) == RAM else errno.EAGAIN


def make(done: list[tuple[str, int]]) -> tuple[Arena, Model]:
    arena, model = Arena(LIMIT, known=[]), Model()
    for what, which in done:
        if what == "learn":
            arena.learn(which)
        elif what == "forget":
            lib.xd_frames_forget(arena.frames, which)
        elif what == "doubt all":
            lib.xd_frames_doubt_all(arena.frames)
        elif what == "doubt holes":
            lib.xd_frames_doubt_holes(arena.frames)
        elif what == "remove":
            arena.holes.add(which)
        else:
            arena.holes.discard(which)
        model.happen(what, which, arena.holes)
    return arena, model


@examples(60)
@given(st.lists(events, max_size=12))
def test_knowledge(done: list[tuple[str, int]]) -> None:
    arena, model = make(done)
    assert [arena.state(gfn) for gfn in FRAMES] == [model.state(gfn) for gfn in FRAMES]


@examples(60)
@given(st.lists(events, max_size=12), st.sampled_from(FRAMES), st.integers(0, FRAME), st.sampled_from([1, 2, 4, 8]))
def test_access(done: list[tuple[str, int]], gfn: int, offset: int, size: int) -> None:
    arena, model = make(done)
    gpa = gfn * FRAME + min(offset, FRAME - 1)
    value = 0x8877665544332211
    error = model.access(gpa, size)
    assert lib.xd_frames_store(arena.frames, gpa, value, size) == -error
    loaded = ffi.new("uint64_t *", 0xDEAD)
    assert lib.xd_frames_load(arena.frames, gpa, size, loaded) == -error
    if not error:
        assert loaded[0] == value & (1 << 8 * size) - 1
        assert arena.memory[gpa : gpa + size] == value.to_bytes(8, "little")[:size]
        arena.memory[gpa : gpa + size] = bytes(size)
    assert bytes(arena.memory) == bytes(len(arena.memory))
    page = ffi.new("char[4096]")
    assert lib.xd_frames_read_page(arena.frames, gfn << 12, page) == -model.access(gfn << 24, FRAME)
    assert lib.xd_frames_read_page(arena.frames, gfn, page) == -model.access(gfn * FRAME, FRAME)


def test_a_limit_of_nothing() -> None:
    frames = ffi.gc(lib.xd_frames_new(0), lib.xd_frames_free)
    assert lib.xd_frames_state(frames, 0) == HOLE
    assert lib.xd_frames_store(frames, 0, 0, 8) == -errno.ENOENT


def test_a_large_limit_costs_no_room_until_it_is_used() -> None:
    """16 TiB of guest, as far as the numbers of frames in an entry reach."""
    frames = ffi.gc(lib.xd_frames_new(1 << 32), lib.xd_frames_free)
    assert lib.xd_frames_state(frames, (1 << 32) - 1) == UNKNOWN
    lib.xd_frames_learn(frames, (1 << 23) - 1, ffi.NULL, ffi.new("int[512]", [0, 1] * 256))
    assert [lib.xd_frames_state(frames, (1 << 32) - 2 + i) for i in range(3)] == [RAM, HOLE, HOLE]
