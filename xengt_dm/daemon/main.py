"""The composition root: the only place that knows all rooms and wires them.

    port -> server -> (ports) -> bus -> device -> engine -> protection -> port

:func:`open_instance` builds one device model on one domain and takes it down again in the order that keeps the guest
safe: stop protecting, let go of what is protected, release the type while still answering, disable, answer what is
left, destroy. :func:`run` is the daemon around it: the serve loop, signals, the domain's end, the control socket.
"""

from __future__ import annotations

import mmap
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from xengt_dm.config.keys import KEYS
from xengt_dm.config.merge import Config
from xengt_dm.control import commands
from xengt_dm.control.server import serve_control
from xengt_dm.daemon.recording import Recording, TraceFile
from xengt_dm.daemon.reload import Running, reload_on_signal
from xengt_dm.errors import DomainGoneError
from xengt_dm.hypervisor.port import DomainPort, WriteTrap
from xengt_dm.ioreq.bar import Bar
from xengt_dm.ioreq.bus import Bus
from xengt_dm.ioreq.server import IdRecord, IoreqServer, open_server
from xengt_dm.log.guest_events import GuestLog
from xengt_dm.log.log import get_logger
from xengt_dm.ppgtt.engine import Engine, Sync
from xengt_dm.run_dir.directory import open_directory
from xengt_dm.run_dir.server_id import ServerIdFile
from xengt_dm.service.notify import Notifier
from xengt_dm.service.watchdog import Progress, feed_watchdog
from xengt_dm.stats.page import StatsPage
from xengt_dm.stats.table import log_events
from xengt_dm.traps.claim import ClaimProtection
from xengt_dm.traps.protection import Protection
from xengt_dm.traps.ranges import RangeProtection
from xengt_dm.traps.retry import released
from xengt_dm.units import PAGE_SHIFT
from xengt_dm.vgpu.device import Vgpu
from xengt_dm.vgpu.registers import BAR0_SIZE, NO_GRAPHICS_MEMORY, GraphicsMemory
from xengt_dm.vgpu.state import SIZE, DeviceState

DEFAULT_BAR0 = int(KEYS["device.bar0_gpa"].default)
DEFAULT_MAX_TABLES = int(KEYS["shadow.max_tables"].default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one device model is to be. ``bar0`` is a gpa, a multiple of its size, outside the domain's RAM."""

    bar0: int = DEFAULT_BAR0
    generation: int = 8
    sync: Sync = Sync.STRICT
    max_tables: int = DEFAULT_MAX_TABLES
    graphics: GraphicsMemory = NO_GRAPHICS_MEMORY

    @classmethod
    def from_config(cls, config: Config) -> Settings:
        return cls(
            bar0=config.integer("device.bar0_gpa"),
            generation=config.integer("device.generation"),
            sync=Sync(config.string("shadow.mode")),
            max_tables=config.integer("shadow.max_tables"),
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
    engine: Engine
    device: Vgpu
    bus: Bus
    bar0: Bar
    stats: StatsPage
    protection: Protection

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer requests until cancelled."""
        events = self.server.port.events
        # What a predecessor began and what came before the ports were bound raises no event any more.
        self.server.answer_waiting(adopt=True)
        task_status.started()
        while True:
            await trio.lowlevel.wait_readable(events.fd)
            self.stats.pointer.wakeups += 1
            self.server.service()

    def tell_stats(self) -> None:
        """What the stats page says beyond counts."""
        self.stats.describe(
            vcpus=self.server.vcpus,
            generation=self.settings.generation,
            max_tables=self.settings.max_tables,
            relaxed=self.engine.sync_mode is Sync.RELAXED,
            quiesced=self.engine.quiesced,
        )


class NoRecord:
    """For a server that nobody is to adopt: its domain ends with this process."""

    def read(self) -> int | None:
        return None

    def write(self, server: int) -> None: ...

    def clear(self) -> None: ...


#: How frames are protected, by what the hypervisor offers.
PROTECTIONS: Mapping[WriteTrap, type[Protection]] = {
    WriteTrap.CLAIM: ClaimProtection,
    WriteTrap.RANGES: RangeProtection,
}


@contextmanager
def open_instance(
    port: DomainPort,
    settings: Settings,
    *,
    record: IdRecord | None = None,
    directory: Path | None = None,
    protections: Mapping[WriteTrap, type[Protection]] = PROTECTIONS,
) -> Iterator[Instance]:
    """A device model on ``port``'s domain, from its registration to its last answer.

    ``directory`` takes the stats page; without one it is private. Raises HostError.
    """
    stats = StatsPage(directory, port.domid)
    with ExitStack() as stack:
        stack.push(_say_farewell(stats))
        counters = stats.counters
        after_server = stack.enter_context(ExitStack())
        server = stack.enter_context(open_server(port, record or NoRecord(), counters))
        protection = protections[port.write_trap](port, server.id, server.frames_in_flight)
        if port.stores_must_end:
            protection.latest = server.latest_frames
        protection.inherit(server.inherited)
        engine = Engine(
            protection,
            protection,
            counters,
            frame_limit=port.frame_limit,
            generation=settings.generation,
            sync=settings.sync,
            max_tables=settings.max_tables,
        )
        after_server.callback(engine.close)
        if server.adopted:
            _adopt_ranges(protection, port.frame_limit, settings.bar0)
        server.after_answers = partial(_retry_unsync, server, engine, protection)
        device = Vgpu(
            engine,
            DeviceState.create(_fresh_memory()),
            generation=settings.generation,
            vgt_id=port.domid + 1,
            graphics=settings.graphics,
        )
        device.reset()
        bus = Bus(engine, counters)
        bar0 = Bar(bus, device, BAR0_SIZE, port, server)
        bar0.map(settings.bar0, adopted=server.adopted)
        stack.callback(released, server.answer_until, protection.uncover)
        stack.callback(released, protection.release)
        stack.callback(released, server.answer_until, protection.wind_down)
        server.bind(bus.handle)
        instance = Instance(settings, server, engine, device, bus, bar0, stats, protection)
        instance.tell_stats()
        yield instance


def _retry_unsync(server: IoreqServer, engine: Engine, protection: Protection) -> bool:
    retries = protection.take_retries()
    if retries:
        server.await_taken()
        for gfn in retries:
            engine.unsync(gfn)
    return bool(retries)


def _say_farewell(stats: StatsPage) -> Callable[[type[BaseException] | None, object, object], bool]:
    def end(kind: type[BaseException] | None, error: object, traceback: object) -> bool:
        if kind is None or issubclass(kind, DomainGoneError):
            stats.end()
        return False

    return end


def _adopt_ranges(protection: Protection, frame_limit: int, bar0: int) -> None:
    """Every range of the predecessor but BAR0's."""
    first = min(bar0 >> PAGE_SHIFT, frame_limit)
    protection.adopt(0, first - 1)
    protection.adopt(first + (BAR0_SIZE >> PAGE_SHIFT), frame_limit - 1)


def _fresh_memory() -> memoryview:
    """Zeros for the state of a device; private and in small pages, so that an untouched page costs nothing."""
    memory = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memoryview(memory)


async def _stop_on_signal(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            get_logger().info("daemon.stopping", reason=signal.Signals(number).name)
            scope.cancel()


async def _watch_domain(instance: Instance, running: Running, recording: Recording, scope: trio.CancelScope) -> None:
    """End when the domain does, which raises no event on our channels. At each look, do what has time: give back the
    frames that the guest gave back, write down what was recorded.
    """
    server = instance.server
    guest_log = GuestLog(instance.stats.counters, log_events())
    with ExitStack() as stack:
        stack.callback(guest_log.flush)
        stack.callback(guest_log.look)
        while True:
            await trio.sleep(running.config.integer("domain.check_interval_ms") / 1000)
            instance.tell_stats()
            if not server.port.server_exists(server.id):
                get_logger().info("daemon.stopping", reason="domain gone")
                scope.cancel()
                return
            instance.engine.settle()
            instance.protection.settle()
            recording.flush()
            guest_log.look()


async def _run(instance: Instance, control: Path, running: Running, recording: Recording, notifier: Notifier) -> None:
    server, settings = instance.server, instance.settings
    domid = server.port.domid
    try:
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope

            await nursery.start(_stop_on_signal, scope)
            await nursery.start(reload_on_signal, running, instance.engine)
            await nursery.start(instance.serve)
            nursery.start_soon(_watch_domain, instance, running, recording, scope)
            target = commands.Target(
                server, instance.engine, instance.protection, recording, scope.cancel, time.monotonic()
            )
            await nursery.start(serve_control, control, commands.handlers(target))
            get_logger().info(
                "daemon.serving",
                domid=domid,
                server=server.id,
                vcpus=server.vcpus,
                bar0=hex(settings.bar0),
                mode=settings.sync.value,
                generation=settings.generation,
            )
            notifier.ready(f"serving domain {domid} with {server.vcpus} vCPUs, {settings.sync.value}")
            wakeups = partial(getattr, instance.stats.pointer, "wakeups")
            nursery.start_soon(feed_watchdog, notifier, Progress(server.waiting, wakeups))
    except* DomainGoneError:
        get_logger().info("daemon.stopping", reason="domain gone")
    finally:
        notifier.stopping()


def run(
    port: DomainPort,
    running: Running,
    base: Path,
    notifier: Notifier | None = None,
    record_to: TraceFile | None = None,
) -> None:
    """Serve a domain until SIGTERM, SIGINT, a request to stop, or its end; on SIGHUP, reload the configuration.

    ``notifier``: to tell a service manager; without one it is told nothing. ``record_to``: record from the start.
    Raises HostError, maybe in a group.
    """
    directory = open_directory(base, port.domid)
    record = ServerIdFile(directory)
    settings = Settings.from_config(running.config)
    with suppress(DomainGoneError), open_instance(port, settings, record=record, directory=directory) as instance:
        recording = Recording(instance.engine, instance.device, instance.bus, port.frame_limit)
        with closing(recording):
            if record_to is not None:
                recording.start(record_to)
            trio.run(_run, instance, directory / "control.sock", running, recording, notifier or Notifier({}))
