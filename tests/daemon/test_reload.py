"""A daemon that reads its configuration again."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.engine_bench import EngineBench
from xengt_dm.config.files import read_setting
from xengt_dm.config.merge import Config, load
from xengt_dm.daemon.reload import Running, reload, reload_on_signal
from xengt_dm.errors import ConfigError
from xengt_dm.log import log
from xengt_dm.log.ratelimit import BURST, SECONDS_EACH
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.steps import Steps, complete


class Instance:
    """As much of an instance as follows a configuration."""

    def __init__(self) -> None:
        self.engine = EngineBench().make_engine().steps
        self.loop = self

    async def run(self, work: Steps[None]) -> None:
        complete(work)

    async def set_mode(self, sync: Sync) -> None:
        await self.run(self.engine.set_sync_mode(sync))


@pytest.fixture(name="logged")
def fixture_logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log.configure(None, stream=stream)
    yield stream
    log.configure(None)
    log.set_limits(BURST, SECONDS_EACH)


def events(logged: io.StringIO) -> list[dict[str, object]]:
    found = [json.loads(line) for line in logged.getvalue().splitlines()]
    for event in found:
        del event["timestamp"]
    return found


def test_what_can_change_does_and_the_rest_is_told(logged: io.StringIO) -> None:
    instance = Instance()
    wanted = [read_setting(text) for text in ("shadow.mode=relaxed", "shadow.max_tables=9", "log.burst=1")]
    running = Running(Config([]), lambda: Config(wanted))
    trio.run(reload, running, instance)
    assert instance.engine.sync_mode is Sync.RELAXED
    assert (running.config.string("shadow.mode"), running.config.integer("shadow.max_tables")) == ("relaxed", 65536)
    log.get_limited_logger().info("guest.x")
    log.get_limited_logger().info("guest.x")
    assert events(logged) == [
        {
            "event": "config.needs_restart",
            "level": "warning",
            "key": "shadow.max_tables",
            "holds": "65536",
            "wanted": "9",
            "origin": "--set",
        },
        {
            "event": "config.reloaded",
            "level": "info",
            "changed": {"shadow.mode": "relaxed", "log.burst": 1},
        },
        {"event": "guest.x", "level": "info"},
    ]


def test_a_bad_configuration_changes_nothing(logged: io.StringIO) -> None:
    def bad() -> Config:
        raise ConfigError("f:3: wrong")

    config = Config([])
    running = Running(config, bad)
    trio.run(reload, running, Instance())
    assert running.config is config
    assert events(logged) == [{"event": "config.refused", "level": "error", "reason": "f:3: wrong"}]


def test_the_level_of_the_log_follows(logged: io.StringIO) -> None:
    running = Running(Config([]), lambda: Config([read_setting("log.level=error")]))
    trio.run(reload, running, Instance())
    log.get_logger().warning("a.b")
    log.get_logger().error("c.d")
    assert [event["event"] for event in events(logged)] == ["c.d"]


def test_what_an_operator_switched_stays_while_the_files_do(logged: io.StringIO) -> None:
    instance = Instance()
    complete(instance.engine.set_sync_mode(Sync.RELAXED))
    trio.run(reload, Running(Config([]), lambda: Config([])), instance)
    assert instance.engine.sync_mode is Sync.RELAXED
    assert events(logged) == [{"event": "config.reloaded", "level": "info", "changed": {}}]


@pytest.mark.parametrize(
    "text",
    [
        "[shadow]\nmax_tables = " + "9" * 990,
        "shadow.max_tables = 0x" + "f" * 900,
        "x = " + "[\n" * 15_000 + "]\n" * 15_000,
        "x = " + "[" * 3000 + "]" * 3000,
        "[shadow]\nmax_tables = " + "9" * 5000,
        "a" + ".a" * 40_000 + " = 1\n",
        "[shadow",
    ],
    ids=["digits", "hexadecimal", "nested", "one long line", "many digits", "dots", "grammar"],
)
def test_a_file_of_any_kind_is_refused_while_running(tmp_path: Path, logged: io.StringIO, text: str) -> None:
    running = Running(load(tmp_path), lambda: load(tmp_path))
    (tmp_path / "xengt-dm.toml").write_text(text)
    before = running.config

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(reload_on_signal, running, Instance())
            os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(30):
                while not logged.getvalue():
                    await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert [event["event"] for event in events(logged)] == ["config.refused"]
    assert running.config is before


def test_the_guest_is_served_while_a_file_is_read(logged: io.StringIO) -> None:
    """The reader waits for the loop, which it could not if it ran in the loop."""
    reading, served = threading.Event(), threading.Event()

    def read_again() -> Config:
        reading.set()
        assert served.wait(30)
        return Config([read_setting("log.burst=1")])

    running = Running(Config([]), read_again)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(reload_on_signal, running, Instance())
            os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(60):
                while not reading.is_set():
                    await trio.testing.wait_all_tasks_blocked(0.01)
                served.set()
                while not logged.getvalue():
                    await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert running.config.integer("log.burst") == 1
