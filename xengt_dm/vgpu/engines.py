"""The engines at work: when each of them runs, and who waits for it.

A list that is short is executed inside of the register write that submits it, and the write is answered when that is
done. What takes longer goes on afterwards, in slices (:mod:`xengt_dm.steps`): whoever serves asks
:meth:`CoreEngines.due` when an engine wants to run, and calls :meth:`CoreEngines.run`. An engine that waits for memory
to change, at a semaphore or in a loop, runs again when another one has stored something, and after :data:`RETRY_NS` in
any case, since a CPU stores unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from xengt_dm._core import ffi, lib
from xengt_dm.steps import Steps
from xengt_dm.units import CData
from xengt_dm.vgpu.core import GpuCore
from xengt_dm.vgpu.interrupts import Trigger, deliver
from xengt_dm.vgpu.ports import Requests
from xengt_dm.vgpu.registers.engine import ENGINES
from xengt_dm.vgpu.streamer import PageTables, Streamer

#: How many budgets a register write may wait for what it submitted, 200 microseconds each.
INSIDE_RUNS: Final = 5
RETRY_NS: Final = 1_000_000
NEVER: Final = (1 << 64) - 1
_NOW: Final = 0
#: Why an engine stopped that goes on by itself.
_GOES_ON: Final = (lib.XD_CS_BUDGET, lib.XD_CS_BLOCKED)


class CoreEngines:
    """The engines of ``gpu``, as :class:`xengt_dm.vgpu.ports.Engines` has them. ``clock`` returns nanoseconds."""

    def __init__(
        self,
        gpu: GpuCore,
        tables: PageTables,
        trigger: Trigger,
        clock: Callable[[], int] = lib.xd_now,
        requests: Requests | None = None,
    ) -> None:
        """``requests``: those of the guest, if a successor may find them in the middle of being served."""
        self._gpu = gpu
        self._requests = requests
        if requests is not None:
            gpu.pointer.words = requests.words
        #: As in :class:`xengt_dm.vgpu.ports.Engines`.
        self.pointer: CData = gpu.pointer
        self._streamer = Streamer(gpu, tables)
        self._trigger = trigger
        self._clock = clock
        self._value = ffi.new("uint64_t *")
        #: By engine: a run that is begun.
        self._runs: list[Steps[int] | None] = [None] * len(ENGINES)
        #: By engine: when it wants to run; NEVER while it has nothing to do.
        self._times = [NEVER if self.is_idle(engine) else _NOW for engine in range(len(ENGINES))]
        #: By engine: how many runs have ended.
        self._ends = [0] * len(ENGINES)
        #: The engine that has its turn next.
        self._turn = 0

    # Registers that C serves

    def read(self, offset: int, size: int) -> int | None:
        """A read of a register of BAR0; None if it is no register that C serves."""
        if lib.xd_hot_read(self.pointer, offset, size, self._value) == lib.XD_HOT_OTHER:
            return None
        return int(self._value[0])

    def write(self, offset: int, size: int, value: int) -> tuple[bool, Steps[None] | None]:
        """A write of a register of BAR0. Returns whether C serves it, and steps that do what is left."""
        if self._requests is not None:
            self.pointer.record, self.pointer.element = self._requests.record
        result = lib.xd_hot_write(self.pointer, offset, size, value)
        self.pointer.record = ffi.NULL
        if result == lib.XD_HOT_OTHER:
            return False, None
        self.follow_up()
        return True, self.submitted(result - lib.XD_HOT_RUNS) if result >= lib.XD_HOT_RUNS else None

    def submitted(self, engine: int) -> Steps[None]:
        """What is left of a write that has submitted a list: its engine goes on."""
        return self._inside(engine)

    def follow_up(self) -> bool:
        """Do what C asks for, such as an interrupt. Returns whether it asked for anything."""
        if not self.pointer.attention:
            return False
        if deliver(self._gpu, self._trigger):
            self._wake_all()
        return True

    @property
    def counts(self) -> dict[str, int]:
        """What the GPU has done since this process began, by the names of ``xd_gpu_counts``."""
        counts = self.pointer.counts
        return {name: int(getattr(counts, name)) for name, _ in ffi.typeof("xd_gpu_counts").fields}

    # Running

    @property
    def busy(self) -> bool:
        """Whether any engine has something to do."""
        return any(not self.is_idle(engine) or self._streamer.holds(engine) for engine in range(len(ENGINES)))

    def halt(self) -> None:
        """Have no engine execute anything from here on. What is submitted waits for :meth:`proceed`."""
        self.pointer.halted = True
        self.abandon()

    def proceed(self) -> None:
        """The end of :meth:`halt`."""
        self.pointer.halted = False
        self._wake_all()

    def abandon(self) -> None:
        """End the runs that are begun, since nobody may wait for what they hold. Engines begin new ones."""
        for engine in range(len(ENGINES)):
            self._abandon(engine)

    def _abandon(self, engine: int) -> None:
        run, self._runs[engine] = self._runs[engine], None
        if run is not None:
            run.close()

    def due(self) -> int:
        """When an engine wants to run: a time of the clock, 0 for now, or NEVER."""
        return NEVER if self.pointer.halted else min(self._times)

    def run(self) -> None:
        """Run an engine for a slice, if one wants to run; each in its turn."""
        now = self._clock()
        for at in range(self._turn, self._turn + len(ENGINES)):
            engine = at % len(ENGINES)
            if self._times[engine] <= now:
                self._turn = engine + 1
                self._advance(engine)
                return

    def _inside(self, engine: int) -> Steps[None]:
        """Run an engine until it has done its work, or for some budgets; then it goes on by itself.

        The others keep their turns meanwhile, since it may wait for what one of them is about to do.
        """
        self._times[engine] = _NOW
        last = self._ends[engine] + INSIDE_RUNS
        while self._times[engine] == _NOW and self._ends[engine] < last:
            self._advance(engine)
            if self._runs[engine] is not None:
                self.run()
            yield

    def _advance(self, engine: int) -> None:
        """A slice of an engine's run."""
        run = self._runs[engine]
        if run is None:
            run = self._runs[engine] = self._streamer.run(engine)
        self._times[engine] = _NOW
        try:
            next(run)
        except StopIteration as end:
            self._runs[engine] = None
            self._ended(engine, end.value)
        except BaseException:
            self._runs[engine] = None
            raise
        memory = self.pointer.memory
        if memory.stores != self.pointer.stores_seen:
            self._wake_all()
        self.follow_up()

    def _ended(self, engine: int, reason: int) -> None:
        self._ends[engine] += 1
        if reason == lib.XD_CS_BUDGET:
            self._times[engine] = _NOW
        elif reason == lib.XD_CS_BLOCKED:
            self._times[engine] = self._clock() + RETRY_NS
        else:
            self._times[engine] = NEVER

    def _wake_all(self) -> None:
        """Memory has changed, or a list was submitted: have every engine that has something to do try."""
        self.pointer.stores_seen = self.pointer.memory.stores
        for engine, known in enumerate(self.pointer.engines):
            if known.reason in _GOES_ON:
                self._times[engine] = _NOW

    # For registers that Python serves

    def reset(self, engines: Collection[int]) -> None:
        for engine in engines:
            self._abandon(engine)
            lib.xd_execlists_reset(self.pointer, engine)
            # What it holds is released by a run, which finds that it has nothing to do.
            self._times[engine] = _NOW if self._streamer.holds(engine) else NEVER

    def stop(self, engine: int) -> None:
        """Nothing to do: C looks at STOP_RING before each command, and no command is under way now."""

    def go_on(self, engine: int) -> Steps[None] | None:
        return None if self.is_idle(engine) else self._inside(engine)

    def is_idle(self, engine: int) -> bool:
        return bool(lib.xd_execlists_idle(self.pointer, engine))

    def invalidate_tlb(self, engine: int) -> None:
        lib.xd_cs_invalidate(self.pointer, engine)
