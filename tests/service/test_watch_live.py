"""The host watcher at work: events, starts that take long, and a store that goes away."""

from __future__ import annotations

import threading
from errno import ENOENT, EPROTO, ETIMEDOUT

import pytest
import trio
import trio.testing

from tests.support.watched import WatchedHost, until
from xengt_dm.errors import HostError
from xengt_dm.service import watch as module
from xengt_dm.service.watch import EVENTS, watch


def test_following(watched: WatchedHost) -> None:
    watched.configure("win")
    watched.names[3] = "win"

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, watched, watched.watcher)
            assert watched.watched == [*EVENTS]
            await until(lambda: watched.said == ["start 3"])
            del watched.names[3]
            watched.fire()
            await until(lambda: len(watched.said) >= 2)
            assert watched.said == ["start 3", "stop 3"]
            nursery.cancel_scope.cancel()

    trio.run(main)


# starts that take long, and a store that goes away


def test_one_slow_start_holds_up_neither_readiness_nor_other_domains(watched: WatchedHost) -> None:
    for domid in (3, 4, 5):
        watched.configure(f"d{domid}")
        watched.names[domid] = f"d{domid}"
    watched.holds[3] = threading.Event()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, watched, watched.watcher)
            await until(lambda: watched.serving == {4, 5})
            watched.configure("d6")
            watched.names[6] = "d6"
            watched.fire()
            await until(lambda: watched.serving == {4, 5, 6})
            # What comes for the slow one waits its turn.
            del watched.names[3]
            watched.serving.add(3)
            watched.fire()
            await until(lambda: "/local/domain/6/vm" in watched.reads)
            assert "stop 3" not in watched.said
            watched.holds[3].set()
            await until(lambda: "stop 3" in watched.said)
            assert watched.forgotten == [3] or await until(lambda: watched.forgotten == [3]) is None
            nursery.cancel_scope.cancel()

    trio.run(main)


async def hang(watched: WatchedHost, clock: trio.testing.MockClock, count: int) -> None:
    """Has instances of ``count`` domains start and hang, 16 more each time that the others took too long."""
    for domid in range(100, 100 + count):
        watched.configure(f"d{domid}")
        watched.names[domid] = f"d{domid}"
        watched.holds[domid] = threading.Event()
    watched.fire()
    for begun in range(16, count + 1, 16):
        await until(lambda begun=begun: len(watched.said) == begun)  # type: ignore[misc]
        if begun < count:
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(module.SLOW_SECONDS)
    await until(lambda: len(watched.said) == count)
    watched.configure("good")
    watched.names[999] = "good"
    watched.fire()
    await until(lambda: "/local/domain/999/name" in watched.reads)
    await trio.testing.wait_all_tasks_blocked(0.05)


@pytest.mark.parametrize(("count", "waits"), [(15, False), (16, True), (48, True), (50, False)])
def test_starts_that_hang_make_room_for_others(watched: WatchedHost, count: int, waits: bool) -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, watched, watched.watcher)
            await hang(watched, clock, count)
            if waits:
                assert 999 not in watched.serving
                clock.jump(module.SLOW_SECONDS)
            await until(lambda: 999 in watched.serving)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


def test_starts_that_hang_are_bounded(watched: WatchedHost) -> None:
    """One more than the unit's TasksMax= has room for waits until another one ends."""
    clock = trio.testing.MockClock()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, watched, watched.watcher)
            await hang(watched, clock, 64)
            clock.jump(module.SLOW_SECONDS)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(watched.said) == 64
            watched.holds[120].set()
            await until(lambda: 999 in watched.serving)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


def test_a_cancellation_does_not_wait_for_a_start(watched: WatchedHost) -> None:
    watched.configure("d3")
    watched.names[3] = "d3"
    watched.holds[3] = threading.Event()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, watched, watched.watcher)
            await until(lambda: watched.said == ["start 3"])
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert not watched.holds[3].is_set()


@pytest.mark.parametrize("number", [ETIMEDOUT, EPROTO])
def test_a_store_that_fails_is_connected_to_again(
    watched: WatchedHost, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What was done before is not done again, and what a hanging instance needs goes on meanwhile."""
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.01)
    for domid in (3, 4):
        watched.configure(f"d{domid}")
    watched.names[3] = "d3"
    refusals = [HostError("xenstore open", None, ENOENT), HostError("xenstore open", None, ENOENT)]

    def reconnect() -> WatchedHost:
        if refusals:
            raise refusals.pop()
        return watched

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, watched, watched.watcher, reconnect)
            await until(lambda: watched.said == ["start 3"])
            watched.serving.discard(3)  # an operator stopped it
            watched.fails.append(HostError("xenstore directory", None, number))
            watched.names[4] = "d4"
            watched.fire()
            await until(lambda: watched.said == ["start 3", "start 4"])
            assert (refusals, watched.watched) == ([], [*EVENTS, *EVENTS])
            nursery.cancel_scope.cancel()

    trio.run(main)
