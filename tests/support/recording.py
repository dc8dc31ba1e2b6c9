"""Playing a trace as a live guest and recording that."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import trio

from xengt_dm.control import report
from xengt_dm.daemon.recording import LAST_DUMP, Recording, open_trace_file
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import Settings
from xengt_dm.sim.demo import RAM_FRAMES, Guest
from xengt_dm.sim.replay import BAR0, Player, replay
from xengt_dm.steps import complete
from xengt_dm.trace.background import PageChange, PageLines
from xengt_dm.trace.events import FRAME_LIMIT, Dump, Event, Header
from xengt_dm.trace.read import frame_limit, read_trace, vcpu_count

Dumps = list[dict[str, Any]]


def page_events(gfn: int, before: bytes | None, after: bytes) -> list[Event]:
    """The events that turn the content of a frame into ``after``, by way of the lines of a trace."""
    lines = PageLines(1).of([PageChange(gfn, before, after)])
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(f"{Header(9, FRAME_LIMIT).line()}\n".encode() + lines)
        file.flush()
        return read_trace(file.name)[1]


class _RecordedPlayer(Player):
    """Records from the ``start``-th event on; what is dumped before is of no account."""

    def __init__(self, domain: EmbeddedDomain, instance: Instance, path: Path, start: int) -> None:
        super().__init__(domain, instance)
        self.recording = Recording(instance.engine, instance.device, instance.bus, domain.ram_frames)
        self._path = path
        self._left = start

    async def play_all(self, events: list[Event]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.instance.loop.serve)
            for event in events:
                if self._left == 0:
                    await self._begin()
                self._left -= 1
                await self.play_one(event)
                if isinstance(event, Dump) and self.recording.name:
                    complete(self.recording.dump(event.id))
            await self.flush()
            if not self.recording.name:
                await self._begin()
            self.dumps.append({"id": LAST_DUMP, "spaces": report.dump_spaces(self.instance.engine)})
            self.recording.stop()
            nursery.cancel_scope.cancel()

    async def _begin(self) -> None:
        await self.flush()
        self.dumps.clear()
        self.recording.start(open_trace_file(str(self._path)))


def _plain(dumps: Dumps) -> Dumps:
    for dump in dumps:
        for space in dump["spaces"]:
            if space["mappings"] is not None:
                space["mappings"] = [list(run) for run in space["mappings"]]
    return dumps


def play_recorded(path: Path, recording: Path, mode: str, start: int, max_tables: int) -> Dumps:
    """Play the trace at ``path``, and record it from its ``start``-th event on; the dumps since then."""
    header, events = read_trace(path)
    limit = frame_limit(header, events)
    holes = [*header.holes, *([(header.ram_frames, limit - header.ram_frames)] if limit > header.ram_frames else [])]
    with EmbeddedDomain(limit, vcpu_count(events), "4.17", holes=holes) as domain:
        settings = Settings(bar0=BAR0, generation=header.generation, sync=Sync(mode), max_tables=max_tables)
        with open_instance(domain.port(), settings) as instance:
            player = _RecordedPlayer(domain, instance, recording, start)
            trio.run(player.play_all, events)
            return _plain(player.dumps)


def dumps_of(path: Path, mode: str) -> Dumps:
    header, events = read_trace(path)
    return _plain(replay(header, events, sync=Sync(mode), max_tables=65536).dumps)


def demo_recorded(path: Path, mode: str, guest: Guest) -> list[dict[str, Any]]:
    """Record the demonstration's guest until its vCPUs rest; the spaces as they are then."""

    async def main(domain: EmbeddedDomain, instance: Instance) -> list[dict[str, Any]]:
        recording = Recording(instance.engine, instance.device, instance.bus, RAM_FRAMES)
        recording.start(open_trace_file(str(path)))
        async with trio.open_nursery() as nursery:
            await nursery.start(instance.loop.serve)
            for index in range(Guest.VCPUS):
                domain.start(index, guest.program)
            for _ in range(Guest.VCPUS):
                await trio.to_thread.run_sync(guest.resting.acquire)
            dumps = _plain([{"id": LAST_DUMP, "spaces": report.dump_spaces(instance.engine)}])
            recording.stop()
            guest.go_on.set()
            await trio.to_thread.run_sync(domain.join)
            nursery.cancel_scope.cancel()
        spaces: list[dict[str, Any]] = dumps[0]["spaces"]
        return spaces

    with (
        EmbeddedDomain(RAM_FRAMES, Guest.VCPUS, "4.17") as domain,
        open_instance(domain.port(), Settings(sync=Sync(mode))) as instance,
    ):
        return trio.run(main, domain, instance)
