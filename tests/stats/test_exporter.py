"""The collector, and the exporter as Prometheus and its operator meet it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.stats.programs import announce, busy, serving
from tests.support.scraping import get, serving_http
from xengt_dm import __version__
from xengt_dm._core import ffi, lib
from xengt_dm.cli.exporter import Address
from xengt_dm.errors import ExitCode, HostError
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.stats import exporter
from xengt_dm.stats.metric import Kind
from xengt_dm.stats.page import PageProblem, StatsPage
from xengt_dm.stats.reader import LIMITS, read_host
from xengt_dm.stats.table import METRICS
from xengt_dm.steps import finish

PROGRAM = [sys.executable, "-m", "xengt_dm", "exporter"]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(families: Iterator[Metric]) -> Samples:
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples
    }


def scrape(base: Path) -> Samples:
    return samples(parse_text(exporter.text(base)))


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def directory(base: Path, domid: int) -> Path:
    made = base / str(domid)
    made.mkdir()
    return made


def test_what_a_guest_did_is_what_is_shown(tmp_path: Path) -> None:
    with serving(tmp_path, 5) as machine:
        machine.run(busy)
        found = scrape(tmp_path)

    def of(name: str, **labels: str) -> float | None:
        return value(found, name, domid="5", **labels)

    assert of("xengt_up") == 1
    assert of("xengt_ioreqs_total", kind="store", path="leaf") == 10
    assert of("xengt_ioreqs_total", kind="store", path="directory") == 2
    assert of("xengt_ioreqs_total", kind="store", path="untracked") == 0
    assert of("xengt_ioreqs_total", kind="register_write", path="device") == 3
    assert of("xengt_ioreqs_total", kind="register_read", path="device") == 1
    assert of("xengt_traps_total", target="memory") == 12
    assert of("xengt_traps_total", target="registers") == 4
    assert of("xengt_tables") == 4
    assert of("xengt_protected_pages") == 4
    assert of("xengt_tables_limit") == 65536
    assert of("xengt_spaces") == 1
    assert of("xengt_vcpus") == 1
    assert of("xengt_ioreqs_pending") == 0
    assert of("xengt_ioreq_oldest_pending_seconds") == 0
    assert of("xengt_instance_info", version=__version__, generation="8") == 1
    assert value(found, "xengt_build_info", version=__version__) == 1


def test_a_histogram_is_whole(tmp_path: Path) -> None:
    with serving(tmp_path, 5) as machine:
        machine.run(busy)
        found = scrape(tmp_path)
    name, labels = "xengt_ioreq_duration_seconds", {"domid": "5", "kind": "store", "path": "leaf"}
    bounds = [*(exporter.floatToGoString(limit) for limit in LIMITS), "+Inf"]
    counts = [value(found, f"{name}_bucket", le=bound, **labels) for bound in bounds]
    assert None not in counts
    assert counts == sorted(counts, key=lambda count: count or 0)
    assert counts[-1] == value(found, f"{name}_count", **labels) == 10
    total = value(found, f"{name}_sum", **labels)
    assert total is not None
    assert 0 < total < 10 * 20
    assert LIMITS[0] == 256e-9
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(LIMITS))


def test_a_submission_is_timed(tmp_path: Path) -> None:
    with serving(tmp_path, 5, sync=Sync.RELAXED) as machine:
        machine.run(busy)
        (space,) = machine.instance.engine.spaces
        before = value(scrape(tmp_path), "xengt_submission_sync_seconds_count", domid="5")
        finish(machine.instance.engine.submit(space.mode, space.roots))
        found = scrape(tmp_path)
    assert before is not None
    assert value(found, "xengt_submission_sync_seconds_count", domid="5") == before + 1
    assert value(found, "xengt_submissions_total", domid="5") == before + 1
    assert value(found, "xengt_relaxed", domid="5") == 1
    assert value(found, "xengt_unsynced_births_total", domid="5") == 2
    assert value(found, "xengt_syncs_total", domid="5") == 1


def test_what_waits_shows_for_how_long(tmp_path: Path) -> None:
    page = StatsPage(directory(tmp_path, 5), 5)
    now = lib.xd_now()
    page.counters.timing.taken_ns[3] = now - 5_000_000_000
    page.counters.timing.taken_ns[127] = now - 9_000_000_000
    page.pointer.heartbeat_ns = now - 70_000_000_000
    found = scrape(tmp_path)
    assert value(found, "xengt_ioreqs_pending", domid="5") == 2
    assert 9 <= (value(found, "xengt_ioreq_oldest_pending_seconds", domid="5") or 0) < 60
    assert 70 <= (value(found, "xengt_heartbeat_age_seconds", domid="5") or 0) < 130


def test_a_moment_that_has_not_come_is_now(tmp_path: Path) -> None:
    """What a daemon says is not trusted, and another CPU's clock may be a little ahead."""
    page = StatsPage(directory(tmp_path, 5), 5)
    page.counters.timing.taken_ns[0] = page.pointer.heartbeat_ns = (1 << 64) - 1
    found = scrape(tmp_path)
    assert value(found, "xengt_ioreq_oldest_pending_seconds", domid="5") == 0
    assert value(found, "xengt_heartbeat_age_seconds", domid="5") == 0


def test_instances_side_by_side(tmp_path: Path) -> None:
    with serving(tmp_path, 5) as one, serving(tmp_path, 12) as other:
        one.run(busy)
        other.run(announce)
        found = scrape(tmp_path)
    assert value(found, "xengt_traps_total", domid="5", target="memory") == 12
    assert value(found, "xengt_traps_total", domid="12", target="memory") == 0
    assert value(found, "xengt_traps_total", domid="12", target="registers") == 3


def test_pages_of_no_use_are_left_out_and_counted(tmp_path: Path) -> None:
    StatsPage(directory(tmp_path, 1), 1)
    StatsPage(directory(tmp_path, 2), 2).end()
    StatsPage(directory(tmp_path, 3), 4)
    directory(tmp_path, 5)
    stale = StatsPage(directory(tmp_path, 6), 6)
    stale.pointer.process_start += 1
    (directory(tmp_path, 7) / "stats").write_bytes(b"short")
    (directory(tmp_path, 8) / "stats").symlink_to(tmp_path / "1" / "stats")
    (tmp_path / "9").write_bytes(b"no directory")
    found = scrape(tmp_path)
    left_out = {reason: value(found, "xengt_exporter_pages_left_out", reason=reason.value) for reason in PageProblem}
    assert left_out == {
        PageProblem.ENDED: 1,
        PageProblem.FOREIGN: 1,
        PageProblem.MISSING: 1,
        PageProblem.STALE: 1,
        PageProblem.TRUNCATED: 1,
        PageProblem.UNREADABLE: 2,
    }
    up = {labels: up for (name, labels), up in found.items() if name == "xengt_up"}
    assert up == {(("domid", str(domid)),): float(domid == 1) for domid in (1, 3, 6, 7, 8, 9)}
    shown = {labels for (name, labels), _ in found.items() if name == "xengt_tables"}
    assert shown == {(("domid", "1"),)}


def test_what_is_no_domain_is_not_looked_at(tmp_path: Path) -> None:
    for name in ("watch", "1x", "-1", "32752", "99999999999999999999", "\u0663", "1.5", ""):
        (tmp_path / name).mkdir(exist_ok=True)
    found = scrape(tmp_path)
    assert value(found, "xengt_exporter_pages_left_out", reason="missing") == 0


def test_whatever_is_in_a_page_can_be_shown(tmp_path: Path) -> None:
    """All bits set where they may be: the largest counts, and a version that is no text."""
    page = StatsPage(directory(tmp_path, 5), 5)
    ffi.memmove(page.counters, b"\xff" * ffi.sizeof("xd_counters"), ffi.sizeof("xd_counters"))
    page.pointer.program = b'\xff"\n\\' * 8
    page.pointer.generation = (1 << 64) - 1
    found = scrape(tmp_path)
    assert value(found, "xengt_tables", domid="5") == float((1 << 64) - 1)
    assert samples(parse_openmetrics(generate_openmetrics(exporter.registry(tmp_path)).decode()))


def test_a_base_that_is_not_there_has_no_daemons(tmp_path: Path) -> None:
    assert [reading.domid for reading in read_host(tmp_path / "none")] == [None]


def test_a_base_that_cannot_be_listed_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(HostError, match=f"list {file}"):
        read_host(file)


def test_every_metric_is_there_whatever_runs(tmp_path: Path) -> None:
    described = {family.name: family.type for family in exporter.Collector(tmp_path).describe()}
    assert described == {
        metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name: metric.kind.value
        for metric in METRICS
    }
    with serving(tmp_path, 5):
        names = {name for name, _ in scrape(tmp_path)}
    assert names == {name for metric in METRICS for name in metric.series}


# As a program


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


def test_once(tmp_path: Path) -> None:
    with serving(tmp_path, 5) as machine:
        machine.run(busy)
        done = run("--once", "--run-dir", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert value(samples(parse_text(done.stdout)), "xengt_traps_total", domid="5", target="memory") == 12


@pytest.mark.parametrize(
    "address", ["", "here", "127.0.0.1", ":", "localhost:1", "127.0.0.1:65536", "::1:80", "[::1]", "1.2.3.4:-1"]
)
def test_an_address_that_is_none(address: str) -> None:
    done = run("--listen", address)
    assert done.returncode == ExitCode.USAGE
    assert "is no address and port; give them like 127.0.0.1:9917" in done.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--listen", f"127.0.0.1:{port}", "--run-dir", tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert f"listen on 127.0.0.1 port {port}: EADDRINUSE" in done.stderr


def test_a_program_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    command = [*PROGRAM, "--listen", "127.0.0.1:0", "--run-dir", str(tmp_path)]
    environment = {**os.environ, "JOURNAL_STREAM": ""}
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert '"event": "exporter.serving"' in line
            port = int(line.split('"port": ')[1].split(",")[0].rstrip("}\n"))
            assert value(samples(parse_text(get(port).decode())), "xengt_build_info", version=__version__) == 1
            process.send_signal(number)
            assert process.wait(20) == 0
            assert "exporter.stopping" in process.stderr.read()


# As a server


def loopbacks() -> Iterator[str]:
    """The second one only where the kernel has it."""
    yield "127.0.0.1"
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        yield "::1"


@pytest.mark.parametrize("host", [*loopbacks()])
def test_metrics_are_served(tmp_path: Path, host: str) -> None:
    with serving(tmp_path, 5), serving_http(tmp_path, host) as server:
        text = get(server.server_port, host=f"[{host}]" if ":" in host else host).decode()
    assert value(samples(parse_text(text)), "xengt_up", domid="5") == 1


def test_a_port_alone_is_every_address(tmp_path: Path) -> None:
    assert Address().convert(":9917", None, None) == ("::", 9917)
    with serving(tmp_path, 5), serving_http(tmp_path, "::") as server:
        for host in ("127.0.0.1", *(f"[{each}]" for each in loopbacks() if ":" in each)):
            assert b"xengt_up" in get(server.server_port, host=host)


def test_who_looks_at_the_root_finds_the_metrics(tmp_path: Path) -> None:
    with serving_http(tmp_path) as server:
        reply = urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=20)
        assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
        assert b'<a href="/metrics">' in reply.read()


def test_who_asks_for_openmetrics_gets_it(tmp_path: Path) -> None:
    with serving(tmp_path, 5) as machine, serving_http(tmp_path) as server:
        machine.run(busy)
        text = get(server.server_port, Accept=OPENMETRICS, **{"Accept-Encoding": "gzip"}).decode()
    assert text.endswith("# EOF\n")
    assert "# UNIT xengt_ioreq_duration_seconds seconds\n" in text
    assert "_info info\n" not in text, "an info has no unit"
    found = samples(parse_openmetrics(text))
    assert value(found, "xengt_ioreqs_total", domid="5", kind="store", path="leaf") == 10


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/other", "GET", 404), ("/metrics/", "GET", 404), ("/metrics", "POST", 405)]
)
def test_nothing_else_is_served(tmp_path: Path, path: str, method: str, status: int) -> None:
    with serving_http(tmp_path) as server:
        request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}", method=method)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
    with caught.value as error:
        assert error.code == status


def test_a_scrape_that_fails_says_why_and_the_next_may_work(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.touch()
    with serving_http(base) as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(server.server_port)
        with caught.value as error:
            assert error.code == 503
            assert f"list {base}" in error.read().decode()
        base.unlink()
        assert b"xengt_build_info" in get(server.server_port)
