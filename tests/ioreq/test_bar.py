"""A BAR that moves while the guest uses it."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support.engine_bench import audit
from tests.support.faults import Call, Hold, Point, fail_nth, wait_until_blocked
from tests.support.schedule import Schedule, ScheduledPort, Store
from tests.support.serving import serve_all
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ioreq.bar import Bar
from xengt_dm.ioreq.devices import Kind, RangeError
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import DEFAULT_BAR0, Settings
from xengt_dm.steps import complete
from xengt_dm.vgpu.registers import BAR0_SIZE

FRAMES = 64
OLD, NEW = DEFAULT_BAR0, DEFAULT_BAR0 + BAR0_SIZE
ROOT, POINTERS, DIRECTORY, LEAF = 4, 5, 6, 8
PAIRS = 6
SEEDS = range(150)
PATIENCE = 20.0


@contextmanager
def opened(flavour: str = "4.17") -> Iterator[tuple[EmbeddedDomain, Instance]]:
    with EmbeddedDomain(FRAMES, 2, flavour) as domain, open_instance(domain.port(), Settings()) as instance:
        yield domain, instance


def finish(domain: EmbeddedDomain, instance: Instance) -> None:
    """Serve until the vCPUs are done."""
    while not domain.join(0.01):
        serve_all(instance.loop)


# One access at a time


@pytest.mark.parametrize("flavour", ["4.17", "v7"])
def test_registers_are_where_the_bar_is(flavour: str) -> None:
    with opened(flavour) as (domain, instance):
        instance.bar0.move(NEW)
        domain.start(0, lambda vcpu: vcpu.store(NEW + 0x2030, 4, 7))
        finish(domain, instance)
        assert instance.device.read(0x2030, 4) == 7
        domain.start(0, lambda vcpu: vcpu.store(OLD + 0x2030, 4, 8))
        assert domain.join(PATIENCE)  # nobody is asked
        assert instance.device.read(0x2030, 4) == 7
        instance.bar0.move(OLD)
        domain.start(0, lambda vcpu: vcpu.store(OLD + 0x2030, 4, 9))
        finish(domain, instance)
        assert instance.device.read(0x2030, 4) == 9


@pytest.mark.parametrize("address", [NEW, None])
def test_an_access_on_its_way_is_still_done(address: int | None) -> None:
    """The slot is READY, and nobody has looked at it, when the range goes."""
    with opened() as (domain, instance):
        domain.start(0, lambda vcpu: vcpu.store(OLD + 0x2030, 4, 7))
        wait_until_blocked(domain, 0)
        if address is None:
            instance.bar0.unmap()
        else:
            instance.bar0.move(address)
        finish(domain, instance)
        assert instance.device.read(0x2030, 4) == 7
        assert instance.stats.counters.dropped_stores == 0


def test_a_bar_that_is_nowhere() -> None:
    with opened() as (domain, instance):
        instance.bar0.unmap()
        instance.bar0.unmap()
        assert instance.bar0.address is None
        domain.start(0, lambda vcpu: vcpu.store(OLD + 0x2030, 4, 7))
        assert domain.join(PATIENCE)
        instance.bar0.move(NEW)
        domain.start(0, lambda vcpu: vcpu.store(NEW + 0x2030, 4, 8))
        finish(domain, instance)
        assert instance.device.read(0x2030, 4) == 8


def test_a_move_to_where_it_is_asks_for_nothing() -> None:
    with opened() as (domain, instance):
        fail_nth(domain, 1, errno.EINVAL)
        instance.bar0.move(OLD)


# Refusals


def reaches(domain: EmbeddedDomain, instance: Instance, address: int, value: int) -> bool:
    """Whether a store at ``address`` reaches the device."""
    domain.start(0, lambda vcpu: vcpu.store(address + 0x2030, 4, value))
    finish(domain, instance)
    return instance.device.read(0x2030, 4) == value


def test_a_place_that_another_device_has() -> None:
    with opened() as (domain, instance):
        instance.bus.insert(Kind.MEMORY, NEW + BAR0_SIZE - 1, 1, instance.device)
        with pytest.raises(RangeError):
            instance.bar0.move(NEW)
        assert instance.bar0.address == OLD
        assert reaches(domain, instance, OLD, 7)
        assert not reaches(domain, instance, NEW, 8)


def test_a_place_that_the_hypervisor_refuses() -> None:
    with opened() as (domain, instance):
        fail_nth(domain, 1, errno.ENOSPC, Call.MAP_RANGE)
        with pytest.raises(HostError):
            instance.bar0.move(NEW)
        assert instance.bar0.address == OLD
        assert reaches(domain, instance, OLD, 7)
        instance.bar0.move(NEW)
        assert reaches(domain, instance, NEW, 8)


@pytest.mark.parametrize("call", [Call.UNMAP_RANGE, Call.STATE])
def test_a_call_that_fails_once_on_the_way_is_tried_again(call: Call) -> None:
    with opened() as (domain, instance):
        fail_nth(domain, 1, errno.ENOMEM, call)
        instance.bar0.move(NEW)
        assert instance.bar0.address == NEW
        assert reaches(domain, instance, NEW, 7)
        assert not reaches(domain, instance, OLD, 8)


@pytest.mark.parametrize("call", ["unmap_mmio", "set_server_state"])
def test_an_old_place_that_cannot_be_taken_away(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """It is at the new place, and the failure comes out."""

    def fail(*_: object) -> None:
        raise HostError(call, 1, errno.ENOMEM)

    with opened() as (domain, instance):
        with monkeypatch.context() as patched:
            patched.setattr(instance.server.port, call, fail)
            with pytest.raises(HostError):
                instance.bar0.move(NEW)
        assert instance.bar0.address == NEW
        assert reaches(domain, instance, NEW, 7)
        assert not reaches(domain, instance, OLD, 8)


# Many orders


def programs(rng: random.Random) -> dict[int, list[Store]]:
    """Each vCPU stores to the device at the old address, then at the new one, and to its half of a table."""
    result: dict[int, list[Store]] = {}
    for vcpu in range(2):
        stores: list[Store] = []
        for pair in range(PAIRS):
            stores += [(address + register(vcpu, pair, address), b"\x01\0\0\0") for address in (OLD, NEW)]
            size = rng.choice([4, 8, 32])
            offset = vcpu * 2048 + rng.randrange(0, 2048 - size, 4)
            stores.append((LEAF * FRAME + offset, rng.randbytes(size)))
        result[vcpu] = stores
    return result


def register(vcpu: int, pair: int, address: int) -> int:
    """A register for each store to the device, so that each can be seen to have reached it."""
    return 0x10000 + 0x1000 * vcpu + 8 * pair + (4 if address == NEW else 0)


@dataclass
class Outcome:
    """By vCPU, for each pair: whether the store at the old address, and that at the new one, reached the device."""

    pairs: list[list[tuple[bool, bool]]]
    #: Addresses in the table that do not hold what was stored last.
    wrong: list[int]
    #: Accesses of the device that were taken for stores to memory.
    strays: int
    turns: list[str]

    @property
    def right(self) -> bool:
        """Every store reached what was at its address; at no moment was the device at neither address."""
        return (
            not self.wrong
            and not self.strays
            and all(any(pair) for pairs in self.pairs for pair in pairs)
            and all(sorted(olds, reverse=True) == olds for olds in ([old for old, _ in one] for one in self.pairs))
            and all(sorted(news) == news for news in ([new for _, new in one] for one in self.pairs))
        )


def explore(seed: int, flavour: str = "4.17", kind: type[Bar] = Bar) -> Outcome:
    rng = random.Random(seed)
    stores = programs(rng)
    with EmbeddedDomain(FRAMES, 2, flavour) as domain:
        for gfn, child in ((ROOT, POINTERS), (POINTERS, DIRECTORY), (DIRECTORY, LEAF)):
            domain.write(gfn * FRAME, pte(child).to_bytes(8, "little"))
        schedule = Schedule(domain, seed)
        port: EmbeddedPort = ScheduledPort(domain, schedule)
        with open_instance(port, Settings()) as instance:
            bar = kind(instance.bus, instance.device, BAR0_SIZE, instance.server)
            bar.address = OLD
            complete(instance.engine.create_space(Mode.L4, (ROOT * FRAME,)))
            schedule.start(stores)
            looks = 0
            while schedule.turn():
                looks += 1
                assert looks < 10_000, f"nothing happens any more (seed {seed})"
                if bar.address == OLD and rng.random() < 0.1:
                    bar.move(NEW)
                serve_all(instance.loop)
            (space,) = instance.engine.spaces
            assert audit(WholeEngine(instance.engine), space) == (0, 0)
            reached = [
                [
                    (
                        instance.device.read(register(vcpu, pair, OLD), 4) == 1,
                        instance.device.read(register(vcpu, pair, NEW), 4) == 1,
                    )
                    for pair in range(PAIRS)
                ]
                for vcpu in range(2)
            ]
            counters = instance.stats.counters
            strays = int(counters.dropped_stores + counters.straggler_stores)
        schedule.finish()
        assert domain.join(PATIENCE)
        memory: dict[int, int] = {}
        for each in stores.values():
            for gpa, data in each:
                if gpa < FRAMES * FRAME:
                    memory.update((gpa + i, byte) for i, byte in enumerate(data))
        wrong = [gpa for gpa, byte in memory.items() if domain.read(gpa, 1)[0] != byte]
        return Outcome(reached, wrong, strays, schedule.turns)


@pytest.mark.parametrize("flavour", ["4.17", "v7"])
def test_no_access_is_lost_while_it_moves(flavour: str) -> None:
    moved = 0
    for seed in SEEDS:
        outcome = explore(seed, flavour)
        assert outcome.right, f"seed {seed}: {outcome}"
        moved += any(new for one in outcome.pairs for _, new in one)
    assert moved > len(SEEDS) // 2


class OldFirst(Bar):
    """Takes the old range away before the new one is there."""

    def move(self, address: int) -> None:
        self.unmap()
        self.map(address)


class Forgetful(Bar):
    """Takes the old range from the bus with the hypervisor's."""

    def _remove_range(self, address: int) -> None:
        self._server.remove_range(self.range_at(address))
        self._bus.remove(Kind.MEMORY, address)


@pytest.mark.parametrize("broken", [OldFirst, Forgetful])
def test_without_it_some_seed_loses_an_access(broken: type[Bar]) -> None:
    losing = next(seed for seed in SEEDS if not explore(seed, kind=broken).right)
    first, again = explore(losing, kind=broken), explore(losing, kind=broken)
    assert not first.right
    assert first.turns == again.turns


def test_a_posted_request_is_seen_before_its_event() -> None:
    """The vCPU has posted its request and not yet raised the event: the pause of the domain waits for it."""
    with opened() as (domain, instance), Hold(domain, 0, Point.POSTED) as hold:
        domain.start(0, lambda vcpu: vcpu.store(OLD + 0x2030, 4, 7))
        hold.wait()
        assert instance.server.slots.waiting_in(OLD, OLD + BAR0_SIZE - 1) == [0]
        assert instance.server.slots.waiting_in(NEW, NEW + BAR0_SIZE - 1) == []
        hold.release()
        finish(domain, instance)
        assert instance.server.slots.waiting_in(OLD, OLD + BAR0_SIZE - 1) == []
