"""What a metric is: one row of the table in :mod:`xengt_dm.stats.table`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Kind(enum.Enum):
    """Prometheus' name for the type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class LogEvent(NamedTuple):
    """The event that a daemon logs when a counter has grown: its name, its level, and what it tells."""

    name: str
    level: str
    text: str


NO_EVENTS: Final[Mapping[str, LogEvent]] = MappingProxyType({})


class Metric(NamedTuple):
    """One family of series.

    ``unit`` is the unit of its values. ``help`` is one sentence without a full stop. ``events`` maps the name of a
    counter in ``source`` to the event that is logged when that counter has grown; most counters have none.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    source: Mapping[tuple[str, ...], str]
    events: Mapping[str, LogEvent] = NO_EVENTS

    @property
    def series(self) -> tuple[str, ...]:
        """The names of the time series under which Prometheus stores the family."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)
