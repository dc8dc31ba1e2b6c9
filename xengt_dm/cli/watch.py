"""``xengt-dm watch``."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import click
import trio

from xengt_dm.cli.options import config_dir_option
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.log import log
from xengt_dm.run_dir.directory import instance_domids, remove_directory
from xengt_dm.service import instances
from xengt_dm.service.notify import Notifier
from xengt_dm.service.watch import Store, Watcher, watch
from xengt_dm.xenstore import XenStore


@click.command("watch")
@config_dir_option
@run_dir_option
def command(config_dir: Path, base: Path) -> None:
    """Start an instance for each domain that has a configuration file, and stop the instances of domains that ended.

    A domain that `xengt-dm create` launched gets its instance again, with the same options, when its guest reboots. A
    file that is added later, or a domain that is renamed, is noticed within some seconds. Runs until SIGTERM; the
    instances keep running after that. Must run in the control domain as root.
    """
    log.configure(domid=None)
    starter = instances.starter()

    def forget(domid: int) -> None:
        instances.forget(domid)
        remove_directory(base, domid)

    with closing(Notifier()) as notifier:
        store = XenStore()
        watcher = Watcher(store, starter, config_dir, lambda: set(instance_domids(base)), forget)
        trio.run(_run, store, watcher, notifier)


async def _run(store: Store, watcher: Watcher, notifier: Notifier) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_on_signal, notifier, nursery.cancel_scope)
        await nursery.start(watch, store, watcher, XenStore)
        notifier.ready("watching the host's domains")
        log.get_logger().info("watch.ready")


async def _stop_on_signal(notifier: Notifier, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            notifier.stopping()
            scope.cancel()
