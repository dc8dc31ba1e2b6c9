"""On SIGHUP a daemon reads its configuration again, applies what can change while it runs, and logs the rest."""

from __future__ import annotations

import signal
from collections.abc import Callable

import trio

from xengt_dm.config.files import Assignment
from xengt_dm.config.keys import show
from xengt_dm.config.merge import Config
from xengt_dm.errors import ConfigError
from xengt_dm.instance import Instance
from xengt_dm.log import log
from xengt_dm.ppgtt.engine import Sync


class Running:
    """The configuration in effect, and ``read_again``, which reads its files and options again.

    ``read_again`` raises ConfigError.
    """

    def __init__(self, config: Config, read_again: Callable[[], Config]) -> None:
        self.config = config
        self.read_again = read_again


async def reload_on_signal(running: Running, instance: Instance, *, task_status: trio.TaskStatus[None]) -> None:
    """Reads the configuration again at each SIGHUP, until cancelled. Raises CallError."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                # In a thread: the loop that waits here also serves the guest.
                new = await trio.to_thread.run_sync(running.read_again)
            except ConfigError as error:
                _refuse(error)
            else:
                await _change_to(new, running, instance)


async def reload(running: Running, instance: Instance) -> None:
    """Reads the configuration again and applies it as far as possible. A bad one changes nothing. Raises CallError."""
    try:
        new = running.read_again()
    except ConfigError as error:
        _refuse(error)
    else:
        await _change_to(new, running, instance)


def _refuse(error: ConfigError) -> None:
    log.get_logger().error("config.refused", reason=str(error))


async def _change_to(new: Config, running: Running, instance: Instance) -> None:
    logger = log.get_logger()
    followed = []
    for old, wanted in running.config.changes(new):
        if not wanted.key.reloadable:
            logger.warning(
                "config.needs_restart",
                key=wanted.key.name,
                holds=show(old.key, old.value),
                wanted=show(wanted.key, wanted.value),
                origin=wanted.origin,
            )
            continue
        followed.append(wanted)
    running.config = running.config.replaced(followed)
    await _follow(followed, running.config, instance)
    logger.info("config.reloaded", changed={each.key.name: each.value for each in followed})


async def _follow(followed: list[Assignment], config: Config, instance: Instance) -> None:
    names = {each.key.name for each in followed}
    if "shadow.mode" in names:
        await instance.set_mode(Sync(config.string("shadow.mode")))
    if "log.level" in names:
        log.set_level(config.string("log.level"))
    if names & {"log.burst", "log.interval_ms"}:
        log.set_limits(config.integer("log.burst"), config.integer("log.interval_ms") / 1000)
