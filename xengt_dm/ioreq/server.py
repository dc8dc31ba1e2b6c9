"""The ioreq server: its life in the hypervisor, and answering what comes.

Life
----
Everything acquired is released by one ExitStack, so the order of the acquisitions is the order of the teardown, read
backwards:

    create or adopt -> write down the id -> map the slots -> enable -> claim the type -> bind the ports
    release the type -> disable -> answer what is left -> unbind -> unmap -> destroy -> strike the id out

(The ports can be bound only once the server is enabled, because Xen then writes their numbers into the slots, and must
stay bound until the last answer is notified.)

Each step of the teardown is tried twice, and one that fails does not keep the others from being made.

A server outlives its process: Xen destroys it only on request or with its domain, and a vCPU that waits for it waits
for ever. So its id is on disk before anything depends on it, and a successor adopts what it finds: the slots with the
requests in them, whatever state these are in; performing a store twice is harmless. What the predecessor had protected
is released, because only its own memory knew what that was. A successor that fails before it can answer leaves the
server as it found it, with all that waits, for the next.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

from xengt_dm._core import ffi, lib
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.port import DomainPort, WriteTrap
from xengt_dm.ioreq.adoption import reset_frames
from xengt_dm.ioreq.bus import REFUSED, Answer
from xengt_dm.ioreq.request import Request, RequestType
from xengt_dm.traps.retry import released, twice
from xengt_dm.units import CData

#: How often a wake-up looks for more before it lets other tasks run.
ROUNDS = 64
#: What a trip through Xen takes a vCPU, there and back, with something to spare.
SPIN_NANOSECONDS = 50_000
SPIN_PATIENCE = 4
SPIN_PROBE = 64
#: What a vCPU takes at most to wake up and take its answer, if it gets a CPU.
TAKE_NANOSECONDS = 200_000
#: How long the teardown waits for vCPUs that are in the middle of a store, all in all and between two looks. One that
#: runs needs some microseconds; one that the toolstack has paused may take for ever, and loses the rest of its store.
STRAGGLER_SECONDS = 1.0
LOOK_SECONDS = 0.005

_FRAME_SHIFT = 12

Handler = Callable[[Request], Answer]


class IdRecord(Protocol):
    """Where the id of the server is kept for a successor."""

    def read(self) -> int | None: ...

    def write(self, server: int) -> None: ...

    def clear(self) -> None: ...


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
        if not self._useful:
            return 0
        if self._failures >= SPIN_PATIENCE:
            self._failures += 1
            if self._failures % SPIN_PROBE:
                return 0
        return SPIN_NANOSECONDS

    def was_lucky(self, lucky: bool) -> None:
        self._failures = 0 if lucky else self._failures + 1


class IoreqServer:
    """A live server. Made by :func:`open_server`."""

    def __init__(
        self, port: DomainPort, server: int, page: int, vcpus: int, counters: CData, adopted: bool = False
    ) -> None:
        self.port = port
        self.id = server
        self.vcpus = vcpus
        #: Whether a predecessor made it, and left in it what it had.
        self.adopted = adopted
        #: Whether it is ours to take down: at once if we made it, else from when we can answer.
        self.ours = not adopted
        self._page: CData = ffi.cast("void *", page)
        self._taken: CData = ffi.new("xd_taken[]", vcpus)
        self._counters = counters
        self._timing: CData = ffi.addressof(counters, "timing")
        self._local: dict[int, int] = {}
        self._handler: Handler = _ignore
        self._claimed = False
        #: Called when answers have been given, and no request is being handled. True if that took its time, and other
        #: tasks are to have theirs.
        self.after_answers: Callable[[], bool] = _nothing
        #: Frames that :meth:`claim` left protected, because requests of a predecessor's time name them.
        self.inherited: list[int] = []
        self._spin = Spin(len(os.sched_getaffinity(0)))

    def claim(self, anew: bool = False) -> None:
        """Have stores to pages of the type come here. ``anew``: a predecessor may have left its claim.

        Raises HostError if the domain is being migrated or saved, or another server has the claim.
        """
        if self.port.write_trap is not WriteTrap.CLAIM or self._claimed:
            return
        if anew:
            for gfn in self.frames_in_flight():
                self._cover(gfn)
            if self.port.stores_must_end:
                self._bind_ports()
                self.inherited = reset_frames(self)
                self._claimed = True
                return
            with suppress(HostError):  # the predecessor may have died before it claimed
                self.port.release_writes(self.id)
        self.port.claim_writes(self.id)
        self._claimed = True

    def _cover(self, gfn: int) -> None:
        """Have the end of a store come here that was begun because of the type."""
        try:
            twice(self.port.map_mmio, self.id, gfn << _FRAME_SHIFT, ((gfn + 1) << _FRAME_SHIFT) - 1)
        except HostError as error:
            if error.errno != errno.EEXIST:  # which is covered already, or is a register's
                raise

    def release(self) -> None:
        """Give the claim back, if there is one, and answer what came before."""
        if self._claimed:
            self.port.release_writes(self.id)
            self._claimed = False
            self.service()

    def bind(self, handler: Handler) -> None:
        """Bind every vCPU's event channel; from here on requests go to ``handler``. The server must be enabled."""
        self._handler = handler
        self._bind_ports()
        self.ours = True

    def _bind_ports(self) -> None:
        for vcpu in range(self.vcpus):
            if vcpu not in self._local:
                self._local[vcpu] = self.port.events.bind(lib.xd_slot_port(self._page, vcpu))

    def unbind(self) -> None:
        self._handler = _ignore
        with ExitStack() as stack:
            for local in self._local.values():
                stack.callback(released, self.port.events.unbind, local)
            self._local.clear()

    def waiting(self) -> bool:
        """Whether a vCPU waits for an answer now."""
        waits = (lib.XD_STATE_READY, lib.XD_STATE_INPROCESS)
        return any(lib.xd_slot_state(self._page, vcpu) in waits for vcpu in range(self.vcpus))

    def idle(self) -> bool:
        """Whether every vCPU has taken its last answer. Xen forgets those of a server that is destroyed before."""
        return all(lib.xd_slot_state(self._page, vcpu) == lib.XD_STATE_NONE for vcpu in range(self.vcpus))

    def service(self) -> int:
        """Answer everything that waits, and what comes meanwhile; returns how many requests that were."""
        drain = self.port.events.drain
        served = 0
        for _ in range(ROUNDS):
            taken = self.answer_waiting(spin=self._spin.nanoseconds())
            if taken:
                served += taken
                if self.after_answers():
                    break  # nothing was drained, so what comes meanwhile wakes us
                continue
            # The channels were masked since they fired, so what came meanwhile raised no event. Now that they are not,
            # one more look finds what came before the unmasking.
            fired = drain()
            taken = self.answer_waiting() if fired else 0
            if not taken:
                if fired and not served:
                    self._counters.spurious_events += 1
                break
            served += taken
        return served

    def answer_waiting(self, *, adopt: bool = False, spin: int = 0) -> int:
        """Answer what waits in the slots; with ``adopt``, also what was begun and not answered.

        If nothing waits, look for up to ``spin`` nanoseconds whether something comes.
        """
        if not self._local:
            return 0
        page, taken, timing = self._page, self._taken, self._timing
        if adopt:
            count = lib.xd_slots_take(page, self.vcpus, 1, taken, timing)
        else:
            count = lib.xd_slots_await(page, self.vcpus, spin, taken, timing)
        for i in range(count):
            request = Request.from_taken(taken[i])
            data, route = self._handler(request)
            lib.xd_slot_answer(page, request.vcpu, data, route, timing)
            local = self._local.get(request.vcpu)
            if local is not None:
                self.port.events.notify(local)
        if spin:
            self._spin.was_lucky(bool(count))
        return int(count)

    def frames_in_flight(self) -> set[int]:
        """Frames that a vCPU may be in the middle of a store to while it waits for us.

        From its request to where it takes the answer, a slot is not NONE. What is left of the store lies further up,
        and a store has 64 bytes at most. Requests of other types name no frame: INVALIDATE has 0 for an address.
        """
        slots = ffi.cast("xd_ioreq *", self._page)
        frames: set[int] = set()
        for vcpu in range(self.vcpus):
            if lib.xd_slot_state(self._page, vcpu) != lib.XD_STATE_NONE and slots[vcpu].type == RequestType.COPY:
                gfn = slots[vcpu].addr >> _FRAME_SHIFT
                frames.update((gfn, gfn + 1))
        return frames

    def waiting_in(self, first: int, last: int) -> list[int]:
        """The vCPUs that wait for an answer to an access that begins in gpa ``first``..``last``."""
        slots = ffi.cast("xd_ioreq *", self._page)
        return [
            vcpu
            for vcpu in range(self.vcpus)
            if lib.xd_slot_state(self._page, vcpu) in (lib.XD_STATE_READY, lib.XD_STATE_INPROCESS)
            and slots[vcpu].type == RequestType.COPY
            and first <= slots[vcpu].addr <= last
        ]

    def latest_frames(self) -> tuple[set[int], set[int]]:
        """The frames that the vCPUs' latest requests store to: those not known to Xen as done, and those that are.

        Also of the latter the instruction may be going on, until the domain has been paused.
        """
        slots = ffi.cast("xd_ioreq *", self._page)
        frames: tuple[set[int], set[int]] = set(), set()
        for vcpu in range(self.vcpus):
            done = lib.xd_slot_state(self._page, vcpu) == lib.XD_STATE_NONE
            slot = slots[vcpu]
            if slot.type == RequestType.COPY and not slot.bits & lib.XD_BIT_READ:
                frames[done].add(slot.addr >> _FRAME_SHIFT)
        return frames

    def await_taken(self) -> None:
        """Give the vCPUs a moment to take their answers."""
        lib.xd_slots_await_taken(self._page, self.vcpus, TAKE_NANOSECONDS)

    def notify_answered(self) -> int:
        """Tell the vCPUs whose answers are there and not taken, once more; how many those are."""
        answered = [v for v in self._local if lib.xd_slot_state(self._page, v) == lib.XD_STATE_RESP_READY]
        for vcpu in answered:
            self.port.events.notify(self._local[vcpu])
        return len(answered)

    def answer_until(self, quiet: Callable[[], bool]) -> None:
        """Answer until nobody needs us any more, for a second at most.

        A host that stands still for longer than that stops the vCPUs, too; so the time is up only after so many looks.
        """
        end = time.monotonic() + STRAGGLER_SECONDS
        poll = select.poll()
        poll.register(self.port.events.fd, select.POLLIN)
        for looks in itertools.count():
            if not self.port.server_exists(self.id):
                return  # it went with its domain, whose vCPUs take no answer any more
            self.answer_the_last()
            self.await_taken()
            if quiet() or (looks * LOOK_SECONDS >= STRAGGLER_SECONDS and time.monotonic() >= end):
                return
            poll.poll(LOOK_SECONDS * 1000)
            self.port.events.drain()

    def answer_the_last(self) -> None:
        """Answer everything, in whatever state; also what cannot be done, for no vCPU may wait on.

        A vCPU whose port could not be bound, or not be notified, is tried again.
        """
        with ExitStack() as stack:
            for vcpu in range(self.vcpus):
                if vcpu not in self._local and lib.xd_slot_state(self._page, vcpu) != lib.XD_STATE_NONE:
                    try:
                        self._local[vcpu] = self.port.events.bind(lib.xd_slot_port(self._page, vcpu))
                    except HostError as error:
                        stack.callback(_raise, error)
            for local in self._local.values():
                stack.callback(twice, self.port.events.notify, local)
            try:
                twice(lambda: self.answer_waiting(adopt=True))
            except HostError:
                self._handler = _ignore
                self.answer_waiting(adopt=True)
                raise


def _ignore(request: Request) -> Answer:
    return REFUSED


def _nothing() -> bool:
    return False


def _raise(error: HostError) -> None:
    raise error


@contextmanager
def open_server(port: DomainPort, record: IdRecord, counters: CData) -> Iterator[IoreqServer]:
    """An ioreq server in ``port``'s domain: enabled, claiming the type, with no port bound and no range mapped.

    On the way out, every waiting vCPU has been answered. Raises HostError if any step fails, with what came before
    undone; if the domain is gone there is nothing to undo, and that is no error.
    """
    server: IoreqServer | None = None

    def undo(step: Callable[..., None], *arguments: object) -> None:
        if not adopted or (server is not None and server.ours):
            step(*arguments)

    with ExitStack() as stack:
        _ = port.write_trap  # refused before anything is made
        vcpus = port.vcpu_count()
        server_id = _adopt(port, record)
        adopted = server_id is not None
        if server_id is None:
            server_id = port.create_server()
        stack.callback(undo, _destroy, port, server_id, record)
        record.write(server_id)
        page = port.map_slots(server_id)
        stack.callback(port.unmap_slots, server_id)
        server = IoreqServer(port, server_id, page, vcpus, counters, adopted)
        stack.callback(server.unbind)
        port.set_server_state(server_id, True)
        stack.callback(undo, released, server.answer_until, server.idle)
        stack.callback(undo, released, server.answer_the_last)
        stack.callback(undo, released, port.set_server_state, server_id, False)
        server.claim(anew=adopted)
        stack.callback(undo, released, server.release)
        yield server
        server.ours = True


def _adopt(port: DomainPort, record: IdRecord) -> int | None:
    """The id of a predecessor's server if it is still there."""
    server = record.read()
    return server if server is not None and port.server_exists(server) else None


def _destroy(port: DomainPort, server: int, record: IdRecord) -> None:
    """What cannot be destroyed stays on record, for a successor."""
    released(port.destroy_server, server)
    record.clear()
