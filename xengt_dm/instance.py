"""One device model on one domain: what it is made of, and how it starts, adopts and stops.

    guest -> Xen -> slots -> loop -> bus -> device -> engine -> traps -> Xen
                                      \\-> engine

:func:`open_instance` makes the parts in the order in which they need each other; each gets what it needs in its
constructor, and none is told later of another. :func:`start`, :func:`.adoption.adopt` and :func:`.ending.stop` are
the three orders in which things happen in the hypervisor, each to be read from top to bottom; after
:meth:`Instance.hand_over`, :func:`.ending.leave` takes the place of the last. What a successor must know is in
the instance's state (:mod:`xengt_dm.state.layout`), on which the parts are made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from xengt_dm._core import ffi, lib
from xengt_dm.adoption import (
    MOST_OTHERS,
    MOST_PROTECTED,
    Found,
    adopt,
    adopt_without_state,
    find_state,
    server_of_state,
)
from xengt_dm.ending import leave, stop
from xengt_dm.errors import BusyError, DomainGoneError
from xengt_dm.gpu import Gpu, make_gpu
from xengt_dm.hypervisor.port import DomainPort, WriteTrap
from xengt_dm.ioreq.bar import Bar
from xengt_dm.ioreq.bus import Bus
from xengt_dm.ioreq.foreign import is_foreign
from xengt_dm.ioreq.journal import Journal
from xengt_dm.ioreq.loop import ROUND_SECONDS, ROUNDS_SECONDS, ServeLoop
from xengt_dm.ioreq.quick import Quick
from xengt_dm.ioreq.ranges import Range, RangeKind, RangeRecord, RangesRegion
from xengt_dm.ioreq.server import IdRecord, IoreqServer, NoIdRecord, attach, left_server
from xengt_dm.ioreq.slots import Slots
from xengt_dm.ppgtt.engine import Engine, Sync
from xengt_dm.ppgtt.space import LiveSpaces
from xengt_dm.settings import Settings
from xengt_dm.state.layout import Capacities
from xengt_dm.state.life import Life
from xengt_dm.state.store import PrivateStore, StateStore
from xengt_dm.stats.page import StatsPage
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.traps.protected import ProtectedBitmap, ProtectedRecord
from xengt_dm.traps.ranges import RangeTraps
from xengt_dm.traps.write_traps import WriteTraps
from xengt_dm.vgpu.registers import BAR0_SIZE
from xengt_dm.vgpu.state import DeviceState

MOST_REBUILDS: Final = 5
_NANOSECOND: Final = 1e-9

#: How frames are write-protected, by what the hypervisor offers.
TrapsMaker = Callable[[DomainPort, int, Slots, RangeRecord, ProtectedRecord], WriteTraps]
WRITE_TRAPS: Final[Mapping[WriteTrap, TrapsMaker]] = {
    WriteTrap.CLAIM: ClaimTraps,
    WriteTrap.RANGES: RangeTraps,
}


class Instance:
    """A device model that serves. ``found``: its state, and whether a predecessor left it."""

    def __init__(
        self,
        settings: Settings,
        server: IoreqServer,
        traps: WriteTraps,
        engine: Engine,
        gpu: Gpu,
        bus: Bus,
        loop: ServeLoop,
        stats: StatsPage,
        found: Found,
    ) -> None:
        self.settings: Final = settings
        self.server: Final = server
        self.traps: Final = traps
        self.engine: Final = engine
        self.gpu: Final = gpu
        self.device: Final = gpu.device
        self.bar0: Final = gpu.bars[0]
        self.bus: Final = bus
        self.loop: Final = loop
        self.stats: Final = stats
        self.found: Final = found
        self._one_at_a_time = trio.Lock()

    @property
    def life(self) -> Life:
        """The part of the state that is not the device's."""
        return self.found.state.life

    def tell_stats(self) -> None:
        """Writes the values of the stats page that are no counters."""
        self.stats.describe(
            vcpus=self.server.slots.vcpus,
            generation=self.settings.generation,
            max_tables=self.settings.max_tables,
            relaxed=self.engine.sync_mode is Sync.RELAXED,
            quiesced=self.engine.quiesced,
        )

    @property
    def quiesced(self) -> bool:
        """Whether a quiesce is complete."""
        return self.engine.quiesced and not self.life.claimed

    async def quiesce(self) -> bool:
        """Unprotects every frame and releases the claim, so that the domain can be saved. The device still answers.

        The serve loop must be running, because a frame that a vCPU is storing to is unprotected only when the store is
        over. Returns False if that takes longer than :data:`ROUNDS_SECONDS`. Then some frames stay protected and the
        claim is kept, since its release in the middle of a store may crash the guest (:mod:`xengt_dm.traps.state`);
        another call continues. Does nothing if the instance is quiesced. Raises CallError, and BusyError while an
        engine executes; then nothing has changed.
        """
        async with self._one_at_a_time:
            if not self.engine.quiesced and self.gpu.engines is not None and self.gpu.engines.busy:
                raise BusyError("an engine of the GPU executes; when the guest uses it no more, quiesce again")
            return self.quiesced or await self._quiesce()

    async def _quiesce(self) -> bool:
        self.loop.halt_device()  # what is submitted from here on waits
        self.life.quiesced = True  # first, so that a successor completes the quiesce
        await self.loop.run(self.engine.quiesce())
        await self.loop.run(self.traps.unprotect_adopted())
        end = trio.current_time() + ROUNDS_SECONDS
        while not self.traps.unprotect_deferred():
            if trio.current_time() >= end:
                return False
            await trio.sleep(ROUND_SECONDS)  # no event tells that a store is over
        self.traps.drop_guard_ranges()
        self.server.release_claim()
        self.traps.claim_released()
        return True

    async def resume(self) -> bool:
        """Claims again, and shadows the spaces that are live by now; ends :meth:`quiesce`.

        Returns False if frames had to be protected and not one of them could be. Raises HostError if the claim is
        refused. In both cases the instance stays quiesced. Raises DomainGoneError.
        """
        async with self._one_at_a_time:
            if not self.engine.quiesced:
                return True
            self.server.claim()
            self.life.quiesced = False
            counters = self.engine.counters
            refused = counters.unprotectable_entries
            await self.loop.run(self.engine.resume())
            if counters.protected_pages or counters.unprotectable_entries == refused:
                if self.gpu.engines is not None:
                    self.gpu.engines.proceed()
                return True
            await self._quiesce()
            return False

    async def set_mode(self, sync: Sync) -> None:
        """Sets the mode of the shadows, for this instance and its successors. Raises CallError."""
        self.life.relaxed = sync is Sync.RELAXED
        await self.loop.run(self.engine.set_sync_mode(sync))

    def hand_over(self) -> None:
        """Has this instance end by :func:`leave` in place of :func:`stop`."""
        self.life.deaths = 0
        self.life.left_at = lib.xd_now()
        self.server.owned = False

    def leave_adopted(self) -> None:
        """Has this instance end by :func:`leave` if it took over what a predecessor left: another one may do better."""
        self.server.owned = self.server.owned and not self.server.adopted

    def keep(self) -> None:
        """Undoes :meth:`hand_over`. Does nothing if it was not called."""
        self.life.left_at = 0
        self.server.owned = True

    @property
    def handed_over(self) -> bool:
        """Whether a successor is to take over the server as it is."""
        return not self.server.owned

    def end_of_handover(self) -> float | None:
        """Returns for how many seconds no daemon has served, if the predecessor handed over; None otherwise.

        Must be called once, as soon as requests are served.
        """
        left_at, self.life.left_at = self.life.left_at, 0
        return max(lib.xd_now() - left_at, 0) * _NANOSECOND if left_at else None

    async def take_up(self) -> bool:
        """Completes an adoption while requests are served: builds the shadows, and unprotects what they do not need.

        If the predecessor was quiesced, completes that instead. Returns False if :data:`MOST_REBUILDS` daemons in a row
        died while they built the shadows. Then each space is shadowed at its next submission: a submission is a
        request, and a request that kills several daemons is given up. Raises CallError.
        """
        life = self.life
        life.adoptions = 0  # this daemon serves
        if not self.found.kept:
            return True
        async with self._one_at_a_time:
            if self.engine.quiesced:
                await self._quiesce()
                return True
            again = life.rebuilds < MOST_REBUILDS
            if again:
                life.rebuilds += 1
                await self.loop.run(self.engine.rebuild())
            life.rebuilds = 0
            await self.loop.run(self.traps.unprotect_adopted())
            return again


@contextmanager
def open_instance(
    port: DomainPort,
    settings: Settings,
    *,
    record: IdRecord | None = None,
    store: StateStore | None = None,
    ranges: RangeRecord | None = None,
    left_ranges: Callable[[], list[Range] | None] = lambda: None,
    refused: Callable[[str], None] = lambda problem: None,
    backoff: Callable[[int], None] = lambda deaths: None,
    directory: Path | None = None,
    write_traps: Mapping[WriteTrap, TrapsMaker] = WRITE_TRAPS,
) -> Iterator[Instance]:
    """A device model on ``port``'s domain, from its registration to its last answer.

    ``record`` and ``store`` outlive this process, so that a successor can adopt the server and use the state; without
    them no successor can. ``left_ranges`` returns the ranges of a predecessor that kept no state, None if they are not
    on record. ``refused`` is called with the reason if a predecessor's state is not used. ``backoff`` is called with
    the number of daemons that died in a row, and may wait. ``ranges``: where they are recorded in place of the state.
    ``directory`` takes the stats page; without one the page is private. Raises CallError, OSError.
    """
    record, store = record or NoIdRecord(), store or PrivateStore()
    with _marking_an_orderly_end(StatsPage(directory, port.domid), record) as stats:
        make_traps = write_traps[port.write_trap]  # raises HostError if Xen does not show every store
        left = left_server(port, record)
        if left is None:
            left = server_of_state(port, store, settings.bar0)
        most_protected = MOST_PROTECTED * settings.max_tables + MOST_OTHERS
        found = find_state(store, left, Capacities(port.frame_limit, settings.max_spaces), most_protected)
        if left is not None and not found.kept and not record.certain:
            bar0 = Range(RangeKind.MEMORY, settings.bar0, settings.bar0 + BAR0_SIZE - 1)
            if is_foreign(port, left, next(iter(left_ranges() or [bar0]))):
                found = found._replace(problem=f"ioreq server {left}, which is on record, is not ours")
                left = None
        state = found.state
        if found.problem is not None:
            stats.counters.refused_states += 1
            refused(found.problem)
        if state.life.deaths:
            backoff(state.life.deaths)
        if found.kept:
            settings = settings.continued(state)
        settings.record(state)
        try:
            journal = Journal(state.journal, state.words)
            timing = ffi.addressof(stats.counters, "timing")
            server = attach(port, left, record, ranges or RangesRegion(state.ranges), timing, journal, state.life)
            try:
                instance = _wire(server, settings, stats, make_traps, found, journal)
            except BaseException:
                server.abandon()
                raise
            try:
                bars, fixed, quiesced = instance.gpu.addresses, instance.gpu.fixed_ranges, instance.engine.quiesced
                if found.kept:
                    adopt(server, instance.traps, bars, found.protected, quiesced=quiesced, fixed=fixed)
                    instance.engine.hold_stores()
                elif server.adopted:
                    adopt_without_state(server, instance.traps, bars, left_ranges(), fixed)
                    state.is_of(server.id)
                else:
                    state.is_of(server.id)
                    start(server, bars, fixed)
                instance.tell_stats()
                yield instance
            finally:
                if server.owned:
                    stop(server, instance.loop, instance.traps, instance.engine)
                else:
                    leave(server, instance.loop, instance.engine)
        finally:
            if record.read() is None:  # the server is gone, so there will be no successor
                store.remove()


def _wire(
    server: IoreqServer, settings: Settings, stats: StatsPage, make_traps: TrapsMaker, found: Found, journal: Journal
) -> Instance:
    """Makes the parts of an instance, without any hypercall. Returns the instance."""
    port, state = server.port, found.state
    protected = ProtectedBitmap(state.protected, port.frame_limit, state.life.frames_in_hand)
    traps = make_traps(port, server.id, server.slots, server.ranges, protected)
    engine = Engine(
        traps,
        traps,
        stats.counters,
        frame_limit=port.frame_limit,
        generation=settings.generation,
        sync=settings.sync,
        max_tables=settings.max_tables,
        max_mapped_chunks=settings.max_mapped_chunks,
        spaces=LiveSpaces(settings.max_spaces, state.spaces, journal.changes_of(state.layout["spaces"].offset)),
        quiesced=state.life.quiesced,
    )
    bus = Bus(engine.stores, stats.counters, journal)
    gpu = make_gpu(
        settings.model,
        DeviceState(state.device),
        engine,
        bus,
        server,
        generation=settings.generation,
        graphics=settings.graphics,
        bar0=settings.bar0,
        fresh=not found.kept,
        requests=journal,
    )
    core = ffi.NULL if gpu.engines is None else gpu.engines.pointer
    quick = Quick(bus, engine.stores, engine.submissions, stats.counters, core, journal.pointer)
    loop = ServeLoop(server, bus, journal, traps, stats.pointer, quick, gpu.engines)
    if engine.quiesced:
        loop.halt_device()
    return Instance(settings, server, traps, engine, gpu, bus, loop, stats, found)


def start(server: IoreqServer, bars: Mapping[Bar, int], fixed: Collection[Range] = ()) -> None:
    """Has Xen send requests to a new server. ``bars``: the gpa of each. Raises CallError.

    ``fixed``: ranges of the device that never move, such as a PCI function. They must be on the bus already.
    """
    server.enable()  # Xen writes the numbers of the vCPUs' channels into the slots
    server.claim()
    for bar, address in bars.items():
        bar.map(address)
    for each in fixed:
        server.add_range(each)
    server.channels.bind(range(server.slots.vcpus))


@contextmanager
def _marking_an_orderly_end(stats: StatsPage, record: IdRecord) -> Iterator[StatsPage]:
    """Marks the stats page as ended, if the daemon stops in order or because its domain is gone.

    Does not mark it if the server is left: then the domain needs a successor, and ``xengt_up`` must be 0 until it runs.
    """
    try:
        yield stats
    except DomainGoneError:
        stats.end()
        raise
    if record.read() is None:
        stats.end()
