"""Running an engine: what C cannot do by itself is done here, in steps, and then C goes on.

C executes commands until there is a reason to stop (``core/vgpu/streamer.h``): it may have to know which frames are
RAM, have a space brought in sync, or have page tables follow what it stored to them.
"""

from __future__ import annotations

from typing import Final, Protocol

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import take_chunks
from xengt_dm.ppgtt.space import Mode, Space, SpaceKey
from xengt_dm.steps import Steps
from xengt_dm.units import CData
from xengt_dm.vgpu.core import SLICE_BUDGET, GpuCore

#: How often C is helped in one run. A guest can have it ask again and again.
MOST_HELPS: Final = 4
_HELPED: Final = (lib.XD_CS_NEED, lib.XD_CS_SYNC, lib.XD_CS_DIRECTORY)
_L4: Final = 4


class PageTables(Protocol):
    """The shadows, as far as an engine needs them: :class:`xengt_dm.ppgtt.engine.Engine`."""

    def use(self, mode: Mode, roots: SpaceKey) -> Steps[Space]:
        """Sync a space, as a submission does. One that is not live has a shadow until :meth:`release`."""

    def release(self, space: Space) -> Steps[None]:
        """Nobody executes with the space any more."""

    def query_chunks(self, chunks: list[int]) -> Steps[None]:
        """Find out which frames of these chunks are RAM."""

    def follow_gpu_store(self, result: int, gpa: int, size: int, value: int) -> Steps[None]:
        """The page tables that a store of the GPU changed follow it; ``result`` is what xd_guest_store returned."""


class Streamer:
    """Runs the engines of ``gpu``."""

    def __init__(self, gpu: GpuCore, tables: PageTables) -> None:
        self._gpu = gpu.pointer
        self._tables = tables
        self._gpas: CData = ffi.new("uint64_t[4]")
        #: By engine: the space that it executes with, if that is not live.
        self._held: dict[int, Space] = {}

    def holds(self, engine: int) -> bool:
        """Whether an engine has a space of its own, which a run releases when the engine has nothing to do."""
        return engine in self._held

    def run(self, engine: int) -> Steps[int]:
        """Have an engine execute, for one budget. Returns why it stopped: XD_CS_IDLE, BUDGET, BLOCKED or ERROR.

        A run in which C was helped :data:`MOST_HELPS` times ends as one whose budget is spent.
        """
        helps = 0
        while True:
            reason = int(lib.xd_cs_run(self._gpu, engine, SLICE_BUDGET))
            if reason not in _HELPED:
                break
            if helps:
                yield
            yield from self._help(engine, reason)
            helps += 1
            if helps == MOST_HELPS:
                reason = lib.XD_CS_BUDGET
                break
        if engine in self._held and lib.xd_execlists_idle(self._gpu, engine):
            yield from self._tables.release(self._held.pop(engine))
        return reason

    def _help(self, engine: int, reason: int) -> Steps[None]:
        if reason == lib.XD_CS_NEED:
            yield from self._query()
        elif reason == lib.XD_CS_SYNC:
            yield from self._sync(engine)
        else:
            yield from self._follow(self._gpu.engines[engine])

    def _follow(self, engine: CData) -> Steps[None]:
        table = engine.table
        yield from self._tables.follow_gpu_store(table.result, table.gpa, table.size, table.value)
        engine.follows = False

    def _query(self) -> Steps[None]:
        need = self._gpu.memory.need
        chunks = list(take_chunks(need))
        need.count = 0
        yield from self._tables.query_chunks(chunks)

    def _sync(self, engine: int) -> Steps[None]:
        mode, roots = self._space_of(engine)
        space = yield from self._tables.use(mode, roots)
        held = self._held.pop(engine, None)
        if not space.live:
            self._held[engine] = space
        if held is not None and held is not space:
            yield from self._tables.release(held)
        if self._space_of(engine) == (mode, roots):
            lib.xd_cs_synced(self._gpu, engine, space.shadowed)

    def _space_of(self, engine: int) -> tuple[Mode, SpaceKey]:
        """The mode and the roots of the space that an engine's context has."""
        level = lib.xd_cs_roots(self._gpu, engine, self._gpas)
        if level == _L4:
            return Mode.L4, (int(self._gpas[0]),)
        return Mode.L3, tuple(map(int, self._gpas))
