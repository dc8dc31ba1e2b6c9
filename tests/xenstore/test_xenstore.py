"""The store's wire protocol and the client on it."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xengt_dm.errors import ExitCode, HostError
from xengt_dm.xenstore import (
    HEADER,
    PAYLOAD_MAX,
    REPLY_MAX,
    Decoder,
    Message,
    MessageType,
    XenStore,
    encode,
    encode_path,
)

U32 = st.integers(0, (1 << 32) - 1)
messages = st.builds(Message, U32, U32, U32, st.binary(max_size=200))


def chunks(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for first, last in itertools.pairwise(places):
        yield data[first:last]


@given(st.lists(messages, max_size=5), st.lists(st.integers(0, 1 << 16), max_size=20))
def test_round_trip_in_any_pieces(sent: list[Message], cuts: list[int]) -> None:
    decoder = Decoder()
    data = b"".join(map(encode, sent))
    assert [message for piece in chunks(data, cuts) for message in decoder.feed(piece)] == sent


@given(st.binary(max_size=3000), st.lists(st.integers(0, 1 << 16), max_size=8))
def test_hostile_bytes(data: bytes, cuts: list[int]) -> None:
    decoder = Decoder()
    for piece in chunks(data, cuts):
        try:
            found = decoder.feed(piece)
        except ValueError:
            return
        for message in found:
            assert len(message.payload) <= REPLY_MAX
            assert isinstance(message.strings, list)
            assert message.errno > 0


def test_layout_of_a_message() -> None:
    """xs_wire.h struct xsd_sockmsg: type, req_id, tx_id, len, then the payload."""
    data = encode(Message(MessageType.READ, 7, 0, encode_path("/local/domain/1/name")))
    assert HEADER.unpack(data[:16]) == (2, 7, 0, 21)
    assert data[16:] == b"/local/domain/1/name\0"


def test_largest_payload() -> None:
    message = Message(MessageType.READ, 0, 0, bytes(PAYLOAD_MAX))
    assert Decoder().feed(encode(message)) == [message]
    with pytest.raises(ValueError, match="4097 bytes"):
        encode(message._replace(payload=bytes(PAYLOAD_MAX + 1)))


@pytest.mark.parametrize("path", ["", "relative", "/with\0nul", "/" * 3073, "/\udc80"])
def test_no_such_path_can_be(path: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one it is does not matter
        encode_path(path)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"ENOENT\0", errno.ENOENT),
        (b"EACCES", errno.EACCES),
        (b"ESOMETHING\0", errno.EIO),
        (b"errorcode\0", errno.EIO),
        (b"", errno.EIO),
        (b"\xff\xfe", errno.EIO),
    ],
)
def test_errors_by_name(payload: bytes, expected: int) -> None:
    assert Message(MessageType.ERROR, 0, 0, payload).errno == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [(b"", []), (b"a\0b\0", ["a", "b"]), (b"a\0b", ["a", "b"]), (b"\0", [""]), (b"/p\0token\0", ["/p", "token"])],
)
def test_strings(payload: bytes, expected: list[str]) -> None:
    assert Message(0, 0, 0, payload).strings == expected


# the client

Answer = Callable[[Message], bytes]


class Daemon:
    """A xenstored of one connection: a function from a request to the bytes that come back; none: it hangs up."""

    def __init__(self, path: Path, answer: Answer, piece: int = 1 << 20) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._answer = answer
        self._piece = piece
        self.requests: list[Message] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        decoder = Decoder()
        with connection:
            while data := connection.recv(65536):
                for request in decoder.feed(data):
                    self.requests.append(request)
                    reply = self._answer(request)
                    if not reply:
                        return
                    for start in range(0, len(reply), self._piece):
                        connection.sendall(reply[start : start + self._piece])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for a socket's address."""
    return tmp_path_factory.mktemp("xs")


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., tuple[XenStore, Daemon]]]:
    opened: list[tuple[XenStore, Daemon]] = []

    def begin(answer: Answer, *, piece: int = 1 << 20, timeout: float = 10.0) -> tuple[XenStore, Daemon]:
        daemon = Daemon(place / "socket", answer, piece)
        store = XenStore(place / "socket", place / "none", timeout)
        opened.append((store, daemon))
        return opened[-1]

    yield begin
    for store, daemon in opened:
        store.close()
        daemon.close()


def same(request: Message, payload: bytes) -> bytes:
    return encode(request._replace(payload=payload))


def tree(nodes: dict[str, str]) -> Answer:
    """Answers as a store with these nodes does."""

    def answer(request: Message) -> bytes:
        path = request.payload.rstrip(b"\0").decode()
        below = sorted({node[len(path) + 1 :].split("/")[0] for node in nodes if node.startswith(path + "/")})
        if path not in nodes and not below:
            return encode(Message(MessageType.ERROR, request.request_id, 0, b"ENOENT\0"))
        if request.type == MessageType.READ:
            return same(request, nodes.get(path, "").encode())
        return same(request, "".join(f"{name}\0" for name in below).encode())

    return answer


NODES = {"/local/domain/3/name": "guest", "/local/domain/3/memory/static-max": "524288", "/local/domain/0/name": "d"}


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_read_and_directory(start: Callable[..., tuple[XenStore, Daemon]], piece: int) -> None:
    store, daemon = start(tree(NODES), piece=piece)
    assert store.read("/local/domain/3/name") == "guest"
    assert store.directory("/local/domain") == ["0", "3"]
    assert store.directory("/local/domain/3/name") == []
    assert store.exists("/local/domain/3")
    assert not store.exists("/local/domain/4")
    assert len({request.request_id for request in daemon.requests}) == 5


def test_no_such_node(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, _ = start(tree(NODES))
    with pytest.raises(HostError, match="xenstore read /nothing: ENOENT") as caught:
        store.read("/nothing")
    assert caught.value.exit_code is ExitCode.UNAVAILABLE
    assert store.read("/local/domain/0/name") == "d"


def test_a_directory_too_long_exists(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, _ = start(lambda request: encode(Message(MessageType.ERROR, request.request_id, 0, b"E2BIG\0")))
    assert store.exists("/vm")
    with pytest.raises(HostError, match="E2BIG"):
        store.directory("/vm")


def test_what_was_not_asked_for_is_passed_over(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    def answer(request: Message) -> bytes:
        watch = Message(MessageType.WATCH_EVENT, request.request_id, 0, b"/path\0token\0")
        late = Message(MessageType.READ, request.request_id + 100, 0, b"late")
        return encode(watch) + encode(late) + same(request, b"value")

    store, _ = start(answer)
    assert store.read("/a") == "value"
    assert store.read("/b") == "value"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda _: b"", "EPROTO: the store closed the connection"),
        (lambda _: HEADER.pack(2, 1, 0, REPLY_MAX + 1), f"EPROTO: a message of {REPLY_MAX + 1} bytes"),
        (lambda request: encode(Message(99, request.request_id, 0, b"")), "EPROTO: the answer is of type 99"),
        (lambda request: encode(Message(MessageType.ERROR, request.request_id, 0, b"EACCES\0")), "EACCES"),
    ],
)
def test_answers_that_are_none(start: Callable[..., tuple[XenStore, Daemon]], answer: Answer, expected: str) -> None:
    store, _ = start(answer)
    with pytest.raises(HostError, match=expected):
        store.read("/a")


def test_a_store_that_says_nothing(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, _ = start(lambda _: HEADER.pack(2, 1, 0, 4), timeout=0.05)
    with pytest.raises(HostError, match=r"ETIMEDOUT: no answer in 0\.05 s"):
        store.read("/a")


def test_bad_path_is_refused_before_it_is_sent(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, daemon = start(tree(NODES))
    with pytest.raises(ValueError, match="not an absolute path"):
        store.read("name")
    assert daemon.requests == []


def test_no_store(place: Path) -> None:
    with pytest.raises(HostError, match=r"neither .*/socket nor .*/xenbus answers: is xenstored running") as caught:
        XenStore(place / "socket", place / "xenbus")
    assert caught.value.errno == errno.ENOENT


def test_the_kernels_door(place: Path) -> None:
    """Without a socket the device is used; this one echoes, so that the reply is the request."""
    os.mkfifo(place / "xenbus")
    with XenStore(place / "socket", place / "xenbus") as store:
        assert store.read("/a/b") == "/a/b\0"
    store.close()


def event(path: str) -> bytes:
    return encode(Message(MessageType.WATCH_EVENT, 0, 0, f"{path}\0xengt-dm\0".encode()))


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_watches(start: Callable[..., tuple[XenStore, Daemon]], piece: int) -> None:
    """Events come before, between and after replies, and none is lost or taken for one."""
    store, daemon = start(
        lambda request: (
            event("@releaseDomain") + same(request, b"OK\0") + event("@introduceDomain")
            if request.type == MessageType.WATCH
            else event("/local") + same(request, b"x")
        ),
        piece=piece,
    )
    store.watch("@releaseDomain")
    assert daemon.requests[0].payload == b"@releaseDomain\0xengt-dm\0"
    assert store.read("/local/domain/1/name") == "x"
    assert store.fired() == ["@releaseDomain", "@introduceDomain", "/local"]
    assert store.fired() == []


def test_a_store_that_ends_while_watched(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, _ = start(lambda request: same(request, b"OK\0") if request.type == MessageType.WATCH else b"")
    store.watch("@releaseDomain")
    with pytest.raises(HostError):
        store.read("/local/domain/1/name")
    with pytest.raises(HostError, match="closed the connection"):
        store.fired()


def test_a_watch_that_is_refused(start: Callable[..., tuple[XenStore, Daemon]]) -> None:
    store, _ = start(lambda request: encode(Message(MessageType.ERROR, request.request_id, 0, b"EACCES\0")))
    with pytest.raises(HostError) as caught:
        store.watch("@releaseDomain")
    assert caught.value.errno == errno.EACCES


# replies longer than the protocol has them, and stores that are late, full or busy


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


def error(request: Message, name: str) -> bytes:
    return encode(Message(MessageType.ERROR, request.request_id, 0, f"{name}\0".encode()))


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
