"""One device model on one domain: what it is made of, and how it starts, adopts and stops.

    guest -> Xen -> slots -> loop -> bus -> device -> engine -> traps -> Xen
                                      \\-> engine

:func:`open_instance` makes the parts in the order in which they need each other; each gets what it needs in its
constructor, and none is told later of another. :func:`start`, :func:`adopt` and :func:`stop` are the three orders in
which things happen in the hypervisor, each to be read from top to bottom.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from xengt_dm._core import ffi, lib
from xengt_dm.config.keys import KEYS
from xengt_dm.config.merge import Config
from xengt_dm.errors import DomainGoneError
from xengt_dm.hypervisor.best_effort import BestEffort
from xengt_dm.hypervisor.port import DomainPort, WriteTrap
from xengt_dm.ioreq.bar import Bar
from xengt_dm.ioreq.bus import Bus
from xengt_dm.ioreq.loop import ROUND_SECONDS, ROUNDS_SECONDS, ServeLoop
from xengt_dm.ioreq.ranges import NoRangeRecord, RangeKind, RangeRecord
from xengt_dm.ioreq.server import IdRecord, IoreqServer, NoIdRecord, attach
from xengt_dm.ioreq.slots import Slots
from xengt_dm.ppgtt.engine import Engine, Sync
from xengt_dm.ppgtt.guest_frames import CHUNK_FRAMES
from xengt_dm.state.buffer import State
from xengt_dm.state.layout import Capacities, Layout
from xengt_dm.stats.page import StatsPage
from xengt_dm.steps import complete
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.traps.guard_ranges import guard_range, search_ram
from xengt_dm.traps.ranges import RangeTraps
from xengt_dm.traps.write_traps import WriteTraps
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE
from xengt_dm.vgpu.device import Vgpu
from xengt_dm.vgpu.registers import BAR0_SIZE, NO_GRAPHICS_MEMORY, GraphicsMemory
from xengt_dm.vgpu.state import DeviceState

DEFAULT_BAR0 = int(KEYS["device.bar0_gpa"].default)
DEFAULT_MAX_TABLES = int(KEYS["shadow.max_tables"].default)
DEFAULT_MAX_SPACES = int(KEYS["shadow.max_spaces"].default)
#: A chunk is the 2 MiB of guest memory that are mapped together (xengt_dm/ppgtt/guest_frames.py).
CHUNK_MIB: Final = CHUNK_FRAMES * PAGE_SIZE >> 20
DEFAULT_MAX_MAPPED_CHUNKS = int(KEYS["shadow.max_mapped_mib"].default) // CHUNK_MIB
#: How long a successor waits for a vCPU to take its predecessor's answer. One that is paused takes none, and then we go
#: on without it.
TAKEN_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.001

#: How frames are write-protected, by what the hypervisor offers.
TrapsMaker = Callable[[DomainPort, int, Slots, RangeRecord], WriteTraps]
WRITE_TRAPS: Final[Mapping[WriteTrap, TrapsMaker]] = {
    WriteTrap.CLAIM: ClaimTraps,
    WriteTrap.RANGES: RangeTraps,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one device model is to be. ``bar0`` is a gpa, a multiple of its size, outside the domain's RAM.

    ``max_tables``: the quota of shadow tables. ``max_spaces``: how many address spaces may be live at once.
    ``max_mapped_chunks``: how many chunks of guest memory may be mapped at once.
    """

    bar0: int = DEFAULT_BAR0
    generation: int = 8
    sync: Sync = Sync.STRICT
    max_tables: int = DEFAULT_MAX_TABLES
    max_spaces: int = DEFAULT_MAX_SPACES
    max_mapped_chunks: int = DEFAULT_MAX_MAPPED_CHUNKS
    graphics: GraphicsMemory = NO_GRAPHICS_MEMORY

    @classmethod
    def from_config(cls, config: Config) -> Settings:
        """What the configuration says."""
        return cls(
            bar0=config.integer("device.bar0_gpa"),
            generation=config.integer("device.generation"),
            sync=Sync(config.string("shadow.mode")),
            max_tables=config.integer("shadow.max_tables"),
            max_spaces=config.integer("shadow.max_spaces"),
            max_mapped_chunks=config.integer("shadow.max_mapped_mib") // CHUNK_MIB,
            graphics=GraphicsMemory(
                config.integer("device.low_gm_mib"),
                config.integer("device.high_gm_mib"),
                config.integer("device.fences"),
            ),
        )


@dataclass(frozen=True, slots=True)
class Instance:
    """A device model at work."""

    settings: Settings
    server: IoreqServer
    traps: WriteTraps
    engine: Engine
    device: Vgpu
    bus: Bus
    bar0: Bar
    loop: ServeLoop
    stats: StatsPage
    _one_at_a_time: trio.Lock = field(default_factory=trio.Lock)

    def tell_stats(self) -> None:
        """Write what the stats page says beyond counts."""
        self.stats.describe(
            vcpus=self.server.slots.vcpus,
            generation=self.settings.generation,
            max_tables=self.settings.max_tables,
            relaxed=self.engine.sync_mode is Sync.RELAXED,
            quiesced=self.engine.quiesced,
        )

    async def quiesce(self) -> None:
        """Unprotect every frame and give the claim back, so that the domain can be saved. The device goes on serving.

        The serve loop must be running: a frame that a vCPU is storing to is unprotected only when its store is over,
        or after :data:`ROUNDS_SECONDS`. Does nothing if that is done already. Raises CallError.
        """
        async with self._one_at_a_time:
            if not self.engine.quiesced:
                await self._quiesce()

    async def _quiesce(self) -> None:
        await self.loop.run(self.engine.quiesce())
        await self.loop.run(self.traps.unprotect_adopted())
        with trio.move_on_after(ROUNDS_SECONDS):
            while not self.traps.unprotect_deferred():  # noqa: ASYNC110 - no event tells that a store is over
                await trio.sleep(ROUND_SECONDS)
        self.traps.drop_guard_ranges()
        self.server.release_claim()
        self.traps.claim_released()

    async def resume(self) -> bool:
        """Claim again, and shadow the spaces that are live by now; the end of :meth:`quiesce`.

        Returns False, and the instance stays quiesced, if not one frame could be protected that had to be. Raises
        HostError if the claim is refused, and the instance stays quiesced; DomainGoneError.
        """
        async with self._one_at_a_time:
            if not self.engine.quiesced:
                return True
            self.server.claim()
            counters = self.engine.counters
            refused = counters.unprotectable_entries
            await self.loop.run(self.engine.resume())
            if counters.protected_pages or counters.unprotectable_entries == refused:
                return True
            await self._quiesce()
            return False


@contextmanager
def open_instance(
    port: DomainPort,
    settings: Settings,
    *,
    record: IdRecord | None = None,
    ranges: RangeRecord | None = None,
    directory: Path | None = None,
    write_traps: Mapping[WriteTrap, TrapsMaker] = WRITE_TRAPS,
) -> Iterator[Instance]:
    """A device model on ``port``'s domain, from its registration to its last answer.

    ``record`` and ``ranges`` outlive this process, so that a successor can adopt the server; without them nobody can.
    ``directory`` takes the stats page; without one it is private. Raises CallError, OSError.
    """
    with _marking_an_orderly_end(StatsPage(directory, port.domid)) as stats:
        make_traps = write_traps[port.write_trap]  # refused here, where Xen does not show every store
        timing = ffi.addressof(stats.counters, "timing")
        server = attach(port, record or NoIdRecord(), ranges or NoRangeRecord(), timing)
        try:
            instance = _wire(server, settings, stats, make_traps)
        except BaseException:
            server.abandon()
            raise
        try:
            if server.adopted:
                adopt(server, instance.traps, {instance.bar0: settings.bar0})
            else:
                start(server, {instance.bar0: settings.bar0})
            instance.tell_stats()
            yield instance
        finally:
            if server.owned:
                stop(server, instance.loop, instance.traps, instance.engine)
            else:
                leave(server, instance.engine)


def _wire(server: IoreqServer, settings: Settings, stats: StatsPage, make_traps: TrapsMaker) -> Instance:
    """Make the parts. Nothing happens in the hypervisor."""
    port = server.port
    traps = make_traps(port, server.id, server.slots, server.ranges)
    engine = Engine(
        traps,
        traps,
        stats.counters,
        frame_limit=port.frame_limit,
        generation=settings.generation,
        sync=settings.sync,
        max_tables=settings.max_tables,
        max_spaces=settings.max_spaces,
        max_mapped_chunks=settings.max_mapped_chunks,
    )
    device = Vgpu(
        engine,
        DeviceState(private_state(Capacities(port.frame_limit, settings.max_spaces)).device),
        generation=settings.generation,
        vgt_id=port.domid + 1,
        graphics=settings.graphics,
    )
    device.reset()
    bus = Bus(engine, stats.counters)
    bar0 = Bar(bus, device, BAR0_SIZE, server)
    loop = ServeLoop(server, bus, traps, engine, stats.pointer)
    return Instance(settings, server, traps, engine, device, bus, bar0, loop, stats)


def private_state(capacities: Capacities) -> State:
    """A fresh state that no successor finds; in small pages, so that an untouched page costs nothing."""
    memory = mmap.mmap(-1, Layout(capacities).size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return State.create(memoryview(memory), capacities)


def start(server: IoreqServer, bars: Mapping[Bar, int]) -> None:
    """Have Xen send requests to a server that we made. ``bars``: the gpa of each. Raises CallError."""
    server.enable()  # Xen writes the numbers of the vCPUs' channels into the slots
    server.claim()
    for bar, address in bars.items():
        bar.map(address)
    server.channels.bind(range(server.slots.vcpus))


def adopt(server: IoreqServer, traps: WriteTraps, bars: Mapping[Bar, int]) -> None:
    """Take over the server of a predecessor that died, with what waits in its slots. ``bars``: the gpa of each.

    Facts: what the predecessor had protected is not on record. Only a release of the claim makes RAM of frames that
    nobody can name, and it must not fall between an answer and the end of the instruction that the answer is for
    (:mod:`xengt_dm.traps.state`). What we do: have every answer that the predecessor gave be taken; release the claim
    and make it again; protect again what the requests that are not answered yet store to.

    If this fails, or this process dies, the server is left as it is by then, for the next successor: nothing was
    answered, and every range is on record. Raises CallError, OSError.
    """
    port, channels = server.port, server.channels
    server.enable()  # it was, unless the predecessor died very early

    # Which ranges there are.
    left = server.ranges.read()
    if left is None:
        left = [guard_range(gfn) for gfn in search_ram(port, server.id)]
    server.ranges.start(left)
    traps.adopt_guard_ranges([each.first >> PAGE_SHIFT for each in left if each.kind is RangeKind.GUARD])

    # Make RAM of every frame but those of stores that are not over.
    traps.guard_in_flight()
    if port.retype_in_flight_is_fatal:
        channels.bind(range(server.slots.vcpus))
        _have_answers_taken(server)
        server.enable()  # a barrier: the instructions of those answers are over
    server.claim_again()
    traps.claim_released()
    traps.protect_in_flight()
    complete(traps.unprotect_adopted())

    # The device's ranges, if they are not what the predecessor had.
    wanted = [bar.range_at(address) for bar, address in bars.items()]
    for each in left:
        if each.kind is not RangeKind.GUARD and each not in wanted:
            server.remove_range(each)
    for bar, address in bars.items():
        bar.map(address)

    channels.bind(range(server.slots.vcpus))
    server.owned = True  # from here on we can answer


def _have_answers_taken(server: IoreqServer) -> None:
    """Notify the vCPUs whose answers are there until they have taken them, for :data:`TAKEN_SECONDS` at most."""
    slots = server.slots
    deadline = time.monotonic() + TAKEN_SECONDS
    while answered := [vcpu for vcpu in range(slots.vcpus) if slots.state(vcpu) == lib.XD_STATE_RESP_READY]:
        for vcpu in answered:
            server.channels.notify(vcpu)
        if time.monotonic() >= deadline:
            return
        time.sleep(_LOOK_SECONDS)


def stop(server: IoreqServer, loop: ServeLoop, traps: WriteTraps, engine: Engine) -> None:
    """Take everything down, in the order that keeps the guest safe, whatever fails meanwhile.

    No store may be lost, and no vCPU may be left waiting. So requests are served for as long as any may come: while
    frames become RAM, while guard ranges go, and once more after Xen has been told to send none.

    Raises the error of the first step that failed.
    """

    def unprotect() -> None:
        for _ in loop.rounds():
            if loop.complete(traps.unprotect_all()):
                return

    def drop_guard_ranges() -> None:
        for _ in loop.rounds():
            if traps.drop_guard_ranges():
                return

    def have_answers_taken() -> None:
        for _ in loop.rounds():
            if server.slots.all_taken():
                return

    def release_claim() -> None:
        server.release_claim()
        traps.claim_released()

    attempt = BestEffort()
    attempt(engine.abandon)  # what is under way ends early; its stores to guest memory are performed
    attempt(traps.refuse_new)
    attempt(unprotect)  # as stores to the frames end, for a second at most
    attempt(traps.unprotect_by_force)  # then whatever is left
    attempt(drop_guard_ranges)
    attempt(release_claim)
    attempt(server.disable)  # from here on nothing new comes
    attempt(loop.answer_all)
    attempt(have_answers_taken)
    attempt.once(server.channels.unbind)
    attempt.once(server.unmap_slots)
    attempt(server.destroy)
    attempt.once(engine.close)  # the last answer may have needed its mappings
    attempt.finish()


def leave(server: IoreqServer, engine: Engine) -> None:
    """Leave a predecessor's server, which we could not adopt, to the next successor. Raises the first error."""
    attempt = BestEffort()
    attempt.once(server.channels.unbind)
    attempt.once(server.unmap_slots)
    attempt.once(engine.close)
    attempt.finish()


@contextmanager
def _marking_an_orderly_end(stats: StatsPage) -> Iterator[StatsPage]:
    """Marks the stats page at the end, if the daemon stops in order or because its domain is gone."""
    try:
        yield stats
    except DomainGoneError:
        stats.end()
        raise
    stats.end()
