"""Which frames of the guest are RAM, and where they are mapped in this process.

The hypervisor is asked about a chunk of 512 frames at a time: mapping a chunk tells which of its frames are RAM. The
answers are kept in C (``core/ppgtt/frames.h``), because each page-table entry that is translated needs one. What is
kept there becomes invalid when the guest gives frames back, and is queried again when it is needed.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.ports import FrameMapper, Observer
from xengt_dm.steps import Steps
from xengt_dm.units import PAGE_SHIFT, CData

#: Frames of a chunk: 2 MiB, which is one huge GPU page.
CHUNK_FRAMES: int = lib.XD_CHUNK_FRAMES
UNKNOWN: int = lib.XD_FRAME_UNKNOWN
RAM: int = lib.XD_FRAME_RAM
#: Chunks mapped at most unless told otherwise: 2 GiB.
MAX_MAPPED = 1024


class GuestFrames:
    """The guest's frames 0..``limit``-1. ``pointer`` is the ``xd_frames *`` behind them, for functions in C.

    ``max_mapped``: chunks mapped at most, at least 2. Mapped guest memory costs the host page tables and, on Xen, a
    mapping of the process for each chunk, of which the kernel allows 65,530.

    Raises OSError if the guard against vanishing pages cannot be installed, MemoryError without memory.
    """

    def __init__(self, mapper: FrameMapper, limit: int, max_mapped: int = MAX_MAPPED) -> None:
        error = lib.xd_guard_install()
        if error:
            raise OSError(-error, "installing the SIGBUS guard")
        pointer = lib.xd_frames_new(limit)
        if pointer == ffi.NULL:
            raise MemoryError(f"no memory to keep track of {limit} frames")
        self.pointer: CData = ffi.gc(pointer, lib.xd_frames_free)
        self.limit = limit
        self.max_mapped = max_mapped
        self.observer: Observer | None = None
        self._mapper = mapper
        #: By chunk: the address of its mapping. The chunk that was queried longest ago comes first.
        self._mapped: dict[int, int] = {}
        #: The guest gave frames back since stale mappings were last dropped.
        self._stale_mappings = False
        self._errors: CData = ffi.new("int[]", CHUNK_FRAMES)
        self._value: CData = ffi.new("uint64_t *")

    @property
    def mapped_chunks(self) -> int:
        """How many chunks are mapped."""
        return len(self._mapped)

    def query(self, chunk: int) -> None:
        """Map a chunk, in place if it is mapped already, and record which of its frames are RAM.

        The chunk that was queried longest ago is unmapped for it if too many are mapped.
        """
        first = chunk * CHUNK_FRAMES
        count = min(CHUNK_FRAMES, self.limit - first)
        address = self._mapper.map_frames(first, count, self._errors, self._mapped.get(chunk, 0))
        self._mapped.pop(chunk, None)
        self._mapped[chunk] = address
        if self.observer is not None:
            self.observer.frames_queried(first, count, self._errors)
        lib.xd_frames_record(self.pointer, chunk, ffi.cast("void *", address), self._errors)
        if len(self._mapped) > self.max_mapped:
            oldest = next(iter(self._mapped))
            lib.xd_frames_unmapped(self.pointer, oldest)
            self._unmap(oldest)

    def query_all(self, chunks: Collection[int]) -> Steps[None]:
        """Query chunks, one a slice.

        Facts: other work may have a chunk unmapped in a yield after its query, before the caller uses it. What follows:
        pieces of work could undo each other's queries for ever. What we do: for a chunk that was unmapped to make room,
        the yield is before the query, so that the caller uses it in the same slice. Cost: such a slice is longer.
        """
        for chunk in chunks:
            if self._was_unmapped(chunk):
                yield
                self.query(chunk)
            else:
                self.query(chunk)
                yield

    def _was_unmapped(self, chunk: int) -> bool:
        """Whether a chunk is known but not mapped, because others needed its room."""
        return chunk not in self._mapped and self.pointer.queried_at[chunk] > 0

    def known_chunks(self) -> list[int]:
        """The chunks of which something is known."""
        queried_at = ffi.unpack(self.pointer.queried_at, self.pointer.chunks)
        return [chunk for chunk, clock in enumerate(queried_at) if clock]

    @property
    def holes_clock(self) -> int:
        """Now, on the clock that tells how old the knowledge of a hole is."""
        return int(self.pointer.holes_valid_since)

    @contextmanager
    def holes_since(self, clock: int) -> Iterator[None]:
        """Within the ``with`` block, which has no yield, holes count as known that were found since ``clock``."""
        since = self.pointer.holes_valid_since
        self.pointer.holes_valid_since = min(clock, since)
        try:
            yield
        finally:
            self.pointer.holes_valid_since = since

    def state(self, gfn: int) -> int:
        """:data:`RAM`, :data:`UNKNOWN`, or another number for a hole; as far as is known without a query."""
        return int(lib.xd_frames_state(self.pointer, gfn))

    def is_ram(self, gfn: int) -> bool:
        """Whether a frame is RAM; queries its chunk if that is not known."""
        state = self.state(gfn)
        if state == UNKNOWN:
            self.query(gfn // CHUNK_FRAMES)
            state = self.state(gfn)
        return state == RAM

    def look_again(self, gfn: int) -> None:
        """Query the chunk of a frame that was a hole when it was queried last. It may be RAM by now."""
        if gfn < self.limit and self.state(gfn) not in (RAM, UNKNOWN):
            self.query(gfn // CHUNK_FRAMES)

    def load(self, gpa: int, size: int) -> int:
        """``size`` bytes of guest memory within one frame; all ones if the frame is not RAM or its page vanished."""
        if self.is_ram(gpa >> PAGE_SHIFT):
            error = lib.xd_frames_load(self.pointer, gpa, size, self._value)
            if error == -errno.EAGAIN:  # unmapped to make room
                self.query((gpa >> PAGE_SHIFT) // CHUNK_FRAMES)
                error = lib.xd_frames_load(self.pointer, gpa, size, self._value)
            if not error:
                return int(self._value[0])
        return (1 << 8 * size) - 1

    def invalidate(self) -> None:
        """The guest gave frames back: which frames are RAM must be queried again."""
        lib.xd_frames_invalidate(self.pointer)
        self._stale_mappings = True

    def invalidate_holes(self) -> None:
        """What was a hole may be RAM by now: holes must be queried again."""
        lib.xd_frames_invalidate_holes(self.pointer)

    def drop_stale_mappings(self) -> Steps[None]:
        """Unmap the chunks that were not queried since the guest last gave frames back; a chunk a slice.

        A mapping keeps a page alive that the guest meant to return.
        """
        if not self._stale_mappings:
            return
        self._stale_mappings = False
        for chunk in list(self._mapped):
            if chunk in self._mapped and self.pointer.queried_at[chunk] < self.pointer.ram_valid_since:
                self._forget(chunk)
                yield

    def forget_all(self) -> Steps[None]:
        """Unmap everything, a chunk a slice. Chunks are queried again when they are needed."""
        while self._mapped:
            self._forget(next(iter(self._mapped)))
            yield

    def close(self) -> None:
        """Unmap everything, at once, whatever fails. The object can still be used."""
        with ExitStack() as stack:
            for chunk in self._mapped:
                stack.callback(self._forget, chunk)

    def _forget(self, chunk: int) -> None:
        lib.xd_frames_forget(self.pointer, chunk)
        self._unmap(chunk)

    def _unmap(self, chunk: int) -> None:
        self._mapper.unmap_frames(self._mapped.pop(chunk), min(CHUNK_FRAMES, self.limit - chunk * CHUNK_FRAMES))


def take_chunks(need: CData) -> Collection[int]:
    """The chunks that a function in C listed in an ``xd_need *``."""
    return set(ffi.unpack(need.chunks, need.count))
