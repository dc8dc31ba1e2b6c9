"""Serving: take requests out of their slots, handle them, answer, and tell the vCPUs.

In the life of a daemon :meth:`ServeLoop.serve` does that, as a task beside the others. Before the end, when there is no
event loop any more, :meth:`ServeLoop.rounds` does.

A request that takes long is a :class:`Job`: its work is done in slices (:mod:`xengt_dm.steps`), one slice of each job
in turn, and it is answered at the end. After each slice the slots are looked at, so a vCPU waits for one slice of
others at most. A vCPU has one request at a time, so there are as many jobs as vCPUs at most. Commands of the operator
that take long run by :meth:`ServeLoop.run`, which looks at the slots in the same way.
"""

from __future__ import annotations

import itertools
import math
import select
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol, TypeVar

import trio

from xengt_dm._core import lib
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.best_effort import BestEffort
from xengt_dm.ioreq.burst import NEVER, NOW, Burst, Handed
from xengt_dm.ioreq.bus import REFUSED, Answer, Bus
from xengt_dm.ioreq.doorbell import Doorbell
from xengt_dm.ioreq.journal import Journal
from xengt_dm.ioreq.quick import Quick
from xengt_dm.ioreq.request import Request
from xengt_dm.ioreq.server import IoreqServer
from xengt_dm.ioreq.slots import Take
from xengt_dm.steps import Slices, Steps, complete
from xengt_dm.units import CData

_T = TypeVar("_T")

_NOT_TRIED: int = lib.XD_NOT_TRIED
_SUBMITTED: int = lib.XD_SUBMITTED

#: How often :meth:`ServeLoop.service` looks for more.
ROUNDS = 64
#: How long slices of jobs go on before other tasks run.
TURN_NANOSECONDS = 1_000_000
#: How long :meth:`ServeLoop.rounds` goes on, and how long it waits for an event in each round. A vCPU that runs needs
#: some microseconds to come out of a store; one that the toolstack has paused may take for ever.
ROUNDS_SECONDS = 1.0
ROUND_SECONDS = 0.005


class Job(NamedTuple):
    """The request of a vCPU that is not done yet."""

    vcpu: int
    work: Steps[Answer]


class Deferring(Protocol):
    """Has frames that trap although nobody needs it; :class:`~xengt_dm.traps.write_traps.WriteTraps` is one."""

    @property
    def deferred(self) -> int:
        """How many."""

    def unprotect_deferred(self) -> bool:
        """Try again to unprotect these. Returns False if a deferred unprotect is left."""


class DeviceWork(Protocol):
    """What a device does besides answering, as :class:`xengt_dm.vgpu.engines.CoreEngines`."""

    def due(self) -> int:
        """When it wants to run, a time of ``xd_now``: NOW, or NEVER."""

    def run(self) -> None:
        """A slice of it, if it is due."""

    def halt(self) -> None:
        """It does nothing any more; the end is near."""

    def follow_up(self) -> bool:
        """Do what C asks for, such as an interrupt. Returns whether it asked for anything."""

    def submitted(self, engine: int) -> Steps[None]:
        """What is left of a register write that C began, which has submitted a list to this engine."""


class NoWork:
    """:class:`DeviceWork` of a device that does nothing by itself."""

    def due(self) -> int:
        return NEVER

    def run(self) -> None: ...

    def halt(self) -> None: ...

    def follow_up(self) -> bool:
        return False

    def submitted(self, engine: int) -> Steps[None]:
        yield from ()


class ServeLoop:
    """Serves the requests of one server. ``stats`` is the ``xd_stats *`` that counts what it does.

    ``traps``: their deferred unprotecting is tried again whenever Python has answered something, because the request
    that was in its way may be over then.

    ``quick``: what C serves by itself; without it Python serves everything.
    """

    def __init__(
        self,
        server: IoreqServer,
        bus: Bus,
        journal: Journal,
        traps: Deferring,
        stats: CData,
        quick: Quick | None = None,
        work: DeviceWork | None = None,
    ) -> None:
        self._server = server
        self._slots = server.slots
        self._channels = server.channels
        self._bus = bus
        self._journal = journal
        self._traps = traps
        self._stats = stats
        self._work: DeviceWork = NoWork() if work is None else work
        #: What C serves by itself; None: nothing.
        self.quick = quick
        self.burst = Burst(server.slots, server.channels, quick, stats)
        #: Requests that are not done yet, the next one to get a slice first.
        self._jobs: deque[Job] = deque()

    @property
    def activity(self) -> int:
        """Grows with each event that wakes the loop and with each request: a burst that spins needs no events."""
        stats = self._stats
        return int(stats.wakeups + stats.burst_requests + stats.handed_requests)

    @property
    def busy(self) -> bool:
        """Whether requests are begun and not done."""
        return bool(self._jobs)

    def waiting(self) -> bool:
        """Whether a vCPU waits for an answer now."""
        return bool(self._jobs) or self._slots.waiting()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises CallError.

        Whatever this thread waits for, it waits for in a burst: trio's other tasks run when one of them can, and when a
        deadline of theirs has come.
        """
        doorbell = Doorbell()
        with doorbell.listening(), self.burst.owned(doorbell.fd):
            self.answer_begun()
            task_status.started()
            await trio.lowlevel.checkpoint()
            try:
                while True:
                    await self._let_others_run(doorbell)
                    if self._jobs:
                        self.take_turns()
                    else:
                        self._serve_bursts(doorbell, min(doorbell.deadline(), self._work.due()))
                    self._work.run()
            finally:
                self.burst.unmask()

    async def _let_others_run(self, doorbell: Doorbell) -> None:
        if doorbell.fd is None and not self._jobs:
            due = self._work.due()
            seconds = math.inf if due == NEVER else max(due - lib.xd_now(), 0) / 1e9
            with trio.move_on_after(seconds):
                await trio.lowlevel.wait_readable(self._channels.events.fd)
        else:
            await trio.lowlevel.checkpoint()

    def _serve_bursts(self, doorbell: Doorbell, until: int) -> None:
        """Serve bursts until ``until``, until another task of trio's has something to do, or a request becomes a job.

        Ends also after :data:`TURN_NANOSECONDS` in which each burst ended with a request for Python, since these may
        never look at the doorbell.
        """
        turn = None
        while True:
            handed = self.burst.run(until)
            if not self._work.follow_up() and not handed:
                return
            self._answer_handed(handed)
            self._retry_deferred()
            now = lib.xd_now()
            turn = turn or now + TURN_NANOSECONDS
            if self._jobs or now >= turn or doorbell.rang:
                return

    async def run(self, work: Steps[_T]) -> _T:
        """Run work that an operator asked for, with requests served after each slice. Returns its value.

        Raises what the work raises. Cancelled, it closes the work.
        """
        try:
            turn = lib.xd_now() + TURN_NANOSECONDS
            slices = Slices(work)
            for _ in slices:
                self._look()
                if lib.xd_now() >= turn:
                    await trio.lowlevel.checkpoint()
                    turn = lib.xd_now() + TURN_NANOSECONDS
            return slices.value
        finally:
            work.close()

    def take_turns(self) -> None:
        """Do slices of jobs, each job in its turn, for :data:`TURN_NANOSECONDS` at most; serve requests in between."""
        end = lib.xd_now() + TURN_NANOSECONDS
        while self._jobs:
            self._slice(self._jobs.popleft())
            self._look()
            if lib.xd_now() >= end:
                return

    def answer_begun(self) -> int:
        """Continues the requests that a predecessor began, then handles those that came before the channels were bound.

        No event reports either. Returns how many requests that were. Raises CallError.
        """
        begun = self._slots.take(Take.BEGUN)
        for request in begun:
            if self._journal.begin_again(request.vcpu):
                self._do(request.vcpu, self._bus.handle_begun(request))
            else:
                self._do(request.vcpu, self._bus.give_up())
        return len(begun) + self._answer(self._slots.take())

    def service(self) -> int:
        """Answer everything that waits, and what comes meanwhile, without waiting. Returns how many requests that were.

        Raises CallError.
        """
        if not self._channels.bound:
            return 0  # no vCPU could be notified
        before, handed_over = self.burst.served, 0
        for _ in range(ROUNDS):
            served = self.burst.served
            handed = self.burst.run(NOW)
            handed_over += len(handed)
            self._work.follow_up()
            self._answer_handed(handed)
            self._retry_deferred()
            if not handed and self.burst.served == served:
                break
        return self.burst.served - before + handed_over

    def _answer(self, requests: list[Request]) -> int:
        """Handle requests, and answer them or make them jobs. Returns how many those are."""
        for request in requests:
            self._do(request.vcpu, self._bus.handle(request))
        return len(requests)

    def _answer_handed(self, handed: Handed) -> None:
        """Handle what C left."""
        bus = self._bus
        for request, tried in handed:
            if tried == _NOT_TRIED:
                outcome = bus.handle(request)
            elif tried >= _SUBMITTED:
                outcome = bus.finish_write(request, self._work.submitted(tried - _SUBMITTED))
            else:
                outcome = bus.follow(request, tried)
            self._do(request.vcpu, outcome)

    def _do(self, vcpu: int, outcome: Answer | Steps[Answer]) -> None:
        """Answer a request, or make it a job."""
        if isinstance(outcome, Answer):
            self._answer_one(vcpu, outcome)
        elif self._jobs:
            self._jobs.append(Job(vcpu, outcome))
        else:  # most are done within a slice
            self._slice(Job(vcpu, outcome))

    def _slice(self, job: Job) -> None:
        """Do a slice of a job. At its end, answer the request; else the job waits for its next turn."""
        try:
            next(job.work)
        except StopIteration as end:
            self._answer_one(job.vcpu, end.value)
        else:
            self._jobs.append(job)

    def _look(self) -> None:
        """Serve what waits in the slots now. The event that tells of it stays for :meth:`service`."""
        if self._channels.bound:
            self._answer_handed(self.burst.look())
            self._work.follow_up()

    def _answer_one(self, vcpu: int, answer: Answer) -> None:
        self._slots.answer(vcpu, answer)
        self._channels.notify(vcpu)

    def _retry_deferred(self) -> None:
        if self._traps.deferred:
            self._traps.unprotect_deferred()

    # Without an event loop

    def halt_device(self) -> None:
        """The device does nothing by itself any more."""
        self._work.halt()

    def leave(self) -> None:
        """Leave the requests that are begun to a successor, which does not count that as an attempt."""
        while self._jobs:
            job = self._jobs.popleft()
            self._journal.forgive(job.vcpu)
            job.work.close()

    def close(self) -> None:
        """Safe to call twice. Nothing may be served afterwards."""
        self.burst.close()

    def rounds(self) -> Iterator[None]:
        """Serves in rounds, and yields after each one, so that the caller can check its condition.

        Ends when :data:`ROUNDS_SECONDS` have passed and as many rounds were made as fit into them: if the host is
        suspended, the vCPUs are, too, so the time alone does not count. Ends when the server is gone. Raises CallError.
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

    def complete(self, work: Steps[_T]) -> _T:
        """Runs work to its end, and answers everything after each slice. Returns its value, raises what it raises."""
        slices = Slices(work)
        for _ in slices:
            self.answer_all()
        return slices.value

    def answer_all(self) -> None:
        """Answers every request, in any state, even if it cannot be handled, because no vCPU may be left waiting.

        A vCPU whose channel could not be bound, or not be notified, is tried again. Raises the first error, when all
        is done; a domain that is gone is none.
        """
        attempt = BestEffort()
        vcpus = range(self._slots.vcpus)
        for vcpu in vcpus:
            if vcpu not in self._channels.bound and self._slots.state(vcpu) != lib.XD_STATE_NONE:
                attempt(self._channels.bind, [vcpu])
        while self._jobs:
            attempt.once(self._finish, self._jobs.popleft())
        for request in self._slots.take(Take.ALL):  # and what is left of a job that failed
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

    def _finish(self, job: Job) -> None:
        self._slots.answer(job.vcpu, complete(job.work))

    def _handle_retrying(self, request: Request) -> Answer:
        try:
            return self._handle_whole(request)
        except HostError:
            return self._handle_whole(request)

    def _handle_whole(self, request: Request) -> Answer:
        outcome = self._bus.handle_begun(request)
        return outcome if isinstance(outcome, Answer) else complete(outcome)
