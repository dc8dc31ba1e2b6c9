"""Serving: take requests out of their slots, handle them, answer, and tell the vCPUs.

In the life of a daemon :meth:`ServeLoop.serve` does that, as a task beside the others. Before the end, when there is no
event loop any more, :meth:`ServeLoop.rounds` does.
"""

from __future__ import annotations

import itertools
import os
import select
import time
from collections.abc import Iterator
from typing import Protocol

import trio

from xengt_dm._core import lib
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.best_effort import BestEffort
from xengt_dm.ioreq.bus import REFUSED, Answer, Bus
from xengt_dm.ioreq.request import Request
from xengt_dm.ioreq.server import IoreqServer
from xengt_dm.units import CData

#: How often a wake-up looks for more before it lets other tasks run.
ROUNDS = 64
#: What a trip through Xen takes a vCPU, there and back, with something to spare.
SPIN_NANOSECONDS = 50_000
SPIN_PATIENCE = 4
SPIN_PROBE = 64
#: How long :meth:`ServeLoop.rounds` goes on, and how long it waits for an event in each round. A vCPU that runs needs
#: some microseconds to come out of a store; one that the toolstack has paused may take for ever.
ROUNDS_SECONDS = 1.0
ROUND_SECONDS = 0.005


class UnsyncQueue(Protocol):
    """The write traps, as far as they concern serving: :class:`xengt_dm.traps.write_traps.WriteTraps`."""

    def take_retries(self) -> list[int]: ...


class Shadows(Protocol):
    """The shadows, as far as they concern serving: :class:`xengt_dm.ppgtt.engine.Engine`."""

    def unsync(self, gfn: int) -> bool: ...


class Spin:
    """How long to look for the next request before going back to sleep.

    Facts: a guest writes its tables in runs, and its next store comes a few microseconds after the answer to the last;
    going to sleep and waking up again takes many times that. With one CPU, looking keeps the vCPU itself from running.
    What we do: look for :data:`SPIN_NANOSECONDS`, if there is a second CPU and looking has paid lately; after
    :data:`SPIN_PATIENCE` times in vain, only at every :data:`SPIN_PROBE` th occasion. Cost: that much CPU after a run.
    """

    def __init__(self, cpus: int) -> None:
        self._useful = cpus > 1
        self._failures = 0

    def nanoseconds(self) -> int:
        """How long to look this time."""
        if not self._useful:
            return 0
        if self._failures >= SPIN_PATIENCE:
            self._failures += 1
            if self._failures % SPIN_PROBE:
                return 0
        return SPIN_NANOSECONDS

    def was_lucky(self, lucky: bool) -> None:
        """Whether a request came while we looked."""
        self._failures = 0 if lucky else self._failures + 1


class ServeLoop:
    """Serves the requests of one server. ``stats`` is the ``xd_stats *`` that counts its wake-ups."""

    def __init__(self, server: IoreqServer, bus: Bus, traps: UnsyncQueue, shadows: Shadows, stats: CData) -> None:
        self._server = server
        self._slots = server.slots
        self._channels = server.channels
        self._bus = bus
        self._traps = traps
        self._shadows = shadows
        self._stats = stats
        self._spin = Spin(len(os.sched_getaffinity(0)))

    @property
    def wakeups(self) -> int:
        """How often :meth:`serve` has woken up."""
        return int(self._stats.wakeups)

    def waiting(self) -> bool:
        """Whether a vCPU waits for an answer now."""
        return self._slots.waiting()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises CallError."""
        self.answer_begun()
        task_status.started()
        fd = self._channels.events.fd
        while True:
            await trio.lowlevel.wait_readable(fd)
            self._stats.wakeups += 1
            self.service()

    def answer_begun(self) -> int:
        """Answer what a predecessor began, and what came before the channels were bound; no event will tell of either.

        Returns how many requests that were. Raises CallError.
        """
        return self._answer(self._slots.take(begun=True))

    def service(self) -> int:
        """After a wake-up: answer everything that waits, and what comes meanwhile. Returns how many requests that were.

        Raises CallError.
        """
        if not self._channels.bound:
            return 0  # nobody could be told of an answer
        served = 0
        for _ in range(ROUNDS):
            spin = self._spin.nanoseconds()
            requests = self._slots.await_(spin)
            if spin:
                self._spin.was_lucky(bool(requests))
            if requests:
                served += self._answer(requests)
                if self._retry_unsyncs():
                    break  # that may have paused the domain; nothing was drained, so what came meanwhile wakes us again
                continue
            # The channels were masked since they fired, so what came meanwhile raised no event. Now that they are not,
            # one more look finds what came before the unmasking.
            fired = self._channels.events.drain()
            taken = self._answer(self._slots.take()) if fired else 0
            if not taken:
                if fired and not served:
                    self._stats.counters.spurious_events += 1
                break
            served += taken
        return served

    def _answer(self, requests: list[Request]) -> int:
        """Handle requests and answer them. Returns how many those are."""
        for request in requests:
            vcpu = request.vcpu
            self._slots.answer(vcpu, self._bus.handle(request))
            self._channels.notify(vcpu)
        return len(requests)

    def _retry_unsyncs(self) -> bool:
        """Now that no store is being handled, unsync the tables whose own stores could not. Returns False if none."""
        retries = self._traps.take_retries()
        if not retries:
            return False
        self._slots.await_taken()
        for gfn in retries:
            self._shadows.unsync(gfn)
        return True

    # Without an event loop

    def rounds(self) -> Iterator[None]:
        """Serve, and have the caller look after each round whether it has what it waits for.

        Ends by itself after :data:`ROUNDS_SECONDS`, counted in rounds, too: a host that stands still for longer than
        that stops the vCPUs, too. Ends when the server is gone. Raises CallError.
        """
        end = time.monotonic() + ROUNDS_SECONDS
        poll = select.poll()
        poll.register(self._channels.events.fd, select.POLLIN)
        for made in itertools.count():
            if not self._server.exists():
                return
            self.answer_all()
            self._slots.await_taken()
            yield
            if made * ROUND_SECONDS >= ROUNDS_SECONDS and time.monotonic() >= end:
                return
            poll.poll(ROUND_SECONDS * 1000)
            self._channels.events.drain()

    def answer_all(self) -> None:
        """Answer everything, in whatever state; also what cannot be handled, since no vCPU may wait on.

        A vCPU whose channel could not be bound, or not be notified, is tried again. Raises the first error, when all
        is done; a domain that is gone is none.
        """
        attempt = BestEffort()
        vcpus = range(self._slots.vcpus)
        for vcpu in vcpus:
            if vcpu not in self._channels.bound and self._slots.state(vcpu) != lib.XD_STATE_NONE:
                attempt(self._channels.bind, [vcpu])
        for request in self._slots.take(begun=True):
            try:
                answer = self._handle_retrying(request)
            except BaseException as error:  # even a bug or an interrupt must not leave a vCPU waiting
                answer = REFUSED
                if not isinstance(error, DomainGoneError):
                    attempt.note(error)
            self._slots.answer(request.vcpu, answer)
        for vcpu in vcpus:
            attempt(self._channels.notify, vcpu)
        attempt.finish()

    def _handle_retrying(self, request: Request) -> Answer:
        try:
            return self._bus.handle(request)
        except HostError:
            return self._bus.handle(request)
