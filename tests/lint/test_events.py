"""The events that the code logs, and those that docs/logs.md describes: the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from xengt_dm.stats.table import log_events

ROOT = Path(__file__).resolve().parents[2]
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
NAME = re.compile(r"[a-z_]+(\.[a-z_]+)+")


def logged() -> Iterator[tuple[str, str, str]]:
    """(event, level, file) of each call of a logger with its event written out."""
    for path in sorted((ROOT / "xengt_dm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), path.name)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            event = node.args[0]
            if node.func.attr in METHODS and isinstance(event, ast.Constant) and isinstance(event.value, str):
                yield event.value, node.func.attr, path.name


def documented() -> dict[str, str]:
    """Event: level."""
    rows = re.findall(r"(?m)^\| `([a-z_.]+)` \| (\w+) \|", (ROOT / "docs" / "logs.md").read_text())
    assert len(rows) == len(dict(rows)), "an event twice"
    return dict(rows)


def test_every_event_is_documented_with_its_level_and_every_documented_one_is_logged() -> None:
    found = {event: level for event, level, _ in logged()} | {event: level for _, event, level in log_events()}
    assert found == documented()


def test_names_are_dotted_and_do_not_change_their_level() -> None:
    levels: dict[str, str] = {}
    for event, level, file in logged():
        assert NAME.fullmatch(event), f"{event} in {file}"
        assert levels.setdefault(event, level) == level, f"{event} in {file}"


def test_what_guests_cause_is_logged_in_one_place_only() -> None:
    assert not [(event, file) for event, _, file in logged() if event.startswith(("guest.", "shadow."))]


def test_what_answers_requests_does_not_log() -> None:
    """An ioreq is answered by these rooms and no other."""
    for room in ("ppgtt", "vgpu", "ioreq", "hypervisor"):
        for path in (ROOT / "xengt_dm" / room).rglob("*.py"):
            assert not re.search(r"get_logger|get_limited_logger|structlog|import logging", path.read_text()), path
