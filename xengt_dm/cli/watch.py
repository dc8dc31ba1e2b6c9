"""``xengt-dm watch``."""

from __future__ import annotations

import signal
from contextlib import closing
from functools import partial
from pathlib import Path

import click
import trio

from xengt_dm.cli.client import run_dir_option
from xengt_dm.cli.options import config_dir_option
from xengt_dm.log import log
from xengt_dm.service import instances
from xengt_dm.service.notify import Notifier
from xengt_dm.service.watch import Watcher, watch
from xengt_dm.xenstore import XenStore


@click.command("watch")
@config_dir_option
@run_dir_option
def command(config_dir: Path, base: Path) -> None:
    """Start an instance for each domain of this host that has a configuration file, and stop those of domains gone.

    Runs until SIGTERM; the instances keep running after that. Must run in the control domain as root.
    """
    log.configure(domid=None)
    starter = instances.starter()
    with closing(Notifier()) as notifier, XenStore() as store:
        watcher = Watcher(store, starter, config_dir, partial(_serving, base), instances.forget)
        trio.run(_run, store, watcher, notifier)


def _serving(base: Path) -> set[int]:
    """The domains whose instance has a directory."""
    try:
        return {int(entry.name) for entry in base.iterdir() if entry.name.isdecimal()}
    except FileNotFoundError:
        return set()


async def _run(store: XenStore, watcher: Watcher, notifier: Notifier) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(watch, store, watcher)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            notifier.ready("watching the host's domains")
            log.get_logger().info("watch.ready")
            async for _ in signals:
                notifier.stopping()
                nursery.cancel_scope.cancel()
                return
