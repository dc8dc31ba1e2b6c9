"""A domain of the embedded hypervisor, its vCPUs, and the whole device model that serves it.

The guest acts in one of two ways. Beside the serve loop, as under a daemon: :meth:`Machine.play` and
:meth:`Machine.run`. Or step by step, served by the test's own hand, so that the hypercalls come in the same order each
time: :class:`Steps`.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

from tests.support.faults import wait_until_blocked
from tests.support.serving import serve_all
from tests.support.tables import FRAME, address, pte
from xengt_dm.control import report
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.instance import Instance, open_instance
from xengt_dm.settings import DEFAULT_BAR0, Settings
from xengt_dm.vgpu import registers as reg

#: Frames of the tables of an L4 space, root first, and of a page that it maps.
L4, L3, L2, L1, DATA = range(2, 7)
TABLES = [L4, L3, L2, L1]
#: A test that waits longer than this hangs.
PATIENCE = 20.0
_GLANCE = 0.05

Program = Callable[[Vcpu], None]


def link(vcpu: Vcpu) -> None:
    """Link the tables of the space, before anybody knows of it."""
    for table, child in pairwise(TABLES):
        vcpu.store(address(table), 8, pte(child))


def build(vcpu: Vcpu) -> None:
    """Link the tables of the space, and map a page."""
    link(vcpu)
    vcpu.store(address(L1), 8, pte(DATA))


def announce(
    vcpu: Vcpu, root: int = L4, what: reg.Notification = reg.Notification.PPGTT_L4_CREATE, *, size: int = 8
) -> None:
    """Tell the device of a space: its root, in writes of so many bytes, and a notification."""
    for offset in range(0, 8, size):
        vcpu.mmio_write(DEFAULT_BAR0 + reg.PDP0 + offset, size, root * FRAME >> 8 * offset & (1 << 8 * size) - 1)
    vcpu.mmio_write(DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, what)


@dataclass(frozen=True)
class Machine:
    """The guest acts when a test has it act, and the device model serves it meanwhile."""

    domain: EmbeddedDomain
    instance: Instance

    def run(self, program: Program, vcpu: int = 0) -> None:
        """Run a program to its end on a vCPU."""

        async def body(machine: Machine) -> None:
            await machine.guest(program, vcpu)

        self.play(body)

    def play(self, body: Callable[[Machine], Awaitable[None]]) -> None:
        """Run ``body`` beside the serve loop."""

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.instance.loop.serve)
                await body(self)
                self.instance.traps.check()
                nursery.cancel_scope.cancel()

        trio.run(main)

    async def guest(self, program: Program, vcpu: int = 0) -> None:
        """Have a vCPU run a program to its end."""
        await trio.to_thread.run_sync(program, self.domain.vcpu(vcpu))

    async def store(self, gfn: int, slot: int, value: int) -> None:
        """Have a vCPU store an entry."""
        await self.guest(lambda vcpu: vcpu.store(address(gfn, slot), 8, value))

    async def announce(self, root: int, what: reg.Notification = reg.Notification.PPGTT_L4_CREATE) -> None:
        """Have a vCPU tell the device of a space."""
        await self.guest(lambda vcpu: announce(vcpu, root, what))

    async def make_space(self) -> None:
        """Have a vCPU make the space, and announce it."""
        await self.guest(build)
        await self.guest(announce)

    def dump(self) -> list[dict[str, Any]]:
        return report.dump_spaces(self.instance.engine)

    def audit(self) -> int:
        return report.audit_spaces(self.instance.engine)


@contextlib.contextmanager
def machine(
    settings: Settings | None = None,
    *,
    frames: int = 64,
    vcpus: int = 2,
    xen: str = "4.17",
    domid: int = 1,
    directory: Path | None = None,
) -> Iterator[Machine]:
    """A machine whose device model serves; it ends in order."""
    with (
        EmbeddedDomain(frames, vcpus, xen, domid=domid) as domain,
        open_instance(domain.port(), settings or Settings(), directory=directory) as instance,
    ):
        yield Machine(domain, instance)


def play(
    body: Callable[[Machine], Awaitable[None]], settings: Settings | None = None, *, frames: int = 64, xen: str = "4.17"
) -> None:
    """Run ``body`` beside the serve loop of a machine of its own, then end in order."""
    with machine(settings, frames=frames, xen=xen) as made:
        made.play(body)


class Steps:
    """Runs steps of a guest on a thread of their own, and serves each by hand.

    The domain may outlive its device model.
    """

    def __init__(self, domain: EmbeddedDomain) -> None:
        self._domain = domain
        self._done = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def close(self) -> None:
        os.close(self._done)

    def start(self, step: Program) -> None:
        """Begin a step on the first vCPU."""

        def program(vcpu: Vcpu) -> None:
            try:
                step(vcpu)
            finally:
                os.eventfd_write(self._done, 1)

        self._domain.start(0, program)

    def serve(self, instance: Instance) -> None:
        """Serve until the step is over."""
        poll = select.poll()
        poll.register(instance.server.port.events.fd, select.POLLIN)
        poll.register(self._done, select.POLLIN)
        while True:
            ready = poll.poll(PATIENCE * 1000)
            assert ready, "nothing happens any more"
            serve_all(instance.loop)
            if any(fd == self._done for fd, _ in ready):
                return

    def until_it_waits(self) -> None:
        """Wait until the step waits for an answer, or is over."""
        poll = select.poll()
        poll.register(self._done, select.POLLIN)
        for _ in range(int(PATIENCE / _GLANCE)):
            try:
                wait_until_blocked(self._domain, 0, _GLANCE)
                return
            except TimeoutError:
                if poll.poll(0):
                    return
        raise AssertionError("a vCPU neither waits nor finishes")

    def finish(self) -> None:
        """Wait for the end of the step without serving it."""
        assert self._domain.join(PATIENCE), "a vCPU waits for ever"
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._done)
