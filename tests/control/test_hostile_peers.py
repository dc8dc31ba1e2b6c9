"""Requests that no operator sends: text that is no text, descriptors without end, values that nothing can take."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.control import STATUS, open_peer, status, with_server
from xengt_dm.control.protocol import DESCRIPTOR, Passed, RefusedError, parse_request
from xengt_dm.control.server import Handler
from xengt_dm.errors import HostError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


SURROGATES = [
    b'{"v": 1, "cmd": "\\ud800"}',
    b'{"v": 1, "cmd": "status", "\\udfff": 1}',
    b'{"v": 1, "cmd": "status", "file": "/nonexistent/\\ud800.gz"}',
    b'{"v": 1, "cmd": "status", "a": [{"b": ["\\udc80"]}]}',
    b'{"v": 1, "cmd": "status", "a": "\\udc00\\ud800"}',
]


@pytest.mark.parametrize("line", SURROGATES)
def test_half_of_a_surrogate_pair_is_wrong_use(path: Path, line: bytes) -> None:
    with pytest.raises(RefusedError, match="half of a surrogate pair"):
        parse_request(line)

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        assert await peer.error(line + b"\n") == "usage"
        assert (await peer.ask(STATUS))["ok"] is True

    with_server(path, body)


def test_a_whole_pair_is_a_character() -> None:
    request = parse_request(b'{"v": 1, "cmd": "status", "a": "\\ud83d\\ude00"}')
    assert request.arguments == {"a": "\N{GRINNING FACE}"}


@pytest.mark.parametrize(
    "error",
    [ValueError("embedded null byte"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")],
)
def test_a_value_that_nothing_can_take_ends_no_daemon(path: Path, error: ValueError) -> None:
    def fail(arguments: Mapping[str, object]) -> object:
        raise error

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        assert await peer.error(b'{"v": 1, "cmd": "fail"}\n') == "usage"
        assert (await peer.ask(STATUS))["ok"] is True

    handlers: dict[str, Handler] = {"status": status, "fail": fail}
    with_server(path, body, handlers)


def test_other_failures_still_end_it(path: Path) -> None:
    def fail(arguments: Mapping[str, object]) -> object:
        raise HostError("xendevicemodel", 7, 22)

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        assert await peer.error(b'{"v": 1, "cmd": "fail"}\n') == "host"
        await trio.sleep_forever()

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - alone or in a group
        with_server(path, body, {"fail": fail})
    assert "xendevicemodel" in repr(caught.value) or isinstance(caught.value, BaseExceptionGroup)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("each", [1, 2, 3, 100])
def test_descriptors_do_not_pile_up(path: Path, each: int) -> None:
    """One or more with each byte of a request: they are closed as they come, and the request is refused."""
    taken: list[object] = []

    def take(arguments: Mapping[str, object]) -> object:
        taken.append(arguments.get(DESCRIPTOR))
        return {}

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        raw = peer.stream.socket
        null = os.open(os.devnull, os.O_RDONLY)
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = open_descriptors()
        request = b'{"v": 1, "cmd": "take"}'
        for byte in request:
            await raw.sendmsg(
                [bytes([byte])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * each))]
            )
            await trio.testing.wait_all_tasks_blocked(0.001)
            assert open_descriptors() <= before + 1
        reply: Any = await peer.ask(b"\n")
        assert reply["error"]["code"] == "usage"
        assert "one file descriptor at most" in reply["error"]["message"]
        assert (await peer.ask(b'{"v": 1, "cmd": "take"}\n'))["ok"] is True
        assert open_descriptors() == before
        os.close(null)

    with_server(path, body, {"take": take})
    assert taken == [None]


def test_one_descriptor_is_handed_on(path: Path) -> None:
    found: list[bytes] = []

    def take(arguments: Mapping[str, object]) -> object:
        passed = arguments[DESCRIPTOR]
        assert isinstance(passed, Passed)
        descriptor = passed.take()
        found.append(os.read(descriptor, 10))
        os.close(descriptor)
        return {}

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        reader, writer = os.pipe()
        os.write(writer, b"hello")
        message = json.dumps({"v": 1, "cmd": "take"}).encode() + b"\n"
        await peer.stream.socket.sendmsg(
            [message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reader]))]
        )
        assert (await peer.receive())["ok"] is True
        os.close(reader)
        os.close(writer)

    with_server(path, body, {"take": take})
    assert found == [b"hello"]
