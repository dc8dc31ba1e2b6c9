"""A serve loop that waits in bursts holds nobody up, and rests while nobody wants anything."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio

from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ioreq.burst import NEVER, NOW
from xengt_dm.ioreq.doorbell import Doorbell
from xengt_dm.settings import DEFAULT_BAR0, Settings

#: A test that has not ended by then fails: what should have rung did not.
SECONDS = 60


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(16, 1) as made:
        yield made


@pytest.fixture
def instance(domain: EmbeddedDomain) -> Iterator[Instance]:
    with open_instance(domain.port(), Settings()) as made:
        yield made


def beside(instance: Instance, work: Callable[[], Awaitable[object]]) -> None:
    """Run ``work`` while the guest is served. Nothing else has a deadline but the end of the test."""

    async def main() -> None:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                await nursery.start(instance.loop.serve)
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                await work()
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_trio_keeps_its_descriptor_where_we_look() -> None:
    async def main() -> int | None:
        return Doorbell().fd

    assert trio.run(main) is not None


def test_when_a_burst_has_to_end() -> None:
    async def main() -> None:
        doorbell, event = Doorbell(), trio.Event()
        with doorbell.listening():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(event.wait)
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                assert (doorbell.rang, doorbell.deadline()) == (False, NEVER)
                event.set()
                assert (doorbell.rang, doorbell.deadline()) == (True, NOW)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                assert not doorbell.rang
                with trio.move_on_after(1000):
                    await trio.lowlevel.checkpoint()
                    assert NOW < doorbell.deadline() < NEVER
                assert doorbell.deadline() == NEVER

    trio.run(main)


async def a_deadline() -> None:
    await trio.sleep(0.01)


async def a_thread() -> None:
    await trio.to_thread.run_sync(lambda: None)


async def a_descriptor() -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    threading.Timer(0.01, os.eventfd_write, (fd, 1)).start()
    await trio.lowlevel.wait_readable(fd)
    os.close(fd)


async def a_signal() -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        async for _ in signals:
            break


async def another_task() -> None:
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(event.wait)
        await trio.lowlevel.checkpoint()
        event.set()


@pytest.mark.parametrize("wanted", [a_deadline, a_thread, a_descriptor, a_signal, another_task])
def test_nobody_waits_for_a_burst_to_end(instance: Instance, wanted: Callable[[], Awaitable[None]]) -> None:
    """Whatever a task waits for, while the guest is silent: it goes on when that comes, and again and again."""

    async def work() -> None:
        for _ in range(10):
            await wanted()

    beside(instance, work)


def test_a_silent_guest_costs_a_burst_for_each_thing_that_others_do(instance: Instance) -> None:
    """A burst that returned at once though nobody wanted anything would be a loop without rest."""
    stats = instance.stats.pointer

    async def work() -> None:
        for wanted in (a_deadline, a_thread, a_descriptor, a_signal):
            before = stats.bursts
            for _ in range(10):
                await wanted()
            assert stats.bursts - before <= 10 * 6, wanted

    beside(instance, work)


def test_a_task_that_a_request_wakes_runs_at_once(domain: EmbeddedDomain, instance: Instance) -> None:
    """The guest's store is handled in Python, which lets another task go on. Nothing rings but that."""

    class Observer:
        def store(self, vcpu: int, gpa: int, size: int, value: int) -> None:
            raise AssertionError

        def mmio(self, vcpu: int, offset: int, size: int, value: int) -> None:
            seen.set()

    seen = trio.Event()
    instance.bus.observe(Observer())
    vcpu = threading.Thread(target=domain.vcpu(0).store, args=(DEFAULT_BAR0 + 0x40000, 4, 9))

    async def work() -> None:
        vcpu.start()
        await seen.wait()

    beside(instance, work)
    vcpu.join()


def test_served_requests_are_a_sign_of_life(instance: Instance) -> None:
    """The watchdog and the pace of the looks at the domain see what a burst found without an event, too."""
    before = instance.loop.activity
    instance.stats.pointer.burst_requests += 1
    assert instance.loop.activity == before + 1
    instance.stats.pointer.handed_requests += 1
    assert instance.loop.activity == before + 2
