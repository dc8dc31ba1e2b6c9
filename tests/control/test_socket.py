"""The control socket as a file: whose it is, what is replaced, what is left alone."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.control import STATUS, open_peer, status, with_server
from xengt_dm.control.protocol import ControlError
from xengt_dm.control.server import serve_control
from xengt_dm.errors import HostError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def test_the_socket_is_private_and_gone_afterwards(path: Path) -> None:
    async def body(path: Path) -> None:
        found = os.stat(path)
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert os.listdir(path.parent) == [path.name]

    with_server(path, body)
    assert os.listdir(path.parent) == []


def test_what_a_dead_daemon_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        assert (await peer.ask(STATUS))["ok"] is True

    with_server(path, body)


def test_a_living_daemon_is_not_replaced(path: Path) -> None:
    async def body(path: Path) -> None:
        with pytest.raises(ControlError, match="another process"):
            await serve_control(path, {"status": status})
        peer = await open_peer(path)
        assert (await peer.ask(STATUS))["ok"] is True

    with_server(path, body)


def test_a_living_daemon_with_a_full_backlog_is_not_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ControlError, match="another process"):
            trio.run(serve_control, path, {})
        assert path.exists()


@pytest.mark.parametrize(
    "put",
    [
        lambda path: path.write_text("what a former daemon left"),
        os.mkfifo,
        lambda path: (path / "full").mkdir(parents=True),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/dev/zero"),
    ],
)
def test_what_is_no_socket_is_replaced(path: Path, put: Callable[[Path], object]) -> None:
    """The directory is the instance's, and the daemon has it locked."""
    put(path)

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        assert (await peer.ask(STATUS))["ok"] is True

    with_server(path, body)


def test_no_directory_is_a_host_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="ENOENT"):
        trio.run(serve_control, tmp_path / "nowhere" / "control.sock", {})


def test_a_successors_socket_is_left_alone(path: Path) -> None:
    async def body(path: Path) -> None:
        replace()

    def replace() -> None:
        path.unlink()
        path.write_text("the successor's")

    with_server(path, body)
    assert path.read_text() == "the successor's"


def test_a_path_too_long_for_a_socket_address_works(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    directory.mkdir()

    async def body(path: Path) -> None:
        peer = await open_peer(path)
        assert (await peer.ask(STATUS))["ok"] is True

    with_server(directory / "control.sock", body)
    assert os.listdir(directory) == []
