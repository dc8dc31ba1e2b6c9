"""The loop of a burst, in C: events and masks, the doorbell and the deadline, errors, and when it spins."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.ioreq.test_c_slots import NONE, READ, READY, RESP_READY, put, slot
from xengt_dm._core import ffi, lib
from xengt_dm.units import CData

VCPUS = 3
NOW, NEVER = 0, (1 << 64) - 1
TIME, DOORBELL, HANDED, ERROR = lib.XD_BURST_TIME, lib.XD_BURST_DOORBELL, lib.XD_BURST_HANDED, lib.XD_BURST_ERROR
BAR, DEVICE = 0x100000, 0x200000
COPY = lib.XD_IOREQ_COPY


class Channels:
    """Event channels of which Python is the hypervisor: an event masks its port; one that is masked stays pending."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.calls: list[str] = []
        self.fired, self.masked, self.latched = 0, False, False
        self.fails: dict[str, int] = {}
        #: Whether the descriptor is not readable any more after `take`.
        self.drains = True
        #: What the vCPU of a port does once it is notified.
        self.on_notify: Callable[[int], object] = lambda vcpu: None
        #: What happens once an event is taken.
        self.on_take: Callable[[], object] = lambda: None
        self.callbacks = (
            ffi.callback("int(void *)", self.take),
            ffi.callback("int(void *)", self.unmask),
            ffi.callback("int(void *, uint32_t)", self.notify),
        )

    def fire(self) -> None:
        """An event comes."""
        if self.masked:
            self.latched = True
        else:
            self.fired, self.masked = 1, True
            os.eventfd_write(self.fd, 1)

    def take(self, handle: CData) -> int:
        self.calls.append("take")
        with suppress(BlockingIOError):
            if self.drains:
                os.eventfd_read(self.fd)
        taken, self.fired = self.fired, 0
        self.on_take()
        return self.fails.get("take", taken)

    def unmask(self, handle: CData) -> int:
        self.calls.append("unmask")
        if not self.fired:
            self.masked = False
            if self.latched:
                self.latched = False
                self.fire()
        return self.fails.get("unmask", 0)

    def notify(self, handle: CData, port: int) -> int:
        self.calls.append(f"notify {port}")
        self.on_notify(port - 10)
        return self.fails.get("notify", 0)


class World:
    """A burst with a BAR whose registers C serves, and a device that Python serves."""

    def __init__(self, *, spins: bool = False) -> None:
        self.channels = Channels()
        self.doorbell = os.eventfd(0, os.EFD_NONBLOCK)
        self.epoll = select.epoll()
        for fd in (self.channels.fd, self.doorbell):
            self.epoll.register(fd, select.EPOLLIN)
        self.page = ffi.new("char[4096]")
        self.stats = ffi.new("xd_stats *")
        self.journal = ffi.new("xd_journal_record[128]")
        self.memory = ffi.new("uint64_t[]", 512)
        counters = ffi.addressof(self.stats, "counters")
        frames = ffi.gc(lib.xd_frames_new(64), lib.xd_frames_free)
        shadow = ffi.gc(lib.xd_shadow_new(frames, counters, 8), lib.xd_shadow_free)
        self.registers = ffi.new("xd_registers *", {"memory": ffi.cast("char *", self.memory)})
        self.registers.hole_start = self.registers.hole_end = 4096
        rows = [(BAR, 4096, self.registers), (DEVICE, 4096, ffi.NULL)]
        self.ranges = ffi.new("xd_ranges *", {"count": len(rows), "ranges": rows})
        self.quick = ffi.new("xd_quick *", {"shadow": shadow, "counters": counters, "ranges": self.ranges, "serves": 3})
        self.ports = ffi.new("uint32_t[]", [10 + vcpu for vcpu in range(VCPUS)])
        self.burst = ffi.new(
            "xd_burst *",
            {
                "channels": (ffi.NULL, *self.channels.callbacks),
                "page": self.page,
                "nr_vcpus": VCPUS,
                "channels_fd": self.channels.fd,
                "poll_fd": self.epoll.fileno(),
                "spins": spins,
                "ports": self.ports,
                "journal": self.journal,
                "stats": self.stats,
                "quick": self.quick,
            },
        )
        lib.xd_burst_init(self.burst)
        self.kept = (frames, shadow)

    def close(self) -> None:
        self.epoll.close()
        os.close(self.doorbell)
        os.close(self.channels.fd)

    def post(self, vcpu: int = 0, addr: int = BAR, data: int = 0, bits: int = 0, *, event: bool = True) -> None:
        """A vCPU makes a request."""
        assert self.state(vcpu) == NONE
        put(self.page, vcpu, addr, data, 1, 8, 1, 0, bits | READY, COPY)
        if event:
            self.channels.fire()

    def state(self, vcpu: int) -> int:
        return slot(self.page, vcpu)[6] & 0xF

    def leave(self, vcpu: int) -> None:
        """A vCPU takes its answer."""
        assert self.state(vcpu) == RESP_READY
        put(self.page, vcpu, 0, 0, 0, 0, 1, 0, NONE, COPY)

    def run(self, until: int = NOW) -> int:
        self.channels.calls.clear()
        return int(lib.xd_burst_run(self.burst, until))

    def handed(self) -> list[int]:
        """The vCPUs whose requests are left to Python."""
        return [each.vcpu for each in self.burst.handed[0 : self.burst.nr_handed]]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def spinning() -> Iterator[World]:
    made = World(spins=True)
    yield made
    made.close()


def test_nothing_to_do(world: World) -> None:
    assert world.run() == TIME
    assert world.channels.calls == []
    assert world.run(lib.xd_now() + 1_000_000) == TIME
    assert (world.stats.wakeups, world.stats.bursts) == (0, 2)


def test_a_request_is_answered_before_its_port_is_unmasked(world: World) -> None:
    """A write, then a read of the same register. The burst ends at the doorbell, after it has served."""
    world.post(0, data=7)
    os.eventfd_write(world.doorbell, 1)
    assert world.run(NEVER) == DOORBELL
    assert world.channels.calls == ["notify 10", "take"]
    assert world.state(0) == RESP_READY
    world.leave(0)
    world.post(0, bits=READ, event=False)
    assert world.run(NEVER) == DOORBELL
    assert slot(world.page, 0)[1] == 7
    assert world.channels.calls == ["notify 10", "unmask"]
    assert (world.stats.burst_requests, world.stats.handed_requests, world.stats.wakeups) == (2, 0, 1)
    assert world.stats.counters.mmio_traps == 2
    assert world.stats.counters.spurious_events == 0
    assert sum(world.stats.counters.timing.answers[lib.XD_ROUTE_REGISTER_READ].counts) == 1


def test_without_waiting_the_ports_are_unmasked(world: World) -> None:
    world.post(0)
    assert world.run() == TIME
    assert world.channels.calls == ["notify 10", "take", "unmask"]
    assert world.state(0) == RESP_READY


def test_what_c_cannot_do_is_handed_over_in_hand(world: World) -> None:
    """The others are answered in the same look."""
    world.journal[1].commit = world.journal[1].attempts = 3
    world.post(0, DEVICE)
    world.post(1)
    world.post(2, DEVICE + 8, 5)
    assert world.run(NEVER) == HANDED
    assert world.handed() == [0, 2]
    assert [world.state(vcpu) for vcpu in range(VCPUS)] == [2, RESP_READY, 2]
    assert world.burst.handed[1].req.data == 5
    assert world.burst.handed[1].outcome == lib.XD_NOT_TRIED
    assert (world.journal[1].commit, world.journal[1].attempts) == (0, 0)
    assert (world.stats.burst_requests, world.stats.handed_requests) == (1, 2)


def test_without_c_everything_is_handed_over(world: World) -> None:
    world.burst.quick = ffi.NULL
    world.post(1)
    assert world.run(NEVER) == HANDED
    assert world.handed() == [1]


def test_an_event_is_spurious_if_it_never_had_a_request(world: World) -> None:
    world.post(0, event=False)
    assert world.run() == TIME
    world.leave(0)
    world.channels.fire()  # it comes late
    assert world.run() == TIME
    assert world.stats.counters.spurious_events == 0
    world.channels.fire()
    assert world.run() == TIME
    assert world.stats.counters.spurious_events == 1


def test_a_look_leaves_events_alone(world: World) -> None:
    world.post(0)
    world.post(1, DEVICE)
    assert lib.xd_burst_look(world.burst) == HANDED
    assert world.handed() == [1]
    assert world.channels.calls == ["notify 10"]
    assert lib.xd_burst_look(world.burst) == TIME


def test_a_vcpu_whose_channel_is_not_bound_is_not_notified(world: World) -> None:
    world.ports[0] = 0
    world.post(0)
    assert world.run() == TIME
    assert world.state(0) == RESP_READY
    assert "notify" not in " ".join(world.channels.calls)


@pytest.mark.parametrize(
    ("call", "code"),
    [("take", lib.XD_CALL_TAKE), ("unmask", lib.XD_CALL_UNMASK_PORTS), ("notify", lib.XD_CALL_NOTIFY_PORT)],
)
def test_a_call_that_fails(world: World, call: str, code: int) -> None:
    """The burst ends and says which. What it has answered is answered, and the next burst goes on."""
    world.channels.fails[call] = -errno.EIO
    world.channels.fire()
    if call != "take":
        world.post(0)
    assert world.run() == ERROR
    assert (world.burst.error, world.burst.failed) == (errno.EIO, code)
    del world.channels.fails[call]
    world.post(1)
    assert world.run() == TIME
    assert world.state(1) == RESP_READY


def test_a_descriptor_that_cannot_be_waited_for(world: World) -> None:
    world.burst.poll_fd = world.doorbell
    assert world.run(NEVER) == ERROR
    assert (world.burst.error, world.burst.failed) == (errno.EINVAL, lib.XD_CALL_POLL)


@pytest.mark.parametrize("spins", [False, True])
def test_a_descriptor_that_is_readable_for_nothing(spins: bool) -> None:
    """A device that is readable for ever, and has nothing to read, ends the burst with an error, not in a loop."""
    world = World(spins=spins)
    os.eventfd_write(world.channels.fd, 1)
    world.channels.drains = False
    assert world.run(NEVER) == ERROR
    assert (world.burst.error, world.burst.failed) == (errno.EIO, lib.XD_CALL_TAKE)
    world.close()


def test_events_for_nothing_are_forgotten_when_something_comes(world: World) -> None:
    """Two that race may leave an event for nothing behind, each time."""
    world.channels.drains = False
    for _ in range(3000):
        os.eventfd_write(world.channels.fd, 1)
        assert world.run() == TIME
        world.post(0)
        assert world.run() == TIME
        world.leave(0)


# Spinning


def test_a_run_costs_one_event(spinning: World) -> None:
    """Each store comes right after the answer to the last: no event is delivered but the first, nothing is unmasked."""
    left = 50

    def go_on(vcpu: int) -> None:
        nonlocal left
        spinning.leave(vcpu)
        left -= 1
        if left:
            spinning.post(vcpu)
        else:
            os.eventfd_write(spinning.doorbell, 1)

    spinning.channels.on_notify = go_on
    spinning.post(0)
    assert spinning.run(NEVER) == DOORBELL
    assert left == 0
    assert spinning.stats.burst_requests == 50
    assert spinning.channels.calls[:51].count("take") == 1
    assert "unmask" not in spinning.channels.calls[:51]
    assert spinning.stats.counters.spurious_events == 0


@pytest.mark.parametrize("by", ["doorbell", "deadline"])
def test_a_guest_that_never_rests_ends_no_burst_late(spinning: World, by: str) -> None:
    """Two vCPUs make requests for ever. The burst ends all the same, and both were served alike."""
    served = [0, 0]

    def go_on(vcpu: int) -> None:
        served[vcpu] += 1
        spinning.leave(vcpu)
        spinning.post(vcpu)
        if by == "doorbell" and sum(served) == 100:
            os.eventfd_write(spinning.doorbell, 1)

    spinning.channels.on_notify = go_on
    spinning.post(0)
    spinning.post(1)
    until = NEVER if by == "doorbell" else lib.xd_now() + 3_000_000
    assert spinning.run(until) == (DOORBELL if by == "doorbell" else TIME)
    assert sum(served) >= 100 or by == "deadline"
    assert abs(served[0] - served[1]) <= 1


def single_request(world: World) -> None:
    """A request that its event tells of, and after whose answer nothing comes but the doorbell."""
    world.channels.on_take = lambda: world.post(0, event=False) if world.state(0) == NONE else None
    world.channels.on_notify = lambda vcpu: (world.leave(vcpu), os.eventfd_write(world.doorbell, 1))
    world.channels.fire()
    assert world.run(NEVER) == DOORBELL
    os.eventfd_read(world.doorbell)


def test_spinning_in_vain_ends(spinning: World) -> None:
    """Four times a burst spins for the next request; then it only tries at the 64th occasion, the 128th after that."""
    for credit in (15, 10, 5, 0):
        single_request(spinning)
        assert spinning.burst.credit == credit
    tries, pause = [], spinning.burst.pause
    for occasion in range(1, 200):
        single_request(spinning)
        if spinning.burst.pause != pause:
            tries.append(occasion)
            pause = spinning.burst.pause
    assert tries == [64, 64 + 128]
    assert spinning.burst.credit == 0


def test_a_try_that_succeeds(spinning: World) -> None:
    """A burst that does not spin any more tries again, and finds a request: from then on it spins."""
    spinning.burst.credit, spinning.burst.pause, spinning.burst.paused = 0, 512, 511

    def go_on(vcpu: int) -> None:
        spinning.leave(vcpu)
        if spinning.burst.served < 4:
            spinning.post(vcpu)
        else:
            os.eventfd_write(spinning.doorbell, 1)

    spinning.channels.on_take = lambda: spinning.post(0, event=False) if spinning.state(0) == NONE else None
    spinning.channels.on_notify = go_on
    spinning.channels.fire()
    assert spinning.run(NEVER) == DOORBELL
    assert (spinning.burst.pause, spinning.burst.credit) == (64, 5 + 2 - 5)


def test_where_spinning_is_not_allowed(world: World) -> None:
    """A burst unmasks and waits after each look."""
    single_request(world)
    assert world.channels.calls == ["take", "notify 10", "unmask"]
    assert world.burst.credit == 20
