"""The tables of docs/metrics.md and docs/logs.md, made from the table of metrics."""

from __future__ import annotations

from xengt_dm.stats.page import PROBLEM_TEXT, PageProblem
from xengt_dm.stats.table import METRICS, ROUTES


def metrics_tables() -> str:
    """Returns the tables of docs/metrics.md."""
    lines = ["| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind.value} | {metric.unit} | {labels} | {metric.help} |")
    lines += ["", "| `kind` | `path` | the request |", "|---|---|---|"]
    lines += [f"| `{route.kind}` | `{route.path}` | {route.text} |" for route in ROUTES]
    lines += ["", "| `reason` | why the page was left out |", "|---|---|"]
    lines += [f"| `{reason.value}` | {PROBLEM_TEXT[reason]} |" for reason in PageProblem]
    return "\n".join(lines) + "\n"


def events_table() -> str:
    """Returns the table of docs/logs.md that lists the events in :func:`~xengt_dm.stats.table.log_events`."""
    lines = ["| event | level | metric | when |", "|---|---|---|---|"]
    events = ((metric, event) for metric in METRICS for event in metric.events.values())
    lines += [f"| `{event.name}` | {event.level} | `{metric.name}` | {event.text} |" for metric, event in events]
    return "\n".join(lines) + "\n"
