"""Alerts and the dashboard: they name what the collector has, and mean what they should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric

from tests.stats.programs import busy, serving
from tests.support.prometheus import promtool
from tests.support.promql import Selector, grouped_by, selectors
from xengt_dm.stats import exporter

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "etc" / "prometheus" / "xengt-dm.rules.yml"
TESTS = Path(__file__).with_name("alerts.test.yml")
DASHBOARD = ROOT / "etc" / "grafana" / "xengt-dm.json"

#: What a scrape itself adds.
SCRAPE_LABELS = {"instance", "job"}
SCRAPE_METRICS = {"up": SCRAPE_LABELS}
#: What Grafana fills in; as long as a rate needs.
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$domid": ".*"}


def alerts() -> dict[str, str]:
    """Name: expression."""
    found = re.findall(r"- alert: (\w+)\n +expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", RULES.read_text())
    return {name: " ".join((folded or plain).split()) for name, folded, plain in found}


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Title of a panel of the dashboard, and one of its queries."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


PANELS = [(f"{title} {target['refId']}", filled_in(target["expr"])) for title, target in targets()]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Each series that the collector has while a daemon serves, and its labels."""
    base = tmp_path_factory.mktemp("run")
    with serving(base, 5) as machine:
        machine.run(busy)
        families: list[Metric] = list(exporter.Collector(base).collect())
    return {
        **{sample.name: {*sample.labels, *SCRAPE_LABELS} for family in families for sample in family.samples},
        **SCRAPE_METRICS,
    }


@pytest.mark.parametrize(("name", "expression"), [*alerts().items(), *PANELS])
def test_an_expression_names_what_there_is(known: dict[str, set[str]], name: str, expression: str) -> None:
    found = list(selectors(expression))
    assert found
    for selector in found:
        assert selector.name in known
        assert set(selector.labels) <= known[selector.name]
    assert grouped_by(expression) <= set().union(*(known[selector.name] for selector in found))


def test_legends_and_variables_name_what_there_is(known: dict[str, set[str]]) -> None:
    for title, target in targets():
        expression = filled_in(target["expr"])
        left = grouped_by(expression) or set().union(*(known[each.name] for each in selectors(expression)))
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert legend <= left, title
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if match := re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", "")):
            (selector,) = selectors(filled_in(match[1]))
            assert {*selector.labels, match[2]} <= known[selector.name]
            assert match[2] == variable["name"]


def test_the_dashboard_shows_everything(known: dict[str, set[str]]) -> None:
    shown = {selector.name for _, expression in PANELS for selector in selectors(expression)}
    assert shown == set(known) - set(SCRAPE_METRICS)


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        place = panel["gridPos"]
        taken = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in taken) < 24
        assert not cells & taken
        cells |= taken
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_expression_is_one(tmp_path: Path) -> None:
    rules = [{"record": f"panel_{i}", "expr": expression} for i, (_, expression) in enumerate(PANELS)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stderr
    assert f"{len(PANELS)} rules found" in done.stdout


def test_alerts_are_sound() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_the_scrape_configuration_is_sound() -> None:
    done = promtool("check", "config", ROOT / "etc" / "prometheus" / "prometheus.yml")
    assert done.returncode == 0, done.stderr


def test_alerts_come_when_they_should() -> None:
    done = promtool("test", "rules", TESTS)
    assert done.returncode == 0, done.stderr


def test_every_alert_is_tested_to_come_and_to_stay_away() -> None:
    text = TESTS.read_text()
    come = set(re.findall(r"alertname: (\w+)\n +exp_alerts:", text))
    stay_away = set(re.findall(r"alertname: (\w+)\}", text))
    assert come == stay_away == set(alerts())


def test_what_is_exported_is_clean(tmp_path: Path) -> None:
    with serving(tmp_path, 5) as machine:
        machine.run(busy)
        done = promtool("check", "metrics", text=exporter.text(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("a", [Selector("a", ())]),
        ('sum by (x, y) (rate(a_b{x=~"1|{", y!="by (z)"}[5m]))', [Selector("a_b", ("x", "y"))]),
        ('a{x="a"} / on (x) group_left b > 0.5', [Selector("a", ("x",)), Selector("b", ())]),
        ("time() - a offset 5m or vector(0)", [Selector("a", ())]),
        ('histogram_quantile(0.99, b{le="+Inf"}) > bool 1e9', [Selector("b", ("le",))]),
    ],
)
def test_names_are_found(expression: str, found: list[Selector]) -> None:
    """The checks would be worth nothing if the reader of expressions missed one."""
    assert list(selectors(expression)) == found
