"""The table of metrics: by the conventions of Prometheus, of everything that is counted, and as documented."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.stats.programs import busy, serving
from xengt_dm._core import ffi
from xengt_dm.stats.markdown import events_table, metrics_tables
from xengt_dm.stats.metric import Kind, Metric
from xengt_dm.stats.page import PROBLEM_TEXT, PageProblem
from xengt_dm.stats.reader import ROUTES as NUMBERED_ROUTES
from xengt_dm.stats.reader import Reading, read_host
from xengt_dm.stats.table import METRICS, ROUTES

#: Counted in the page and shown as part of something else: what that is.
SHOWN_OTHERWISE = {"traps": "the sum of the two kinds", "one": "no count"}

begin, end = "<!-- table -->\n", "<!-- end of table -->\n"


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> list[Reading]:
    base = tmp_path_factory.mktemp("run")
    with serving(base, 5) as machine:
        machine.run(busy)
        return read_host(base)


def test_names_are_there_once() -> None:
    series = [name for metric in METRICS for name in metric.series]
    assert len(series) == len(set(series))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_row_follows_the_conventions(metric: Metric) -> None:
    assert metric.name.startswith("xengt_")
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.name.endswith("_info") == (metric.unit == "info")
    assert metric.name.removesuffix("_total").endswith("_seconds") == (metric.unit == "seconds")
    assert metric.help[0] == metric.help[0].upper() or metric.help.split()[0] in ("ioreqs", "vCPUs")
    assert not metric.help.endswith(".")
    assert "|" not in metric.help


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_row_has_its_source(metric: Metric, readings: list[Reading]) -> None:
    host, instance = readings
    reading = instance if "domid" in metric.labels else host
    names = reading.histograms if metric.kind is Kind.HISTOGRAM else reading.values
    own = [label for label in metric.labels if label != "domid"]
    assert metric.source
    for labels, name in metric.source.items():
        assert name in names
        assert len(labels) == len(own) or (not labels and set(own) <= set(reading.texts))


def test_everything_that_is_counted_is_shown(readings: list[Reading]) -> None:
    host, instance = readings
    shown = {name for metric in METRICS for name in metric.source.values()}
    assert {*instance.values, *instance.histograms, *host.values} - shown == set(SHOWN_OTHERWISE) - {"one"}
    plain = {name for name, field in ffi.typeof("xd_counters").fields if field.type.kind == "primitive"}
    assert plain <= shown


def test_routes_are_those_of_the_core() -> None:
    assert sorted(route.name for route in ROUTES) == sorted(NUMBERED_ROUTES.values())
    assert len({(route.kind, route.path) for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize(("name", "table"), [("metrics.md", metrics_tables()), ("logs.md", events_table())])
def test_a_document_has_the_table(checkout: Path, name: str, table: str) -> None:
    path = checkout / "docs" / name
    before, _, rest = path.read_text().partition(begin)
    written, _, after = rest.partition(end)
    if os.environ.get("XENGT_WRITE"):
        path.write_text(before + begin + table + end + after)
    assert written == table, f"docs/{name} is not what the table says; docs/metrics.md says how to write it anew"


def test_every_event_is_of_a_counter_of_its_metric() -> None:
    for metric in METRICS:
        assert set(metric.events) <= set(metric.source.values()), metric.name


def test_problems_have_texts() -> None:
    assert set(PROBLEM_TEXT) == set(PageProblem)
