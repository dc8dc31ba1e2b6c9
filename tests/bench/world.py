"""A guest without a hypervisor, in whose memory nothing but page tables lies, and hosts that do as they are told.

So what is measured is the engine, its kernels, and nothing that they ask for.
"""

from __future__ import annotations

import array
import random

from tests.support.core_bench import CHUNK
from tests.support.engine_bench import EngineBench
from tests.support.tables import ENTRIES, FRAME, address, pte
from xengt_dm._core import ffi
from xengt_dm.ppgtt.engine import Engine, Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import complete, finish
from xengt_dm.units import CData


class Guest(EngineBench):
    """A 4-level space with ``leaves`` full leaf tables, 2 MiB each; table frames come first, then ``ENTRIES * leaves``
    frames of data that exist only by name.

    ``scattered``: each page that is mapped lies somewhere, as if memory were old; else one after the other.
    """

    ROOT = 1
    POINTERS = 2

    def __init__(self, leaves: int, *, scattered: bool = False) -> None:
        self.leaves = leaves
        directories = -(-leaves // ENTRIES)
        self.first_directory = 3
        self.first_leaf = self.first_directory + directories
        self._backed = -(-(self.first_leaf + leaves) // CHUNK) * CHUNK
        super().__init__(self._backed + leaves * ENTRIES, backed=self._backed)
        self.words: CData = ffi.cast("uint64_t *", self.base)
        self._zeros = bytes(FRAME)
        self._link(self.ROOT, 0, self.POINTERS)
        for i in range(directories):
            self._link(self.POINTERS, i, self.first_directory + i)
        for i in range(leaves):
            self._link(self.first_directory + i // ENTRIES, i % ENTRIES, self.first_leaf + i)
        numbers = random.Random(1)
        for i in range(leaves):
            frames: range | list[int] = range(self._backed + i * ENTRIES, self._backed + (i + 1) * ENTRIES)
            if scattered:
                frames = numbers.choices(range(self._backed, self.frames), k=ENTRIES)
            page = array.array("Q", [pte(frame) for frame in frames])
            ffi.memmove(self.leaf(i), page.tobytes(), FRAME)

    def _link(self, gfn: int, slot: int, target: int) -> None:
        self.words[gfn * ENTRIES + slot] = pte(target)

    def leaf(self, index: int) -> CData:
        """The page of a leaf table, and of those after it: ``uint64_t *``."""
        return self.words + (self.first_leaf + index) * ENTRIES

    def directory_entry(self, index: int) -> tuple[int, int]:
        """gpa of the entry that links leaf ``index``, and its value."""
        gfn, slot = self.first_directory + index // ENTRIES, index % ENTRIES
        return address(gfn, slot), pte(self.first_leaf + index)

    def engine(self, *, sync: Sync = Sync.STRICT) -> Engine:
        """An engine that knows which frames are RAM; it was told when it first saw each 2 MiB."""
        engine = self.make_engine(sync=sync, max_tables=self.leaves + self.first_leaf + 1).steps
        for chunk in range(self.frames // CHUNK):
            engine.frames.query(chunk)
        return engine

    def create(self, engine: Engine) -> None:
        complete(engine.create_space(Mode.L4, (self.ROOT * FRAME,)))

    def destroy(self, engine: Engine) -> None:
        complete(engine.destroy_space(Mode.L4, (self.ROOT * FRAME,)))

    def submit(self, engine: Engine) -> None:
        finish(engine.submit(Mode.L4, (self.ROOT * FRAME,)))

    def store(self, engine: Engine, gpa: int, value: int) -> None:
        outcome = engine.stores.store(gpa, 8, value)
        if not isinstance(outcome, int):
            complete(outcome)

    # FrameMapper

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        self._no_errors(errors, count)
        return self.base + first_gfn * FRAME if first_gfn < self._backed else 0

    def unmap_frames(self, address: int, count: int) -> None: ...

    # Protector

    def protect(self, gfns: CData, count: int, errors: CData) -> int:
        self._no_errors(errors, count)
        return 0

    def still_trapping(self, gfns: CData, count: int, errors: CData) -> int:
        self._no_errors(errors, count)
        return 0

    def unprotect(self, gfns: CData, count: int) -> None: ...

    def unsync(self, gfns: CData, count: int, errors: CData) -> int:
        self._no_errors(errors, count)
        return 0

    def resync(self, gfns: CData, count: int, errors: CData, *, forced: bool = False) -> int:
        self._no_errors(errors, count)
        return 0

    def verify(self, gfns: CData, count: int) -> None: ...

    def frames_changed(self) -> None: ...

    def _no_errors(self, errors: CData, count: int) -> None:
        if 4 * count > len(self._zeros):
            self._zeros = bytes(4 * count)
        ffi.memmove(errors, self._zeros, 4 * count)
