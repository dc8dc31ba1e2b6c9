"""The store's wire protocol and the client on it."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.xenstored import Answer, Daemon, event, same
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
