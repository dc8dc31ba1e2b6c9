"""Which frames of the guest are RAM, and where they are mapped in this process.

The hypervisor is asked about a chunk of 512 frames at a time: mapping a chunk tells which of its frames are RAM. The
answers are kept in C (``core/ppgtt/frames.h``), because each page-table entry that is translated needs one. What is
kept there becomes invalid when the guest gives frames back, and is queried again when it is needed.
"""

from __future__ import annotations

from contextlib import ExitStack

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.ports import FrameMapper, Observer
from xengt_dm.units import PAGE_SHIFT, CData

#: Frames of a chunk: 2 MiB, which is one huge GPU page.
CHUNK_FRAMES: int = lib.XD_CHUNK_FRAMES
UNKNOWN: int = lib.XD_FRAME_UNKNOWN
RAM: int = lib.XD_FRAME_RAM


class GuestFrames:
    """The guest's frames 0..``limit``-1. ``pointer`` is the ``xd_frames *`` behind them, for functions in C.

    Raises OSError if the guard against vanishing pages cannot be installed, MemoryError without memory.
    """

    def __init__(self, mapper: FrameMapper, limit: int) -> None:
        error = lib.xd_guard_install()
        if error:
            raise OSError(-error, "installing the SIGBUS guard")
        pointer = lib.xd_frames_new(limit)
        if pointer == ffi.NULL:
            raise MemoryError(f"no memory to keep track of {limit} frames")
        self.pointer: CData = ffi.gc(pointer, lib.xd_frames_free)
        self.limit = limit
        self.observer: Observer | None = None
        self._mapper = mapper
        #: By chunk: the address of its mapping.
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
        """Map a chunk, in place if it is mapped already, and record which of its frames are RAM."""
        first = chunk * CHUNK_FRAMES
        count = min(CHUNK_FRAMES, self.limit - first)
        address = self._mapper.map_frames(first, count, self._errors, self._mapped.get(chunk, 0))
        self._mapped[chunk] = address
        if self.observer is not None:
            self.observer.frames_queried(first, count, self._errors)
        lib.xd_frames_record(self.pointer, chunk, ffi.cast("void *", address), self._errors)

    def query_needed(self, need: CData) -> None:
        """Query the chunks that a function in C listed in an ``xd_need *``, and empty the list."""
        for chunk in set(ffi.unpack(need.chunks, need.count)):
            self.query(chunk)
        need.count = 0

    def is_ram(self, gfn: int) -> bool:
        """Whether a frame is RAM; queries its chunk if that is not known."""
        state = lib.xd_frames_state(self.pointer, gfn)
        if state == UNKNOWN:
            self.query(gfn // CHUNK_FRAMES)
            state = lib.xd_frames_state(self.pointer, gfn)
        return bool(state == RAM)

    def load(self, gpa: int, size: int) -> int:
        """``size`` bytes of guest memory within one frame; all ones if the frame is not RAM or its page vanished."""
        if self.is_ram(gpa >> PAGE_SHIFT) and not lib.xd_frames_load(self.pointer, gpa, size, self._value):
            return int(self._value[0])
        return (1 << 8 * size) - 1

    def invalidate(self) -> None:
        """The guest gave frames back: which frames are RAM must be queried again."""
        lib.xd_frames_invalidate(self.pointer)
        self._stale_mappings = True

    def invalidate_holes(self) -> None:
        """What was a hole may be RAM by now: holes must be queried again."""
        lib.xd_frames_invalidate_holes(self.pointer)

    def drop_stale_mappings(self) -> None:
        """Unmap the chunks that were not queried since the guest last gave frames back.

        A mapping keeps a page alive that the guest meant to return.
        """
        if not self._stale_mappings:
            return
        self._stale_mappings = False
        queried_at, since = self.pointer.queried_at, self.pointer.ram_valid_since
        for chunk in [chunk for chunk in self._mapped if queried_at[chunk] < since]:
            self._drop(chunk)

    def close(self) -> None:
        """Unmap everything. The object can still be used: chunks are queried again when they are needed."""
        with ExitStack() as stack:
            for chunk in self._mapped:
                stack.callback(self._drop, chunk)

    def _drop(self, chunk: int) -> None:
        lib.xd_frames_forget(self.pointer, chunk)
        self._mapper.unmap_frames(self._mapped.pop(chunk), min(CHUNK_FRAMES, self.limit - chunk * CHUNK_FRAMES))
