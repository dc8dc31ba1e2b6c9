"""The daemon: the process of one instance, and the tasks that run beside its serve loop.

These tasks handle signals, serve the control socket, notify the watchdog, and check at intervals whether the domain
still exists. What an instance is, and how it starts and stops, is in :mod:`xengt_dm.instance`.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import trio

from xengt_dm.config.keys import KEYS, show
from xengt_dm.control import commands
from xengt_dm.control.server import serve_control
from xengt_dm.daemon.pace import Pace
from xengt_dm.daemon.recording import Bounds, Recording, TraceFile, check_recordable
from xengt_dm.daemon.reload import Running, reload_on_signal
from xengt_dm.errors import DomainGoneError, ExitCode
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.instance import Instance, open_instance
from xengt_dm.log.guest_events import GuestLog
from xengt_dm.log.log import get_logger
from xengt_dm.run_dir.directory import open_directory
from xengt_dm.run_dir.owner import user_of
from xengt_dm.run_dir.ranges import RangesFile
from xengt_dm.run_dir.server_id import ServerIdFile
from xengt_dm.service.backoff import SETTLED_SECONDS, delay
from xengt_dm.service.notify import Notifier
from xengt_dm.service.watchdog import Progress, feed_watchdog
from xengt_dm.settings import Settings
from xengt_dm.state.file import open_state
from xengt_dm.stats.table import log_events


async def _stop_on_signal(instance: Instance, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            get_logger().info("daemon.stopping", reason=signal.Signals(number).name)
            instance.keep()
            scope.cancel()


async def _watch_domain(instance: Instance, running: Running, recording: Recording, scope: trio.CancelScope) -> None:
    """Ends the daemon when the domain is gone, which no event channel reports.

    Each check also does work that is not urgent: it unmaps pages that the guest gave back, tries deferred unprotects
    again, passes recorded events to the writer, and logs counters that have grown.
    """
    server = instance.server
    guest_log = GuestLog(instance.stats.counters, log_events())
    pace = Pace(instance.loop)
    unfinished = True
    with ExitStack() as stack:
        stack.callback(guest_log.flush)
        stack.callback(guest_log.look)
        while True:
            interval = running.config.integer("domain.check_interval_ms") / 1000
            await trio.sleep(pace.pause(interval, unfinished=unfinished))
            instance.tell_stats()
            if not server.exists():
                get_logger().info("daemon.stopping", reason="domain gone")
                scope.cancel()
                return
            await instance.loop.run(instance.engine.settle())
            unfinished = not instance.traps.unprotect_deferred() or recording.name is not None
            await instance.loop.run(recording.look())
            guest_log.look()


async def _forget_deaths(instance: Instance) -> None:
    """Resets the count of deaths in a row when this daemon has served for SETTLED_SECONDS."""
    await trio.sleep(SETTLED_SECONDS)
    instance.life.deaths = 0


async def _take_up(instance: Instance) -> None:
    if not await instance.take_up():
        get_logger().warning("state.not_rebuilt", spaces=instance.engine.counters.spaces)


async def _run(instance: Instance, control: Path, running: Running, recording: Recording, notifier: Notifier) -> None:
    server, settings = instance.server, instance.settings
    domid = server.port.domid
    vcpus = server.slots.vcpus
    # Facts: a full garbage collection looks at every object, and the vCPUs wait meanwhile. What exists now stays until
    # the end. What we do: exclude it from collections. A collection before that would take 9 million instructions of
    # the start and free almost nothing.
    gc.freeze()
    try:
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope

            await nursery.start(_stop_on_signal, instance, scope)
            await nursery.start(reload_on_signal, running, instance)
            await nursery.start(instance.loop.serve)
            unserved = instance.end_of_handover()
            nursery.start_soon(_take_up, instance)
            nursery.start_soon(_watch_domain, instance, running, recording, scope)
            target = commands.Target(
                instance,
                recording,
                scope.cancel,
                time.monotonic(),
                bounds=lambda: Bounds.from_config(running.config),
                unserved=unserved,
            )
            try:
                await nursery.start(serve_control, control, commands.handlers(target))
            except BaseException:
                instance.leave_adopted()
                raise
            get_logger().info(
                "daemon.serving",
                domid=domid,
                server=server.id,
                vcpus=vcpus,
                bar0=hex(settings.bar0),
                mode=settings.sync.value,
                generation=settings.generation,
            )
            notifier.ready(f"serving domain {domid} with {vcpus} vCPUs, {settings.sync.value}")
            nursery.start_soon(feed_watchdog, notifier, Progress(instance.loop))
            nursery.start_soon(_forget_deaths, instance)
    except* DomainGoneError:
        get_logger().info("daemon.stopping", reason="domain gone")
    finally:
        if instance.handed_over:
            notifier.status("leaving the domain to a successor")
        else:
            notifier.stopping()


def _tell_refusal(problem: str) -> None:
    get_logger().warning("state.refused", reason=problem)


def _tell_adoption(instance: Instance, wanted: Settings) -> None:
    """Logs that a predecessor's state is used, and which configured values it overrides."""
    if not instance.found.kept:
        return
    held, logger = instance.settings, get_logger()
    spaces = len(instance.engine.spaces)
    logger.info("state.kept", mode=held.sync.value, quiesced=instance.engine.quiesced, spaces=spaces)
    for name, holds, configured in (
        ("device.bar0_gpa", held.bar0, wanted.bar0),
        ("device.generation", held.generation, wanted.generation),
        ("shadow.max_spaces", held.max_spaces, wanted.max_spaces),
    ):
        if holds != configured:
            key = KEYS[name]
            logger.warning("state.overrides", key=name, holds=show(key, holds), wanted=show(key, configured))


def run(
    port: DomainPort,
    running: Running,
    base: Path,
    notifier: Notifier | None = None,
    record_to: TraceFile | None = None,
    uuid: str | None = None,
    *,
    backoff: bool = False,
) -> ExitCode:
    """Serve a domain until SIGTERM, SIGINT, a request to stop, or its end; on SIGHUP, reload the configuration.

    Returns HANDOVER after a request to upgrade: then the domain is left to a successor. Returns OK otherwise.
    ``notifier``: the connection to a service manager; None if there is none. ``record_to``: record from the start.
    ``uuid``: the domain's, so that records of an earlier domain with this id are ignored. ``backoff``: wait before
    serving if earlier daemons died soon after their start (:mod:`xengt_dm.service.backoff`). Raises CallError, maybe in
    a group, BusyError if another daemon serves the domain, and OSError.
    """
    directory = open_directory(base, port.domid)
    record, older = ServerIdFile(directory, uuid), RangesFile(directory)
    settings = Settings.from_config(running.config)
    notifier = notifier or Notifier({})

    def wait(deaths: int) -> None:
        seconds = delay(deaths) if backoff else 0.0
        if seconds:
            get_logger().warning("daemon.waiting", deaths=deaths, seconds=seconds)
            notifier.status(f"waits {seconds:g} s before it serves: {deaths} daemons in a row died soon")
            time.sleep(seconds)

    state = open_state(directory, port.domid, {os.geteuid(), user_of(port.domid)}, uuid)
    opening = open_instance(
        port,
        settings,
        record=record,
        store=state,
        left_ranges=older.read,
        refused=_tell_refusal,
        backoff=wait,
        directory=directory,
    )
    handed_over = False
    with suppress(DomainGoneError), state, ExitStack() as written, opening as instance:
        older.clear()  # from here on the ranges are in the state
        _tell_adoption(instance, settings)
        recording = Recording(instance.engine, instance.device, instance.bus, port.frame_limit, instance.life)
        written.callback(recording.close)  # waits for the file, after the instance has stopped
        try:
            if record_to is not None:
                check_recordable(instance.gpu)
                recording.start(record_to, Bounds.from_config(running.config))
            trio.run(_run, instance, directory / "control.sock", running, recording, notifier)
        finally:
            recording.end()
            handed_over = instance.handed_over
            if handed_over:
                written.pop_all()  # do not wait for the file, because a vCPU may wait for the successor
    return ExitCode.HANDOVER if handed_over else ExitCode.OK
