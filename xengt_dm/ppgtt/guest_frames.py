"""Which frames are the guest's RAM, and where they are mapped."""

from __future__ import annotations

from contextlib import ExitStack

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.ports import FrameMapper, Observer
from xengt_dm.units import CData

#: Frames are mapped and known by the chunk: 2 MiB, as QEMU's map cache and XenGT's do it by the bucket.
CHUNK_FRAMES: int = lib.XD_CHUNK_FRAMES
UNKNOWN: int = lib.XD_FRAME_UNKNOWN
RAM: int = lib.XD_FRAME_RAM


class GuestFrames:
    """The guest's frames 0..``limit``-1, learnt by the chunk when somebody needs them.

    Mapping a chunk tells both things at once: where its frames are, and which of them are RAM. Knowledge is dropped
    when the guest gives frames back (:meth:`doubt`), and mappings with it at the next occasion
    (:meth:`drop_mappings`), because a mapping keeps a page alive that the guest meant to return.
    """

    def __init__(self, mapper: FrameMapper, limit: int) -> None:
        error = lib.xd_guard_install()
        if error:
            raise OSError(-error, "installing the SIGBUS guard")
        self._mapper = mapper
        pointer = lib.xd_frames_new(limit)
        if pointer == ffi.NULL:
            raise MemoryError(f"no memory to keep track of {limit} frames")
        self.pointer: CData = ffi.gc(pointer, lib.xd_frames_free)
        self.limit = limit
        self._mapped: dict[int, int] = {}
        self._errors: CData = ffi.new("int[]", CHUNK_FRAMES)
        self._doubtful = False
        self.observer: Observer | None = None

    def learn(self, chunk: int) -> None:
        """Map a chunk, again if it is mapped, and note which of its frames are RAM."""
        first = chunk * CHUNK_FRAMES
        count = min(CHUNK_FRAMES, self.limit - first)
        address = self._mapper.map_frames(first, count, self._errors, self._mapped.get(chunk, 0))
        self._mapped[chunk] = address
        if self.observer is not None:
            self.observer.frames_learnt(first, count, self._errors)
        lib.xd_frames_record(self.pointer, chunk, ffi.cast("void *", address), self._errors)

    def learn_needed(self, need: CData) -> None:
        """Learn what a kernel listed in an ``xd_need``, and empty the list."""
        for chunk in set(ffi.unpack(need.chunks, need.count)):
            self.learn(chunk)
        need.count = 0

    def is_ram(self, gfn: int) -> bool:
        state = lib.xd_frames_state(self.pointer, gfn)
        if state == UNKNOWN:
            self.learn(gfn // CHUNK_FRAMES)
            state = lib.xd_frames_state(self.pointer, gfn)
        return bool(state == RAM)

    def doubt(self) -> None:
        """The guest gave frames back; nobody knows which."""
        lib.xd_frames_invalidate(self.pointer)
        self._doubtful = True

    def doubt_holes(self) -> None:
        """What was a hole may be RAM by now."""
        lib.xd_frames_invalidate_holes(self.pointer)

    def drop_mappings(self) -> None:
        """Unmap what was mapped before the guest last gave frames back."""
        if not self._doubtful:
            return
        self._doubtful = False
        asked, since = self.pointer.queried_at, self.pointer.ram_valid_since
        for chunk in [chunk for chunk in self._mapped if asked[chunk] < since]:
            self._drop(chunk)

    def close(self) -> None:
        with ExitStack() as stack:
            for chunk in self._mapped:
                stack.callback(self._drop, chunk)

    def _drop(self, chunk: int) -> None:
        lib.xd_frames_forget(self.pointer, chunk)
        self._mapper.unmap_frames(self._mapped.pop(chunk), min(CHUNK_FRAMES, self.limit - chunk * CHUNK_FRAMES))
