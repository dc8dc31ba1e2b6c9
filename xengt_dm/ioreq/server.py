"""The ioreq server: its life in the hypervisor, and answering what comes.

Life
----
Everything acquired is released by one ExitStack, so the order of the acquisitions is the order of the teardown, read
backwards:

    create or adopt -> write down the id -> map the slots -> enable -> claim the type -> bind the ports
    release the type -> answer -> disable -> answer what is left -> unbind -> unmap -> destroy -> strike the id out

(The ports can be bound only once the server is enabled, because Xen then writes their numbers into the slots, and must
stay bound until the last answer is notified.)

A server outlives its process: Xen destroys it only on request or with its domain, and a vCPU that waits for it waits
for ever. So its id is on disk before anything depends on it, and a successor adopts what it finds: the slots with the
requests in them, whatever state these are in; performing a store twice is harmless. What the predecessor had protected
is released, because only its own memory knew what that was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

from xengt_dm._core import ffi, lib
from xengt_dm.cdata import CData
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.port import DomainPort, WriteTrap
from xengt_dm.ioreq.bus import ALL_ONES
from xengt_dm.ioreq.request import Request

#: How often a wake-up looks for more before it lets other tasks run.
ROUNDS = 64

Handler = Callable[[Request], int]


class IdRecord(Protocol):
    """Where the id of the server is kept for a successor."""

    def read(self) -> int | None: ...

    def write(self, server: int) -> None: ...

    def clear(self) -> None: ...


class IoreqServer:
    """A live server. Made by :func:`open_server`."""

    def __init__(self, port: DomainPort, server: int, page: int, vcpus: int, counters: CData) -> None:
        self.port = port
        self.id = server
        self.vcpus = vcpus
        self._page: CData = ffi.cast("void *", page)
        self._taken: CData = ffi.new("xd_taken[]", vcpus)
        self._counters = counters
        self._timing: CData = ffi.addressof(counters, "timing")
        self._local: dict[int, int] = {}
        self._handler: Handler = _ignore

    def bind(self, handler: Handler) -> None:
        """Bind every vCPU's event channel; from here on requests go to ``handler``. The server must be enabled."""
        self._handler = handler
        for vcpu in range(self.vcpus):
            self._local[vcpu] = self.port.events.bind(lib.xd_slot_port(self._page, vcpu))

    def unbind(self) -> None:
        self._handler = _ignore
        while self._local:
            _, local = self._local.popitem()
            self.port.events.unbind(local)

    def service(self) -> int:
        """Answer everything that waits, and what comes meanwhile; returns how many requests that were."""
        events = self.port.events
        served = 0
        for _ in range(ROUNDS):
            fired = events.drain()
            taken = self.answer_waiting()
            if not taken:
                if fired and not served:
                    self._counters.spurious_events += 1
                break
            served += taken
        return served

    def answer_waiting(self, adopt: bool = False) -> int:
        """Answer what waits in the slots; with ``adopt``, also what was begun and not answered."""
        page = self._page
        timing = self._timing
        count = lib.xd_slots_take(page, self.vcpus, adopt, self._taken, timing) if self._local else 0
        for i in range(count):
            request = Request.from_taken(self._taken[i])
            lib.xd_slot_answer(page, request.vcpu, self._handler(request), timing)
            self.port.events.notify(self._local[request.vcpu])
        return int(count)

    def answer_the_last(self) -> None:
        """Answer everything, in whatever state; also what cannot be done, for no vCPU may wait on."""
        try:
            self.answer_waiting(adopt=True)
        except HostError:
            self._handler = _ignore
            self.answer_waiting(adopt=True)
            raise


def _ignore(request: Request) -> int:
    return ALL_ONES


@contextmanager
def open_server(port: DomainPort, record: IdRecord, counters: CData) -> Iterator[IoreqServer]:
    """An ioreq server in ``port``'s domain: enabled, claiming the type, with no port bound and no range mapped.

    On the way out, every waiting vCPU has been answered. Raises HostError if any step fails, with what came before
    undone; if the domain is gone there is nothing to undo, and that is no error.
    """
    with ExitStack() as stack:
        vcpus = port.vcpu_count()
        server_id = _adopt(port, record)
        adopted = server_id is not None
        if server_id is None:
            server_id = port.create_server()
        stack.callback(record.clear)
        stack.callback(_unless_gone, port.destroy_server, server_id)
        record.write(server_id)
        page = port.map_slots(server_id)
        stack.callback(port.unmap_slots, server_id)
        server = IoreqServer(port, server_id, page, vcpus, counters)
        stack.callback(_unless_gone, server.unbind)
        port.set_server_state(server_id, True)
        stack.callback(_unless_gone, _disable, server)
        if port.write_trap is WriteTrap.CLAIM:
            if adopted:
                with suppress(HostError):  # the predecessor may have died before it claimed
                    port.release_writes(server_id)
            port.claim_writes(server_id)
            stack.callback(_unless_gone, _release, server)
        yield server


def _adopt(port: DomainPort, record: IdRecord) -> int | None:
    """The id of a predecessor's server if it is still there."""
    server = record.read()
    return server if server is not None and port.server_exists(server) else None


def _release(server: IoreqServer) -> None:
    server.port.release_writes(server.id)
    server.service()


def _disable(server: IoreqServer) -> None:
    server.port.set_server_state(server.id, False)
    server.answer_the_last()


def _unless_gone(call: Callable[..., None], *arguments: object) -> None:
    """A step of the teardown; a domain that is gone took everything of ours with it."""
    with suppress(DomainGoneError):
        call(*arguments)
