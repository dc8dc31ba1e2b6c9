"""The control socket's server, on real sockets, under trio's own clock for tests where time matters."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.control import STATUS, close_peers, open_peer, status, with_server
from xengt_dm.control import server as control_server
from xengt_dm.control.json_stream import LazyList
from xengt_dm.control.protocol import REQUEST_LIMIT
from xengt_dm.control.server import MAX_CONNECTIONS, PEER_SECONDS, Handler, serve_control
from xengt_dm.errors import DataError, HostError, UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def test_requests_are_answered_in_order_on_one_connection(path: Path) -> None:
    async def body(path: Path) -> None:
        peer = await open_peer(path)
        await peer.stream.send_all(b'{"v": 1, "cmd": "status", "n": 1}\n{"v": 1, "cmd": "sta')
        await peer.stream.send_all(b'tus", "n": 2}\n')
        for number in (1, 2):
            assert await peer.receive() == {"v": 1, "ok": True, "result": {"arguments": {"n": number}}}
        await peer.stream.send_eof()
        assert await peer.receive() is None

    with_server(path, body)


def test_the_last_request_needs_no_newline(path: Path) -> None:
    async def body(path: Path) -> None:
        peer = await open_peer(path)
        await peer.stream.send_all(STATUS.rstrip())
        await peer.stream.send_eof()
        assert (await peer.receive())["ok"] is True
        assert await peer.receive() is None

    with_server(path, body)


@pytest.mark.parametrize("version", [1, 2])
def test_a_reply_has_the_version_of_its_request(path: Path, version: int) -> None:
    async def body(path: Path) -> None:
        peer = await open_peer(path)
        for command in ("status", "explode"):
            reply = await peer.ask(json.dumps({"v": version, "cmd": command}).encode() + b"\n")
            assert (reply["v"], reply["ok"]) == (version, command == "status")

    with_server(path, body)


def test_a_bad_request_is_answered_and_the_connection_stays(path: Path) -> None:
    async def body(path: Path) -> None:
        peer = await open_peer(path)
        assert await peer.error(b"what?\n") == "malformed"
        assert await peer.error(b'{"v": 3, "cmd": "status"}\n') == "version"
        assert await peer.error(b'{"v": 1, "cmd": "explode"}\n') == "unknown-command"
        assert (await peer.ask(STATUS))["ok"] is True

    with_server(path, body)


def test_a_request_too_long_is_answered_and_ends_the_connection(path: Path) -> None:
    async def body(path: Path) -> None:
        peer = await open_peer(path)
        assert await peer.error(b"x" * REQUEST_LIMIT) == "too-large"
        assert await peer.receive() is None
        other = await open_peer(path)
        assert (await other.ask(STATUS))["ok"] is True

    with_server(path, body)


def test_a_peer_that_vanishes_harms_nobody(path: Path) -> None:
    async def body(path: Path) -> None:
        for request in (b"", b'{"v": 1', STATUS * 1000):
            peer = await open_peer(path)
            if request:
                await peer.stream.send_all(request)
            await peer.stream.aclose()
        peer = await open_peer(path)
        assert (await peer.ask(STATUS))["ok"] is True

    with_server(path, body)


def test_a_silent_peer_is_sent_away(path: Path) -> None:
    async def body(path: Path) -> None:
        peer = await open_peer(path)
        began = trio.current_time()
        assert await peer.error(b'{"v": 1') == "timeout"
        assert trio.current_time() - began == pytest.approx(PEER_SECONDS)
        assert await peer.receive() is None

    with_server(path, body, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_peer_that_does_not_read_is_dropped(path: Path) -> None:
    async def body(path: Path) -> None:
        deaf = await open_peer(path)
        began = trio.current_time()
        await deaf.stream.send_all(b'{"v": 1, "cmd": "big"}\n')
        await trio.sleep(2 * PEER_SECONDS)
        assert (trio.current_time() - began) == pytest.approx(2 * PEER_SECONDS)
        assert await deaf.receive() is None, "the reply must not have been completed"
        peer = await open_peer(path)
        assert (await peer.ask(STATUS))["ok"] is True

    handlers: dict[str, Handler] = {"status": status, "big": lambda _: ["x" * 100] * 100_000}
    with_server(path, body, handlers, clock=trio.testing.MockClock(autojump_threshold=0))


def test_one_connection_too_many_is_told_so(path: Path) -> None:
    async def body(path: Path) -> None:
        peers = [await open_peer(path) for _ in range(MAX_CONNECTIONS)]
        for peer in peers:
            assert (await peer.ask(STATUS))["ok"] is True
        late = await open_peer(path)
        assert (await late.receive())["error"]["code"] == "busy"
        assert await late.receive() is None
        await peers[0].stream.send_eof()
        assert await peers[0].receive() is None
        again = await open_peer(path)
        assert (await again.ask(STATUS))["ok"] is True

    with_server(path, body)


@pytest.mark.parametrize(("error", "code"), [(UsageError("so"), "usage"), (DataError("so"), "data")])
def test_what_a_handler_refuses_is_answered(path: Path, error: Exception, code: str) -> None:
    async def body(path: Path) -> None:
        peer = await open_peer(path)
        assert await peer.error(b'{"v": 1, "cmd": "bad"}\n') == code
        assert (await peer.ask(STATUS))["ok"] is True

    def bad(arguments: Mapping[str, object]) -> object:
        raise error

    with_server(path, body, {"status": status, "bad": bad})


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HostError("map", 3, errno.EINVAL), "host"),
        (HostError("map", 3, errno.EPERM), "permission"),
        (AssertionError("a bug"), "internal"),
    ],
)
def test_a_failure_of_the_daemon_is_answered_and_raised(path: Path, error: Exception, code: str) -> None:
    answers: list[str] = []

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        with trio.CancelScope(shield=True):
            answers.append(await peer.error(b'{"v": 1, "cmd": "fail"}\n'))
        await trio.sleep_forever()

    def fail(arguments: Mapping[str, object]) -> object:
        raise error

    with pytest.raises((HostError, AssertionError, BaseExceptionGroup)) as caught:
        with_server(path, body, {"fail": fail})
    assert list(leaves(caught.value)) == [error]
    assert answers == [code]
    assert not path.exists()


def test_a_reply_that_fails_half_way_ends_early(path: Path) -> None:
    received = bytearray()
    error = HostError("map", 3, errno.EINVAL)

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        await peer.stream.send_all(b'{"v": 1, "cmd": "half"}\n')
        with trio.CancelScope(shield=True):
            while data := await peer.stream.receive_some(1 << 16):
                received.extend(data)

    def half(arguments: Mapping[str, object]) -> object:
        def elements() -> Iterator[object]:
            yield "x" * 200_000
            raise error

        return LazyList(elements())

    with pytest.raises((HostError, BaseExceptionGroup)) as caught:
        with_server(path, body, {"half": half})
    assert list(leaves(caught.value)) == [error]
    assert len(received) > 200_000
    assert not received.endswith(b"\n")


def test_others_run_while_a_long_reply_is_made(path: Path) -> None:
    turns: list[int] = []
    made = 0

    async def other(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            turns.append(made)
            await trio.lowlevel.checkpoint()

    async def body(path: Path) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(other)
            peer = await open_peer(path)
            reply = await peer.ask(b'{"v": 1, "cmd": "big"}\n')
            nursery.cancel_scope.cancel()
        assert len(reply["result"]) == 20
        assert all(len(space) == 3_000 for space in reply["result"])

    def big(arguments: Mapping[str, object]) -> object:
        def spaces() -> Iterator[object]:
            nonlocal made
            for _ in range(20):
                made += 1
                yield [[1 << 40, 4096, 1 << 39, 1, 0]] * 3_000

        return LazyList(spaces())

    with_server(path, body, {"big": big})
    assert set(turns) >= set(range(1, 21)), "the other task had a turn at every space"


def test_stop_is_answered_although_it_stops_the_server(path: Path) -> None:
    answers: list[object] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            def stop(arguments: Mapping[str, object]) -> object:
                nursery.cancel_scope.cancel()
                return {}

            await nursery.start(serve_control, path, {"stop": stop})
            peer = await open_peer(path)
            with trio.CancelScope(shield=True):
                answers.append(await peer.ask(b'{"v": 1, "cmd": "stop"}\n'))
                answers.append(await peer.receive())
            close_peers()

    trio.run(main)
    assert answers == [{"v": 1, "ok": True, "result": {}}, None]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=200) | st.sampled_from([STATUS, b"\n", b'{"v":1,"cmd":"no"}\n']), max_size=6))
def test_whatever_comes_is_answered_line_by_line(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    sent = b"".join(parts)
    expected = sent.count(b"\n") + (not sent.endswith(b"\n") and sent != b"")

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        await peer.stream.send_all(sent)
        await peer.stream.send_eof()
        replies = []
        while (reply := await peer.receive()) is not None:
            replies.append(reply)
        assert len(replies) == expected
        assert all(reply["v"] == 1 and ("result" in reply) is reply["ok"] for reply in replies)
        after = await open_peer(path)
        assert (await after.ask(STATUS))["ok"] is True

    with_server(tmp_path_factory.mktemp("hostile") / "control.sock", body)


def test_limits_are_as_promised() -> None:
    assert REQUEST_LIMIT == 64 * 1024
    assert MAX_CONNECTIONS == 8
    assert control_server.LAST_WORDS_SECONDS < 1
