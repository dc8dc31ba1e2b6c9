"""The exporter: collects the metrics of :mod:`.table` from all stats pages, and serves them to Prometheus over HTTP.

Nothing is kept between two scrapes: each reads every page again. So a scrape shows at once that a daemon started, ended
or died, and it costs the daemons nothing.
"""

from __future__ import annotations

import io
import socket
import socketserver
import threading
import time
import wsgiref.simple_server
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from xengt_dm.errors import HostError
from xengt_dm.stats import metric as rows
from xengt_dm.stats import reader as stats_reader
from xengt_dm.stats.reader import LIMITS, Reading
from xengt_dm.stats.table import METRICS

#: One scraper needs one connection at a time.
MAX_CONNECTIONS: Final = 8
#: How long after it was opened a connection must have sent its request, and must have its answer.
PEER_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 30.0
#: How long a connection that is being answered is safe from a new one. A scrape of many daemons takes seconds.
SAFE_SECONDS: Final = 5.0
_LANDING_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en"><head><title>xengt-dm exporter</title></head>
<body><h1>xengt-dm exporter</h1><p><a href="/metrics">Metrics</a> of this host's instances.</p></body></html>
"""
_BOUNDS: Final = [*map(floatToGoString, LIMITS), "+Inf"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class Collector:
    """The metrics of all daemons whose run directories are in ``base``."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def describe(self) -> Iterator[Metric]:
        """Yields every family, without samples."""
        return map(_family, METRICS)

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics of every instance, and those of this scrape."""
        readings = stats_reader.read_host(self._base)
        for metric in METRICS:
            family = _family(metric)
            _fill(family, metric, readings)
            yield family


def _family(metric: rows.Metric) -> Metric:
    make = {
        rows.Kind.COUNTER: CounterMetricFamily,
        rows.Kind.GAUGE: GaugeMetricFamily,
        rows.Kind.HISTOGRAM: HistogramMetricFamily,
    }[metric.kind]
    # OpenMetrics has a unit only where the name ends in it, and an info has none.
    unit = metric.unit if metric.name.endswith(f"_{metric.unit}") and metric.unit != "info" else ""
    family: Metric = make(metric.name, metric.help, labels=metric.labels, unit=unit)
    return family


def _fill(family: Metric, metric: rows.Metric, readings: Sequence[Reading]) -> None:
    per_domain = "domid" in metric.labels
    for reading in readings:
        if (reading.domid is not None) != per_domain:
            continue
        for values, name in metric.source.items():
            labels = [str(reading.domid)] if per_domain else []
            labels += values or [reading.texts.get(label, "") for label in metric.labels[len(labels) :]]
            if isinstance(family, HistogramMetricFamily) and name in reading.histograms:
                histogram = reading.histograms[name]
                family.add_metric(labels, list(zip(_BOUNDS, histogram.counts, strict=True)), histogram.sum)
            elif isinstance(family, (CounterMetricFamily, GaugeMetricFamily)) and name in reading.values:
                family.add_metric(labels, reading.values[name])


def registry(base: Path) -> CollectorRegistry:
    """Returns a registry with our collector only, without metrics of this process."""
    made = CollectorRegistry()
    made.register(Collector(base))
    return made


def text(base: Path) -> str:
    """Returns what a scrape would get, in Prometheus' text format."""
    return generate_latest(registry(base)).decode()


class _Writer(io.BufferedIOBase):
    """Writes to a connection. One that does not take all of it in time counts as closed, which wsgiref does not log."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            self._connection.sendall(data)
        except TimeoutError as error:
            raise ConnectionAbortedError from error
        return len(data)


class _Handler(wsgiref.simple_server.WSGIRequestHandler):
    timeout = PEER_SECONDS

    def setup(self) -> None:
        super().setup()
        self.wfile = _Writer(self.connection)

    def get_environ(self) -> Environ:
        """As in the base class, which calls it when the request has arrived."""
        assert isinstance(self.server, Server)
        self.server.peers.answer(self.request)
        return super().get_environ()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Logs nothing, since a peer could fill the log."""


@dataclass
class _Peer:
    """A connection: when it was opened, and since when it is being answered, in monotonic time."""

    since: float
    answered: float | None = None


class Peers:
    """The open connections, MAX_CONNECTIONS at most, each with a limit of time.

    A hostile peer may open any number of connections, and send nothing, or a byte now and then, or not read the answer.
    So a connection's time counts from when it was opened, and a new one replaces the oldest one whose request has not
    arrived, or else the oldest one that has been answered for SAFE_SECONDS.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._peers: dict[socket.socket, _Peer] = {}

    def add(self, connection: socket.socket) -> bool:
        """Adds a connection; returns False if there are MAX_CONNECTIONS and no other can go."""
        now = time.monotonic()
        with self._lock:
            if len(self._peers) >= MAX_CONNECTIONS:
                idle = [each for each, peer in self._peers.items() if peer.answered is None]
                deaf = [each for each, peer in self._peers.items() if now - (peer.answered or now) > SAFE_SECONDS]
                if not idle and not deaf:
                    return False
                self._cut(min(idle or deaf, key=lambda each: self._peers[each].since))
            self._peers[connection] = _Peer(now)
            return True

    def answer(self, connection: socket.socket) -> None:
        """The request of a connection has arrived."""
        with self._lock:
            if connection in self._peers:
                self._peers[connection].answered = time.monotonic()

    def remove(self, connection: socket.socket) -> None:
        """Forgets a connection that has ended."""
        with self._lock:
            self._peers.pop(connection, None)

    def cut_late(self) -> None:
        """Ends the connections that have exceeded their time."""
        now = time.monotonic()
        with self._lock:
            for connection, peer in [*self._peers.items()]:
                if now - peer.since > (PEER_SECONDS if peer.answered is None else ANSWER_SECONDS):
                    self._cut(connection)

    def _cut(self, connection: socket.socket) -> None:
        """Shuts a connection down. That wakes up the thread that serves it, and the thread closes it."""
        del self._peers[connection]
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """Serves ``/metrics`` at ``address``, a host and a port (0: any free one). A client can ask for OpenMetrics.

    The constructor raises OSError if it cannot listen there.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, base: Path, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.peers = Peers()
        super().__init__(address, _Handler)
        self.set_app(_app(make_wsgi_app(registry(base))))

    def server_bind(self) -> None:
        """As the base class's, which would ask the resolver for the name of the address."""
        if self.address_family == socket.AF_INET6:
            with suppress(OSError):  # a kernel that has IPv6 alone there serves that
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.peers.add(request):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """The server's loop calls this every half second, and after each connection."""
        self.peers.cut_late()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.peers.remove(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the errors of a connection: the peer closed it, or we did."""


def _app(scrape: Callable[[Environ, StartResponse], Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "HEAD":
            return _head(app, environ, start_response)
        if environ["REQUEST_METHOD"] != "GET":
            body = "only GET and HEAD are served here\n"
            return _plain(start_response, "405 Method Not Allowed", body, [("Allow", "GET, HEAD")])
        if environ["PATH_INFO"] == "/":
            return _answer(start_response, "200 OK", "text/html; charset=utf-8", _LANDING_PAGE)
        if environ["PATH_INFO"] != "/metrics":
            return _plain(start_response, "404 Not Found", "metrics are at /metrics\n")
        try:
            return scrape(environ, start_response)
        except HostError as error:
            return _plain(start_response, "503 Service Unavailable", f"{error}\n")

    return app


def _head(app: Callable[..., Iterable[bytes]], environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Returns the answer to GET without the body; RFC 9110, 9.3.2."""
    told: list[Any] = []
    body = b"".join(app({**environ, "REQUEST_METHOD": "GET"}, lambda *answer: told.extend(answer)))
    status, headers, *_ = told
    length = ("Content-Length", str(len(body)))
    start_response(status, [*((name, value) for name, value in headers if name.lower() != "content-length"), length])
    return []


def _plain(start_response: StartResponse, status: str, body: str, more: Sequence[tuple[str, str]] = ()) -> list[bytes]:
    return _answer(start_response, status, "text/plain; charset=utf-8", body, more)


def _answer(
    start_response: StartResponse, status: str, kind: str, body: str, more: Sequence[tuple[str, str]] = ()
) -> list[bytes]:
    content = body.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(content))), *more])
    return [content]
