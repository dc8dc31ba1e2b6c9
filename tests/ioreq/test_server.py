"""An ioreq server's life and its serving, on the embedded hypervisor: the order of the steps, and that every vCPU gets
its answer.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from tests.support.device_model import PATIENCE, DeviceModel
from tests.support.faults import fail_nth, wait_until_blocked
from xengt_dm._core import ffi, lib
from xengt_dm.adoption import adopt_without_state
from xengt_dm.ending import stop
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort, Vcpu
from xengt_dm.instance import start
from xengt_dm.ioreq.bar import Bar
from xengt_dm.ioreq.bus import Answer, Bus
from xengt_dm.ioreq.journal import Journal
from xengt_dm.ioreq.loop import ServeLoop
from xengt_dm.ioreq.ranges import NoRangeRecord, Range, RangeKind
from xengt_dm.ioreq.request import Request
from xengt_dm.ioreq.server import IoreqServer, attach, left_server
from xengt_dm.traps import claim
from xengt_dm.traps.claim import ClaimTraps

BAR = 0xF000_0000
BAR_RANGE = Range(RangeKind.MEMORY, BAR, BAR + 0xFFFF)
VCPUS = 3


class Recorder:
    """A port, or its event channels, with every call written down by name."""

    def __init__(self, inner: object, calls: list[str]) -> None:
        self._inner = inner
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name == "events":
            return Recorder(value, self._calls)
        if not callable(value):
            return value

        def call(*arguments: object) -> object:
            enabled = f" {arguments[1]}" if name == "set_server_state" else ""
            self._calls.append(name + enabled)
            return value(*arguments)

        return call


class Record:
    """An id on paper."""

    certain = True

    def __init__(self, calls: list[str], server: int | None = None) -> None:
        self.server = server
        self._calls = calls

    def read(self) -> int | None:
        return self.server

    def write(self, server: int) -> None:
        self._calls.append("write down")
        self.server = server

    def clear(self) -> None:
        self._calls.append("strike out")
        self.server = None


class Life:
    def __init__(self, domain: EmbeddedDomain) -> None:
        self.domain = domain
        self.calls: list[str] = []
        self.record = Record(self.calls)
        self.stats = ffi.new("xd_stats *")
        self.counters = self.stats.counters
        self.journal = Journal.private()
        self.requests: list[Request] = []
        self.plain: EmbeddedPort = domain.port()
        self.port: Any = Recorder(self.plain, self.calls)
        self.server: IoreqServer
        self.traps: ClaimTraps

    def handle_begun(self, request: Request) -> Answer:
        return self.handle(request)

    def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        return Answer(0x600D0000 + request.vcpu, lib.XD_ROUTE_REGISTER_READ)

    @contextmanager
    def attached(self) -> Iterator[ServeLoop]:
        """A server that exists, whose loop :meth:`handle` answers."""
        timing = ffi.addressof(self.stats.counters, "timing")
        left = left_server(self.port, self.record)
        server = self.server = attach(self.port, left, self.record, NoRangeRecord(), timing, self.journal)
        self.traps = ClaimTraps(self.port, server.id, server.slots, server.ranges)
        loop = ServeLoop(server, self, self.journal, self.traps, self.stats)  # type: ignore[arg-type]
        try:
            yield loop
        finally:
            stop(server, loop, self.traps, self)  # type: ignore[arg-type]

    def abandon(self) -> None:
        """As the engine's."""

    def close(self) -> None:
        """As the engine's."""

    def bars(self) -> dict[Bar, int]:
        """Where the device is; the bus behind it is never asked."""
        bus = Bus(self, self.counters, self.journal)  # type: ignore[arg-type]
        return {Bar(bus, self, BAR_RANGE.last - BAR + 1, self.server): BAR}  # type: ignore[arg-type]

    @contextmanager
    def serving(self) -> Iterator[ServeLoop]:
        with self.attached() as loop:
            start(self.server, self.bars())
            yield loop

    @contextmanager
    def adopting(self, server: int) -> Iterator[ServeLoop]:
        self.record.server = server
        with self.attached() as loop:
            assert self.server.adopted
            adopt_without_state(self.server, self.traps, self.bars(), None)
            yield loop

    def happened(self, *steps: str) -> bool:
        """Whether these steps were made in this order, whatever else was done in between."""
        rest = iter(self.calls)
        return all(step in rest for step in steps)


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(64, VCPUS) as made:
        yield made


@pytest.fixture
def life(domain: EmbeddedDomain) -> Life:
    return Life(domain)


def load(vcpu: Vcpu) -> None:
    """A vCPU reads a register, and must read what it was answered."""
    assert vcpu.load(BAR + 8 * vcpu.index, 4) == 0x600D0000 + vcpu.index


def start_all(domain: EmbeddedDomain) -> None:
    for index in range(VCPUS):
        domain.start(index, load)
    for index in range(VCPUS):
        wait_until_blocked(domain, index)


def test_the_order_of_a_life(life: Life) -> None:
    with life.serving():
        assert life.happened(
            "create_server", "write down", "map_slots", "set_server_state True", "claim_writes", "bind"
        )
        assert life.calls.count("bind") == VCPUS
        life.calls.clear()
    assert life.happened(
        "release_writes", "set_server_state False", "unbind", "unmap_slots", "destroy_server", "strike out"
    )
    assert life.calls.count("unbind") == VCPUS
    assert life.domain.owner is None
    assert life.record.server is None


def test_the_id_is_on_paper_before_anything_depends_on_it(life: Life) -> None:
    with life.serving():
        assert life.record.server == life.server.id
        assert life.calls.index("write down") < life.calls.index("set_server_state True")


def test_every_vcpu_is_answered(life: Life) -> None:
    with life.serving() as loop:
        start_all(life.domain)
        assert loop.service() == VCPUS
        assert life.domain.join(PATIENCE)
    assert sorted(request.vcpu for request in life.requests) == list(range(VCPUS))
    assert [request.addr for request in sorted(life.requests)] == [BAR + 8 * vcpu for vcpu in range(VCPUS)]


def test_a_deferred_unprotect_is_tried_again_after_the_next_answer(life: Life) -> None:
    """A request was in its way, which may be over when the next one is answered."""
    with life.serving() as loop:
        gfn = ffi.new("uint64_t[]", [9])
        assert life.traps.protect(gfn, 1, ffi.new("int[1]")) == 0
        with mock.patch.object(claim, "may_become_ram", return_value=[]):
            life.traps.unprotect(gfn, 1)
        assert (life.traps.deferred, life.domain.protected()) == (1, [9])
        start_all(life.domain)
        assert loop.service() == VCPUS
        assert life.domain.join(PATIENCE)
        assert (life.traps.deferred, life.domain.protected()) == (0, [])


def test_requests_that_came_before_the_ports_were_bound(life: Life) -> None:
    """They raised no event that we saw."""
    with life.attached() as loop:
        life.server.enable()
        life.server.add_range(BAR_RANGE)
        start_all(life.domain)
        assert loop.service() == 0
        life.server.channels.bind(range(VCPUS))
        assert loop.service() == VCPUS
        assert life.domain.join(PATIENCE)


def test_an_event_without_a_request(life: Life) -> None:
    """The first drain finds the ports as they start out: pending. Afterwards there is nothing to drain or to count."""
    with life.serving() as loop:
        for _ in range(3):
            assert loop.service() == 0
        assert life.counters.spurious_events == 1
        assert life.requests == []


def test_vcpus_that_wait_when_the_server_ends(life: Life) -> None:
    """The teardown answers them; a store to plain memory is answered or retried, a read gets what there is."""
    with life.serving():
        start_all(life.domain)
    assert life.domain.join(PATIENCE)
    assert sorted(request.vcpu for request in life.requests) == list(range(VCPUS))


def test_the_vcpus_of_a_domain_that_is_gone_are_not_waited_for(life: Life) -> None:
    with life.serving() as loop:
        start_all(life.domain)
        life.domain.destroy()
        assert not list(loop.rounds())


def test_vcpus_that_wait_when_the_handler_fails(life: Life) -> None:
    """What cannot be done is answered all the same, and the failure comes out."""

    def fail(request: Request) -> Answer:
        raise HostError("xenforeignmemory_map", 1, 12)

    def program(vcpu: Vcpu) -> None:
        vcpu.load(BAR, 4)

    def serve() -> None:
        with life.serving() as loop:
            for index in range(VCPUS):
                life.domain.start(index, program)
                wait_until_blocked(life.domain, index)
            loop.service()

    life.handle = fail  # type: ignore[method-assign]
    with pytest.raises(HostError, match="xenforeignmemory_map"):
        serve()
    assert life.domain.join(PATIENCE)
    assert life.record.server is None
    assert not life.plain.server_exists(0)


# Adoption


@pytest.fixture
def predecessor(domain: EmbeddedDomain) -> DeviceModel:
    return DeviceModel(domain, [(BAR, BAR + 0xFFFF)])


def test_a_successor_adopts_the_server_that_is_there(life: Life, predecessor: DeviceModel) -> None:
    predecessor.close()
    with life.adopting(predecessor.server):
        assert life.server.id == predecessor.server
        assert "create_server" not in life.calls
        assert life.domain.owner == life.server.id
    assert not life.plain.server_exists(predecessor.server)


def test_a_server_that_is_no_more_is_not_adopted(life: Life, predecessor: DeviceModel) -> None:
    predecessor.port.release_writes(predecessor.server)
    predecessor.port.destroy_server(predecessor.server)
    predecessor.close()
    life.record.server = predecessor.server
    with life.serving():
        assert "create_server" in life.calls


def test_pages_that_the_predecessor_had_protected_are_plain(life: Life, predecessor: DeviceModel) -> None:
    predecessor.protect(5, 6)
    predecessor.close()
    assert life.domain.protected() == [5, 6]
    with life.adopting(predecessor.server):
        assert life.domain.protected() == []


def test_a_successor_answers_what_nobody_has_looked_at(life: Life, predecessor: DeviceModel) -> None:
    start_all(life.domain)
    predecessor.close()
    with life.adopting(predecessor.server) as loop:
        assert loop.answer_begun() == VCPUS
        assert life.domain.join(PATIENCE)


def test_a_successor_answers_what_was_begun(life: Life, predecessor: DeviceModel) -> None:
    """INPROCESS: taken by the predecessor, who died over it. An ordinary look does not find it."""
    start_all(life.domain)
    assert len(predecessor.scan()) == VCPUS
    predecessor.close()
    with life.adopting(predecessor.server) as loop:
        assert loop.service() == 0
        assert loop.answer_begun() == VCPUS
        assert life.domain.join(PATIENCE)
    assert sorted(request.vcpu for request in life.requests) == list(range(VCPUS))


def test_what_was_answered_already_is_left_alone(life: Life, predecessor: DeviceModel) -> None:
    start_all(life.domain)
    for request in predecessor.scan():
        predecessor.answer(request, 0x600D0000 + request.vcpu)
    predecessor.close()
    with life.adopting(predecessor.server) as loop:
        assert loop.answer_begun() == 0
        assert life.domain.join(PATIENCE)


# Failures on the way up


def test_a_step_that_fails_is_undone(domain: EmbeddedDomain) -> None:
    """Whatever the hypervisor refuses while the server comes up, nothing is left of it."""
    n = 1
    while True:
        life = Life(domain)
        fail_nth(domain, n, errno.ENOMEM)
        failed = 0
        try:
            with life.serving():
                fail_nth(domain, 0, 0)
        except HostError as error:
            failed = error.errno
        fail_nth(domain, 0, 0)
        if not failed:
            assert n > VCPUS + 4
            return
        assert failed == errno.ENOMEM
        assert life.record.server is None
        assert domain.owner is None
        assert not any(life.plain.server_exists(server) for server in range(4)), f"call {n}"
        life.plain.close()
        n += 1
