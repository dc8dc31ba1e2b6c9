"""A daemon that reads its configuration again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest

from tests.support.guest import FakeGuest, make_engine
from xengt_dm.config.files import read_setting
from xengt_dm.config.merge import Config
from xengt_dm.daemon.reload import Running, reload
from xengt_dm.errors import ConfigError
from xengt_dm.log import log
from xengt_dm.log.ratelimit import BURST, SECONDS_EACH
from xengt_dm.ppgtt.engine import Sync


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
    engine = make_engine(FakeGuest())
    wanted = [read_setting(text) for text in ("shadow.mode=relaxed", "shadow.max_tables=9", "log.burst=1")]
    running = Running(Config([]), lambda: Config(wanted))
    reload(running, engine)
    assert engine.sync_mode is Sync.RELAXED
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
    reload(running, make_engine(FakeGuest()))
    assert running.config is config
    assert events(logged) == [{"event": "config.refused", "level": "error", "reason": "f:3: wrong"}]


def test_the_level_of_the_log_follows(logged: io.StringIO) -> None:
    running = Running(Config([]), lambda: Config([read_setting("log.level=error")]))
    reload(running, make_engine(FakeGuest()))
    log.get_logger().warning("a.b")
    log.get_logger().error("c.d")
    assert [event["event"] for event in events(logged)] == ["c.d"]


def test_what_an_operator_switched_stays_while_the_files_do(logged: io.StringIO) -> None:
    engine = make_engine(FakeGuest())
    engine.set_sync_mode(Sync.RELAXED)
    reload(Running(Config([]), lambda: Config([])), engine)
    assert engine.sync_mode is Sync.RELAXED
    assert events(logged) == [{"event": "config.reloaded", "level": "info", "changed": {}}]
