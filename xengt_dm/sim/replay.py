"""Plays a trace: the guest in a file, on the embedded hypervisor, through the whole path.

    store -> p2m check -> ioreq -> event channel -> trio -> bus -> engine -> answer -> second emulation pass

What vCPUs do is executed as operations of the embedded hypervisor, one event after the other, on a second thread.
Submissions, stores by the GPU and dumps happen between two of these, in the serving thread, where a device would call
the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import trio

from xengt_dm._embedded import ffi, lib
from xengt_dm.control import report
from xengt_dm.errors import DataError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import Settings
from xengt_dm.sim.ending import Ending, ending_in_order
from xengt_dm.stats.counters import read_counters
from xengt_dm.steps import complete, finish
from xengt_dm.trace.events import Add, Dump, Event, Fill, GpuStore, Header, Mmio, Remove, Root, Store, Submit
from xengt_dm.trace.read import frame_limit, vcpu_count
from xengt_dm.units import CData
from xengt_dm.vgpu.registers import BAR0_SIZE

#: Where BAR0 is: above every address that a page-table entry can name, and that a trace is likely to store to.
BAR0 = 1 << 51
#: 4 TiB. The process needs room for a type for each frame and for the guest's memory twice.
MOST_FRAMES = 1 << 30
#: Operations that are executed together. Between two batches a failure of the serving side is noticed.
BATCH = 8192


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a replay: ``dumps`` and ``counters`` as in docs/trace-format.md."""

    dumps: list[dict[str, Any]]
    counters: dict[str, int]


def replay(
    header: Header,
    events: list[Event],
    *,
    sync: Sync,
    max_tables: int,
    flavour: str = "4.17",
    player: type[Player] | None = None,
) -> Outcome:
    """Plays a trace from the state in its header to its end.

    ``player``: what plays the events, if not a :class:`Player`. Raises DataError if its guest has too many frames, and
    KeyboardInterrupt or SystemExit if it is interrupted.
    """
    limit = frame_limit(header, events)
    if limit > MOST_FRAMES:
        raise DataError(f"the trace's guest has frames up to {limit - 1}; replay plays guests of {MOST_FRAMES} frames")
    holes = [*header.holes]
    if limit > header.ram_frames:
        holes.append((header.ram_frames, limit - header.ram_frames))
    settings = Settings(bar0=BAR0, generation=header.generation, sync=sync, max_tables=max_tables)
    with ending_in_order() as ending, EmbeddedDomain(limit, vcpu_count(events), flavour, holes=holes) as domain:
        port = domain.port()
        with open_instance(port, settings) as instance:
            playing = (player or Player)(domain, instance)
            trio.run(_play, playing, events, domain, ending)
            counters = read_counters(instance.stats.counters)
            counters["dropped_stores"] += domain.dropped_stores + playing.dropped
            return Outcome(playing.dumps, counters)


async def _play(playing: Player, events: Iterable[Event], domain: EmbeddedDomain, ending: Ending) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(ending.watch, domain.destroy, nursery.cancel_scope)
        await playing.play(events)
        nursery.cancel_scope.cancel()


class Player:
    """Plays the events of a trace on a domain that ``instance`` serves."""

    def __init__(self, domain: EmbeddedDomain, instance: Instance) -> None:
        self.instance = instance
        self._domain = domain
        self._ops: CData = ffi.new("xd_emb_op[]", BATCH)
        self._count = 0
        #: (vCPU, first operation, number of operations) of the operations that are collected but not executed yet.
        self._runs: list[tuple[int, int, int]] = []
        self.dumps: list[dict[str, Any]] = []
        self.dropped = 0

    async def play(self, events: Iterable[Event]) -> None:
        """Plays events in order, beside the serve loop. Raises CallError."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.instance.loop.serve)
            for event in events:
                await self.play_one(event)
            await self.flush()
            nursery.cancel_scope.cancel()

    async def play_one(self, event: Event) -> None:
        """Plays one event. Stores may be collected, and executed later by :meth:`flush`."""
        engine = self.instance.engine
        match event:
            case Store(gpa, size, value, vcpu):
                if BAR0 - size < gpa < BAR0 + BAR0_SIZE:
                    self.dropped += 1  # in the trace there is no BAR at this address
                else:
                    await self._add(vcpu, lib.XD_OP_STORE, gpa, size, value)
            case Fill(gpa, count, value, vcpu):
                await self._add(vcpu, lib.XD_OP_FILL, gpa, 8, value, count)
            case Mmio(offset, size, value, vcpu):
                await self._add(vcpu, lib.XD_OP_STORE, BAR0 + offset, size, value)
            case Remove(gfn, count):
                await self._remove(gfn, count)
            case Add(gfn, count):
                await self._remove(gfn, count)  # so that a frame that is already RAM is replaced
                await self._add(0, lib.XD_OP_ADD, gfn, 0, 0, count)
            case Submit(mode, root):
                await self.flush()
                finish(engine.submit(Mode(mode), _roots(root)))
            case GpuStore(mode, root, va, value):
                await self.flush()
                complete(engine.gpu_store(Mode(mode), _roots(root), va, value))
            case Dump(name):
                await self.flush()
                self.dumps.append({"id": name, "spaces": report.dump_spaces(engine)})
                report.audit_spaces(engine)

    async def _remove(self, gfn: int, count: int) -> None:
        there = min(gfn + count, self._domain.ram_frames) - gfn
        if there > 0:
            await self._add(0, lib.XD_OP_REMOVE, gfn, 0, 0, there)

    async def _add(self, vcpu: int, kind: int, gpa: int, size: int, value: int, count: int = 0) -> None:
        if self._count == BATCH:
            await self.flush()
        op = self._ops[self._count]
        op.kind = kind
        op.gpa = gpa
        op.size = size
        op.value = value
        op.count = count
        if self._runs and self._runs[-1][0] == vcpu:
            _, first, length = self._runs[-1]
            self._runs[-1] = (vcpu, first, length + 1)
        else:
            self._runs.append((vcpu, self._count, 1))
        self._count += 1

    async def flush(self) -> None:
        """Has the vCPUs execute the collected operations while the other task serves."""
        if self._runs:
            await trio.to_thread.run_sync(self._execute)
            self._runs.clear()
            self._count = 0

    def _execute(self) -> None:
        for vcpu, first, count in self._runs:
            self._domain.vcpu(vcpu).run(self._ops + first, count)


def _roots(root: Root) -> tuple[int, ...]:
    return (root,) if isinstance(root, int) else root
