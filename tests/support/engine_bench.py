"""The engine without a hypervisor: a guest's memory, and a host that protects frames and checks each request."""

from __future__ import annotations

import ctypes
import errno
import mmap
import struct

from tests.support.tables import FRAME
from tests.support.whole_engine import WholeEngine
from xengt_dm._core import ffi
from xengt_dm.ppgtt.engine import Engine, Sync
from xengt_dm.ppgtt.read import Runs
from xengt_dm.ppgtt.space import LiveSpaces, Mode, Space

_MEMCMP = ctypes.CDLL(None).memcmp
_MEMCMP.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class EngineBench:
    """Guest RAM of ``frames`` frames, a set of holes, and what engines ask of their ports as plain sets.

    Only the first ``backed`` frames have memory, if that is said; the others exist by name.

    Protecting follows Xen's rules: EINVAL for a frame that is protected already or is no RAM.
    """

    def __init__(self, frames: int = 64, *, backed: int | None = None) -> None:
        self.frames = frames
        self.holes: set[int] = set()
        self.protected: set[int] = set()
        self.refuse: set[int] = set()
        #: Frames that cannot be unsynced now, because a vCPU is storing to them.
        self.busy: set[int] = set()
        #: Frames that cannot be protected now, because a store lies in each of them and the next one.
        self.straddled: set[int] = set()
        #: Frames given back and not protected anew since: their type was lost without notice.
        self.lost: set[int] = set()
        self.memory = mmap.mmap(-1, (frames if backed is None else backed) * FRAME)
        self._view = ffi.from_buffer(self.memory)
        self.base = int(ffi.cast("uintptr_t", self._view))
        #: See :attr:`xengt_dm.ppgtt.ports.Protector.gaps`.
        self.gaps = 0
        self.maps = 0
        self.unmaps = 0

    def make_engine(
        self,
        *,
        sync: Sync = Sync.STRICT,
        generation: int = 8,
        max_tables: int = 1024,
        spaces: LiveSpaces | None = None,
        quiesced: bool = False,
    ) -> WholeEngine:
        """An engine whose ports this is."""
        return WholeEngine(
            Engine(
                self,
                self,
                ffi.new("xd_counters *"),
                frame_limit=self.frames,
                generation=generation,
                sync=sync,
                max_tables=max_tables,
                spaces=spaces,
                quiesced=quiesced,
            )
        )

    # FrameMapper

    def map_frames(self, first_gfn: int, count: int, errors: object, address: int = 0) -> int:
        self.maps += 1
        for i in range(count):
            errors[i] = errno.ENOENT if first_gfn + i in self.holes or first_gfn + i >= self.frames else 0  # type: ignore[index]
        return self.base + first_gfn * FRAME

    def unmap_frames(self, address: int, count: int) -> None:
        self.unmaps += 1

    # Protector

    def protect(self, gfns, count, errors):  # type: ignore[no-untyped-def]
        failed = 0
        for i in range(count):
            bad = gfns[i] in self.protected or gfns[i] in self.holes or gfns[i] in self.refuse
            errors[i] = errno.EINVAL if bad else errno.EINPROGRESS if gfns[i] in self.straddled else 0
            failed += errors[i] != 0
            if not errors[i]:
                self.protected.add(gfns[i])
                self.lost.discard(gfns[i])
        return failed

    def still_trapping(self, gfns, count, errors):  # type: ignore[no-untyped-def]
        """Frames that cannot be protected are said to trap, so that no mode uses them."""
        for i in range(count):
            errors[i] = errno.EBUSY if gfns[i] in self.refuse else 0
        return sum(1 for i in range(count) if errors[i])

    def unprotect(self, gfns, count):  # type: ignore[no-untyped-def]
        for i in range(count):
            gfn = gfns[i]
            assert gfn in self.protected or gfn in self.lost, f"unprotect of frame {gfn}, which is not protected"
            self.protected.discard(gfn)
            self.lost.discard(gfn)

    deferred = 0
    holding = False
    late_stores_trap = False

    def unprotect_deferred(self) -> bool:
        return True

    def unsync(self, gfns, count, errors):  # type: ignore[no-untyped-def]
        for i in range(count):
            gfn = gfns[i]
            assert gfn in self.protected or gfn in self.lost
            stays = gfn in self.busy or gfn in self.lost
            errors[i] = errno.EBUSY if stays else 0
            if not stays:
                self.protected.remove(gfn)
        return sum(1 for i in range(count) if errors[i])

    def resync(self, gfns, count, errors, *, forced=False):  # type: ignore[no-untyped-def]
        return self.protect(gfns, count, errors)

    def held(self, gfn: int) -> int | None:
        return None

    def release(self, gfn: int) -> bool:
        return True

    def trap_late(self, gfn: int) -> None:
        pass

    def verify(self, gfns, count):  # type: ignore[no-untyped-def]
        for i in range(count):
            if gfns[i] not in self.holes:
                self.protected.add(gfns[i])
                self.lost.discard(gfns[i])

    def frames_changed(self) -> None:
        pass

    # The guest

    def entry(self, gfn: int, slot: int) -> int:
        return int(struct.unpack_from("<Q", self.memory, gfn * FRAME + slot * 8)[0])

    def put(self, gfn: int, slot: int, value: int) -> None:
        """Prepare memory; not a store that anyone sees."""
        struct.pack_into("<Q", self.memory, gfn * FRAME + slot * 8, value)

    def memory_is_that_of(self, other: EngineBench) -> bool:
        """Whether both hold the same bytes. Nothing is copied for it: a stateful test asks after every step."""
        return _MEMCMP(self.base, other.base, len(self.memory)) == 0

    def remove(self, gfn: int) -> None:
        """The guest gives a frame back: its contents and its type are gone."""
        self.holes.add(gfn)
        if gfn in self.protected:
            self.protected.remove(gfn)
            self.lost.add(gfn)
        self.memory[gfn * FRAME : (gfn + 1) * FRAME] = bytes(FRAME)

    def add(self, gfn: int) -> None:
        self.holes.discard(gfn)

    def store(self, engine: WholeEngine, gpa: int, size: int, value: int) -> bool:
        """A CPU's store within one frame; True if it trapped."""
        gfn = gpa // FRAME
        if gfn >= self.frames or gfn in self.holes:
            return False
        if gfn in self.protected:
            engine.store(gpa, size, value)
            return True
        self.memory[gpa : gpa + size] = value.to_bytes(size, "little")
        return False


def unsynced_frames(engine: WholeEngine) -> set[int]:
    """The frames of the leaf tables to which the guest stores unseen."""
    return {table.gfn for table in engine.tables() if table.unsynced}


def mappings(engine: WholeEngine, space: Space) -> Runs | None:
    """What a space maps, as if just submitted."""
    engine.sync(space)
    return engine.mappings(space)


def audit(engine: WholeEngine, space: Space) -> tuple[int, int]:
    """Sync a space and audit it: mismatches and overdue entries."""
    found = engine.audit(space, engine.sync(space))
    return found.mismatches, found.overdue


def mappings_of(engine: WholeEngine) -> dict[tuple[Mode, tuple[int, ...]], list[tuple[int, ...]] | None]:
    result = {}
    for space in engine.spaces:
        mapped = mappings(engine, space)
        result[space.mode, space.roots] = None if mapped is None else [tuple(run) for run in mapped]
    return result
