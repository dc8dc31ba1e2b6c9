"""Replies longer than the protocol has them, and stores that are late, full or busy."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.xenstored import Daemon, error, event, same
from xengt_dm.errors import HostError
from xengt_dm.xenstore import HEADER, PAYLOAD_MAX, Decoder, Message, MessageType, XenStore, encode_path


class Long:
    """A xenstored with one long directory, in the manner of the one in C, which gives ``part`` bytes at a time."""

    def __init__(self, names: list[str], part: int = 3000) -> None:
        self.names = names
        self.part = part
        self.generation = 7
        self.changes = 0

    def __call__(self, request: Message) -> bytes:
        whole = "".join(f"{name}\0" for name in self.names).encode()
        if request.type == MessageType.DIRECTORY:
            short = len(whole) <= PAYLOAD_MAX
            return same(request, whole) if short else error(request, "E2BIG")
        assert request.type == MessageType.DIRECTORY_PART
        path, offset = request.strings
        assert path == "/local/domain"
        if self.changes and offset != "0":
            self.changes -= 1
            self.generation += 1
        rest = whole[int(offset) :]
        part = rest[: rest.rfind(b"\0", 0, self.part) + 1]
        last = b"\0" if len(part) == len(rest) else b""
        return same(request, b"%d\0" % self.generation + part + last)


@pytest.mark.parametrize("count", [1, 680, 700, 1000, 32_751])
@pytest.mark.parametrize("part", [7, 3000, 4090])
def test_a_long_directory_is_read_in_parts(
    start: Callable[..., tuple[XenStore, Daemon]], count: int, part: int
) -> None:
    names = [str(domid) for domid in range(count if part > 7 else min(count, 1000))]
    store, _ = start(Long(names, part))
    assert store.directory("/local/domain") == names


def test_an_empty_directory_may_come_in_parts(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, _ = start(lambda request: error(request, "E2BIG") if request.type == 1 else same(request, b"7\0\0"))
    assert store.directory("/local/domain") == []


def test_a_directory_that_changes_while_it_is_read(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    long = Long([str(domid) for domid in range(2000)])
    store, _ = start(long)
    long.changes = 5
    assert store.directory("/local/domain") == long.names
    long.changes = 1000
    with pytest.raises(HostError, match="EAGAIN: it changes too often"):
        store.directory("/local/domain")
    long.changes = 0
    assert store.directory("/local/domain") == long.names


@pytest.mark.parametrize("code", ["ENOSYS", "EINVAL", "E2BIG"])
def test_a_store_that_has_no_parts(start: Callable[..., tuple[XenStore, Daemon]], code: str) -> None:
    store, _ = start(lambda request: error(request, "E2BIG" if request.type == MessageType.DIRECTORY else code))
    with pytest.raises(HostError, match="E2BIG"):
        store.directory("/local/domain")
    assert store.exists("/local/domain")


@pytest.mark.parametrize("payload", [b"7\0", b"7", b"", b"7\0abc", b"7\0a\0"])
def test_parts_that_make_no_list(start: Callable[..., tuple[XenStore, Daemon]], payload: bytes) -> None:
    store, _ = start(lambda request: error(request, "E2BIG") if request.type == 1 else same(request, payload))
    with pytest.raises(HostError, match="EPROTO: parts that make no list"):
        store.directory("/local/domain")


def test_a_reply_longer_than_the_protocol_has_it(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    """As the xenstored in OCaml sends it on a socket."""
    names = [str(domid) for domid in range(32_751)]
    payload = "".join(f"{name}\0" for name in names).encode()
    store, _ = start(lambda request: HEADER.pack(request.type, request.request_id, 0, len(payload)) + payload)
    assert store.directory("/local/domain") == names


@pytest.mark.parametrize("code", ["EAGAIN", "EBUSY"])
def test_a_busy_store_is_asked_again(start: Callable[..., tuple[XenStore, Daemon]], code: str) -> None:
    store, daemon = start(lambda request: error(request, code) if len(daemon.requests) < 4 else same(request, b"x"))
    assert store.read("/a") == "x"
    assert len({request.request_id for request in daemon.requests}) == 4


def test_a_store_that_stays_busy(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, _ = start(lambda request: error(request, "EAGAIN"), timeout=0.05)
    with pytest.raises(HostError, match=r"ETIMEDOUT: no answer in 0\.05 s"):
        store.read("/a")


def test_a_store_that_answers_late_can_be_asked_again(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    go_on = threading.Event()

    def answer(request: Message) -> bytes:
        if request.request_id == 1:
            go_on.wait(10)
        return same(request, f"{request.request_id}".encode())

    store, _ = start(answer, timeout=0.05)
    with pytest.raises(HostError, match="ETIMEDOUT"):
        store.read("/a")
    store._timeout = 10
    go_on.set()
    assert store.read("/a") == "2"


def test_half_a_request_is_finished_before_the_next(place: Path) -> None:
    """A store that reads nothing for a while: requests go to the socket's buffer until that is full."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "socket"))
        listener.listen()
        with XenStore(place / "socket", place / "none", 0.02) as store:
            connection, _ = listener.accept()
            long = "/" + "a" * 3000
            asked = 0
            while not store._unsent:
                with pytest.raises(HostError, match="ETIMEDOUT"):
                    store.read(long)
                asked += 1
            connection.setblocking(False)
            decoder, requests = Decoder(), []
            store._timeout = 10
            reader = threading.Thread(target=lambda: requests.append(store.read("/last")), daemon=True)
            reader.start()
            connection.settimeout(10)
            found: list[Message] = []
            while len(found) < asked + 1:
                found += decoder.feed(connection.recv(65536))
            connection.sendall(same(found[-1], b"x"))
            reader.join(10)
            connection.close()
    assert {request.payload for request in found[:-1]} == {encode_path(long)}
    assert (found[-1].payload, requests) == (b"/last\0", ["x"])


def test_a_full_backlog_is_waited_for(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "socket"))
        listener.listen(0)
        others = []
        try:
            while True:
                others.append(socket.socket(socket.AF_UNIX))
                others[-1].setblocking(False)
                others[-1].connect(str(place / "socket"))
        except BlockingIOError:
            pass
        with pytest.raises(HostError, match="ETIMEDOUT: neither"):
            XenStore(place / "socket", place / "none", 0.05)
        accepting = threading.Thread(target=lambda: [listener.accept()[0].close() for _ in others], daemon=True)
        accepting.start()
        XenStore(place / "socket", place / "none", 10).close()
        accepting.join(10)
        for each in others:
            each.close()


def test_values_that_are_no_utf8_are_kept(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, _ = start(lambda request: same(request, b"a\xff\xe9"))
    assert os.fsencode(store.read("/a")) == b"a\xff\xe9"


def test_a_flood_of_events_is_told_once(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, _ = start(lambda request: event("@releaseDomain") * 500 + event("/local") + same(request, b"OK\0"))
    store.watch("@releaseDomain")
    assert store.fired() == ["@releaseDomain", "/local"]
