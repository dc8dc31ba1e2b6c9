"""What systemd is told, and when it is told nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from xengt_dm.service.notify import Notifier
from xengt_dm.service.watchdog import Progress, feed_watchdog


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield listener


def environment(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.getsockname()), "HOME": "/", **more}


def received(manager: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode())
        except BlockingIOError:
            return found


def test_messages(manager: socket.socket) -> None:
    variables = environment(manager)
    notifier = Notifier(variables)
    notifier.ready("serving domain 3")
    notifier.alive()
    notifier.stopping()
    notifier.send(STATUS="two\nlines")
    assert received(manager) == [
        "READY=1\nSTATUS=serving domain 3",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=giving everything back",
        "STATUS=two lines",
    ]
    assert variables == {"HOME": "/"}  # no child speaks for us
    notifier.close()
    notifier.alive()
    assert received(manager) == []


def test_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0xengt-test-{os.getpid()}")
        notifier = Notifier({"NOTIFY_SOCKET": f"@xengt-test-{os.getpid()}"})
        notifier.alive()
        assert listener.recv(100) == b"WATCHDOG=1"
        notifier.close()


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/socket"])
def test_nobody_to_tell(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address} if address else {})
    notifier.ready("x")
    notifier.close()


def test_a_manager_that_does_not_listen_is_not_waited_for(manager: socket.socket) -> None:
    notifier = Notifier(environment(manager))
    for _ in range(10_000):
        notifier.alive()
    notifier.close()
    assert 0 < len(received(manager)) < 10_000


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_limit(variables: dict[str, str], seconds: float | None) -> None:
    assert Notifier(variables).watchdog_seconds == seconds
    assert not variables


class Loop:
    """A serve loop as the watchdog sees it."""

    def __init__(self) -> None:
        self.request = False
        self.activity = 0
        self.progress = Progress(self)

    def waiting(self) -> bool:
        return self.request

    def look(self, waiting: bool, activity: int) -> bool:
        self.request, self.activity = waiting, self.activity + activity
        return self.progress.look()


def test_progress() -> None:
    loop = Loop()
    assert loop.look(waiting=False, activity=0)  # idle
    assert loop.look(waiting=True, activity=0)  # it came just now
    assert not loop.look(waiting=True, activity=0)
    assert not loop.look(waiting=True, activity=0)
    assert loop.look(waiting=True, activity=1)  # another one, then: the loop lives
    assert not loop.look(waiting=True, activity=0)
    assert loop.look(waiting=False, activity=0)
    assert loop.look(waiting=True, activity=0)


def test_a_stuck_loop_starves_the_watchdog(manager: socket.socket) -> None:
    async def main() -> None:
        loop = Loop()
        notifier = Notifier(environment(manager, WATCHDOG_USEC="10000000"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed_watchdog, notifier, loop.progress)
            await trio.sleep(21)  # looks at 0, 5, 10, 15 and 20 s
            assert received(manager) == ["WATCHDOG=1"] * 5
            loop.request = True
            await trio.sleep(5)  # the look at 25 s is the first that sees it
            assert received(manager) == ["WATCHDOG=1"]
            await trio.sleep(20)
            assert received(manager) == []
            loop.activity += 1
            await trio.sleep(5)
            assert received(manager) == ["WATCHDOG=1"]
            nursery.cancel_scope.cancel()
        notifier.close()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_no_watchdog_to_feed(manager: socket.socket) -> None:
    notifier = Notifier(environment(manager))
    trio.run(feed_watchdog, notifier, Loop().progress)
    assert received(manager) == []
    notifier.close()
