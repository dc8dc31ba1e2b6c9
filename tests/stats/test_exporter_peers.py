"""The exporter and peers that are slow, silent, deaf or many; and what it says to methods other than GET."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.stats.programs import serving
from tests.support.scraping import get, serving_http
from xengt_dm.stats import exporter
from xengt_dm.stats.page import StatsPage
from xengt_dm.stats.reader import Reading, read_host


def test_a_scrape_takes_the_place_of_the_oldest_that_says_nothing(tmp_path: Path) -> None:
    with serving_http(tmp_path) as server, ExitStack() as stack:
        address = ("127.0.0.1", server.server_port)
        silent = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(exporter.MAX_CONNECTIONS)]
        for each in silent:
            each.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        assert b"xengt_build_info" in get(server.server_port)
        assert silent[0].recv(1) == b""
        silent[1].sendall(b"1\r\n\r\n")
        assert silent[1].recv(1) == b"H", "the others are still there"


def test_one_too_many_is_closed_while_all_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    waiting = threading.Semaphore(0)

    def slow(base: Path) -> list[Reading]:
        waiting.release()
        assert go_on.wait(60)
        return read_host(base)

    monkeypatch.setattr(exporter, "SAFE_SECONDS", 60.0)
    monkeypatch.setattr("xengt_dm.stats.reader.read_host", slow)
    with serving_http(tmp_path) as server, ExitStack() as stack:
        stack.callback(go_on.set)
        address = ("127.0.0.1", server.server_port)
        scrapes = [stack.enter_context(socket.create_connection(address, 60)) for _ in range(exporter.MAX_CONNECTIONS)]
        for each in scrapes:
            each.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert waiting.acquire(timeout=60)
        with socket.create_connection(address, 20) as one_more:
            assert one_more.recv(1) == b""
        go_on.set()
        for each in scrapes:
            assert each.recv(1) == b"H"


def test_a_connection_has_its_time_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not lengthen it."""
    monkeypatch.setattr(exporter, "PEER_SECONDS", 0.3)
    with serving_http(tmp_path) as server, socket.create_connection(("127.0.0.1", server.server_port), 20) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        slow.settimeout(0.05)
        for _ in range(1000):
            with suppress(TimeoutError):
                assert slow.recv(1) == b""
                return
            with suppress(BrokenPipeError, ConnectionResetError):
                slow.sendall(b"a")
        pytest.fail("it was never cut off")


def test_one_that_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("prometheus_client.exposition.generate_latest", lambda *_, **__: b"#" * (1 << 24))
    with serving_http(tmp_path) as server, socket.create_connection(("127.0.0.1", server.server_port), 20) as deaf:
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        for _ in range(3000):
            if not server.peers._peers and deaf.recv(1):
                return
            threading.Event().wait(0.01)
        pytest.fail("it was never cut off")


@pytest.fixture
def long_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape has more than the buffers of a connection hold."""
    monkeypatch.setattr("prometheus_client.exposition.generate_latest", lambda *_, **__: b"#" * (1 << 24))


@pytest.mark.usefixtures("long_answer")
def test_a_scrape_takes_the_place_of_one_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "SAFE_SECONDS", 0.0)
    with serving_http(tmp_path) as server, ExitStack() as stack:
        for _ in range(exporter.MAX_CONNECTIONS):
            deaf = stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port), 20))
            deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert deaf.recv(1) == b"H"
        assert b"xengt-dm exporter" in get(server.server_port, "/")


@pytest.mark.usefixtures("long_answer")
def test_one_that_does_not_read_leaves_nothing_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It could fill it."""
    monkeypatch.setattr(exporter._Handler, "timeout", 1.0)
    with serving_http(tmp_path) as server, socket.create_connection(("127.0.0.1", server.server_port), 20) as deaf:
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert deaf.recv(1) == b"H"
        for _ in range(6000):
            if not server.peers._peers:
                break
            threading.Event().wait(0.01)
    assert capfd.readouterr().err == ""


def test_head_is_get_without_a_body(tmp_path: Path) -> None:
    with serving(tmp_path, 5), serving_http(tmp_path) as server:
        for path, status in (("/metrics", "200 OK"), ("/other", "404 Not Found")):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
            connection.request("HEAD", path)
            reply = connection.getresponse()
            assert (f"{reply.status} {reply.reason}", reply.read()) == (status, b"")
            assert int(reply.headers["Content-Length"]) > 10
            assert reply.headers["Content-Type"].startswith("text/plain")
            connection.close()


def test_a_wrong_method_is_told_which_are_right(tmp_path: Path) -> None:
    with serving_http(tmp_path) as server:
        for method in ("POST", "DELETE", "OPTIONS"):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
            connection.request(method, "/metrics")
            reply = connection.getresponse()
            assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")
            connection.close()


def test_text_of_a_page_has_nothing_that_a_terminal_acts_on(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    page = StatsPage(tmp_path / "5", 5)
    page.pointer.program = b"\x1b[2J\x07\n"
    (found,) = [reading for reading in read_host(tmp_path) if reading.domid == 5]
    assert found.texts["version"] == "\\x1b[2J\\x07\\n"
