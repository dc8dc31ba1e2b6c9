"""What a guest causes, in the log."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from xengt_dm._core import ffi
from xengt_dm.log import log
from xengt_dm.log.guest_events import FLUSH_SECONDS, GuestLog
from xengt_dm.log.ratelimit import BURST, SECONDS_EACH
from xengt_dm.stats.table import log_events


@pytest.fixture(name="logged")
def fixture_logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log.configure(3, stream=stream)
    log.get_limited_logger().flush()
    stream.truncate(0)
    stream.seek(0)
    yield stream
    log.configure(None)
    log.set_limits(BURST, SECONDS_EACH)


def events(logged: io.StringIO) -> list[tuple[Any, ...]]:
    found = [json.loads(line) for line in logged.getvalue().splitlines()]
    keys = ("event", "level", "new", "total", "of", "suppressed")
    return [tuple(event[key] for key in keys if key in event) for event in found]


def test_growth_is_told_once(logged: io.StringIO) -> None:
    counters = ffi.new("xd_counters *")
    counters.dropped_stores = 5
    guest_log = GuestLog(counters, log_events())
    guest_log.look()
    counters.dropped_stores = 7
    counters.audit_mismatches = 1
    counters.audit_overdue = 3
    guest_log.look()
    guest_log.look()
    assert events(logged) == [
        ("guest.dropped_stores", "warning", 2, 7),
        ("shadow.mismatches", "error", 1, 1),
        ("shadow.overdue", "error", 3, 3),
    ]


def test_every_event_has_its_counter(logged: io.StringIO) -> None:
    counters = ffi.new("xd_counters *")
    guest_log = GuestLog(counters, log_events())
    for counter, _, _ in log_events():
        setattr(counters, counter, 1)
    guest_log.look()
    assert [event[:2] for event in events(logged)] == [(event, level) for _, event, level in log_events()]


def test_a_guest_cannot_flood_and_what_was_held_back_is_told(logged: io.StringIO) -> None:
    now = 0.0
    counters = ffi.new("xd_counters *")
    log.set_limits(2, 3600.0)
    guest_log = GuestLog(counters, log_events(), lambda: now)
    for _ in range(100):
        counters.quota_entries += 10
        guest_log.look()
    told = [event for event in events(logged) if event[0] == "guest.quota_entries"]
    assert len(told) <= 2
    now = FLUSH_SECONDS
    guest_log.look()
    assert events(logged)[len(told) :] == [("log.suppressed", "info", "guest.quota_entries", 100 - len(told))]
