"""The whole way: guests store, daemons count, the exporter shows, a real Prometheus scrapes and answers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stats.programs import busy, serving, store
from tests.stats.test_expressions import PANELS, RULES, alerts
from tests.support.prometheus import prometheus


@contextmanager
def exporting(base: Path) -> Iterator[int]:
    """The port of an exporter, run as its user would."""
    command = [sys.executable, "-m", "xengt_dm", "exporter", "--listen", "127.0.0.1:0", "--run-dir", str(base)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            match = re.search(r'"port": (\d+)', process.stderr.readline())
            assert match is not None
            yield int(match[1])
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_real_prometheus_scrapes_and_answers(tmp_path: Path) -> None:
    base = tmp_path / "run"
    config = tmp_path / "prometheus.yml"
    with serving(base, 5) as machine, serving(base, 12), exporting(base) as port:
        config.write_text(
            f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{RULES}"]
scrape_configs:
  - job_name: xengt-dm
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
        )
        machine.run(busy)
        with prometheus(config, tmp_path) as server:
            traps = "sum by (domid) (xengt_traps_total)"
            server.until(lambda: server.query(traps) == {(("domid", "5"),): 16, (("domid", "12"),): 0})
            machine.run(store)  # while it scrapes
            server.until(lambda: server.query(traps) == {(("domid", "5"),): 29, (("domid", "12"),): 0})
            of = "xengt_ioreq_duration_seconds"
            leaf = 'kind="store", path="leaf", domid="5"'
            server.until(lambda: server.query(f"sum({of}_count{{{leaf}}})") == {(): 20})
            server.until(lambda: 0 < server.query(f"sum({of}_sum{{{leaf}}})").get((), 0) < 20 * 20)

            # Every query of the dashboard has an answer; a rate, once there were two scrapes.
            server.until(lambda: all(server.query(expression) for _, expression in PANELS))

            def healthy() -> bool:
                (group,) = server.api("rules")["groups"]
                assert {rule["name"] for rule in group["rules"]} == set(alerts())
                return all(rule["health"] == "ok" for rule in group["rules"])

            server.until(healthy)
            server.until(lambda: server.query("sum(up)") == {(): 1})
            metadata = server.api("metadata")
            assert metadata["xengt_ioreq_duration_seconds"][0]["type"] == "histogram"
            assert metadata["xengt_ioreq_duration_seconds"][0]["unit"] == "seconds"  # as OpenMetrics alone can say
