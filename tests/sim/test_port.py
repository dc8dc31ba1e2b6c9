"""What two device models in processes of their own see of a domain: events, and frames that the guest gives back."""

from __future__ import annotations

import ctypes
import errno
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sim import PATIENCE, Console, SimProcess
from tests.support.tables import FRAME
from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.sim.port import SimPort

FRAMES = 64
MMIO = 0xF0000000


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimProcess]:
    with SimProcess(tmp_path, "--guest", "scripted", "--frames", str(FRAMES)) as sim:
        yield sim
        assert sim.end() == (0, "")


@pytest.fixture
def console(sim: SimProcess) -> Iterator[Console]:
    with sim.console() as console:
        yield console


def readable(port: SimPort) -> bool:
    return bool(select.select([port.events.fd], [], [], 0)[0])


def mapped(port: SimPort, gfn: int, count: int = 1, address: int = 0) -> tuple[int, list[int]]:
    errors = ffi.new("int[]", count)
    return port.map_frames(gfn, count, errors, address), list(errors)


def word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


class Model:
    """A server that is enabled, with a range, and bound to vCPU 0's channel."""

    def __init__(self, sim: SimProcess, adopt: int | None = None) -> None:
        self.port = sim.port()
        self.server = self.port.create_server() if adopt is None else adopt
        self.page = ffi.cast("char *", self.port.map_slots(self.server))
        if adopt is None:
            self.port.map_mmio(self.server, MMIO, MMIO + FRAME - 1)
            self.port.set_server_state(self.server, True)
        self.remote = lib.xd_slot_port(self.page, 0)
        self.local = self.port.events.bind(self.remote)

    def state(self) -> int:
        return int(lib.xd_slot_state(self.page, 0))

    def wait(self) -> None:
        """Until a request is there; takes the events before that of the request."""
        while self.state() != lib.XD_STATE_READY:
            assert select.select([self.port.events.fd], [], [], PATIENCE)[0]
            if self.state() != lib.XD_STATE_READY:
                self.port.events.drain()

    def answer(self) -> None:
        lib.xd_slot_answer(self.page, 0, 0x55, lib.XD_ROUTE_REFUSED, ffi.NULL)
        self.port.events.notify(self.local)


def take(model: Model, begun: bool = False) -> int:
    taken = ffi.new("xd_taken[]", lib.XD_SLOTS_PER_PAGE)
    return int(lib.xd_slots_take(model.page, 2, begun, taken, ffi.NULL, ffi.NULL))


def test_an_event_is_there_until_it_is_drained(sim: SimProcess, console: Console) -> None:
    model = Model(sim)
    assert readable(model.port)
    assert model.port.events.drain() == 1  # of the binding
    assert not readable(model.port)
    assert model.port.events.drain() == 0
    console.begin(0, "load", MMIO, 4)
    model.wait()
    assert take(model) == 1
    model.answer()
    assert console.receive() == 0x55
    assert model.port.events.drain() == 1
    model.port.close()


def test_a_channel_that_was_unbound_fires_no_more(sim: SimProcess, console: Console) -> None:
    model = Model(sim)
    model.port.events.unbind(model.local)
    assert model.port.events.drain() == 0
    with pytest.raises(HostError) as caught:
        model.port.events.notify(model.local)
    assert caught.value.errno == errno.ENOTCONN
    console.begin(0, "load", MMIO, 4)
    assert_waits(sim)
    assert console_state(sim)["counters"]["lost_events"] == 1
    again = model.port.events.bind(model.remote)
    assert model.port.events.drain() == 1
    assert take(model) == 1
    lib.xd_slot_answer(model.page, 0, 1, lib.XD_ROUTE_REFUSED, ffi.NULL)
    model.port.events.notify(again)
    assert console.receive() == 1
    model.port.close()


def assert_waits(sim: SimProcess) -> None:
    with sim.console() as console:
        assert console.ask("wait_phase", vcpu=0, phase=embedded.XD_PHASE_BLOCKED, seconds=PATIENCE) == 0


def console_state(sim: SimProcess) -> dict[str, dict[str, int]]:
    with sim.console() as console:
        return console.state()


def test_an_answer_without_a_notify_is_not_seen(sim: SimProcess, console: Console) -> None:
    model = Model(sim)
    model.port.events.notify(model.local)  # of nothing; the vCPU has not looked
    console.begin(0, "load", MMIO, 4)
    assert_waits(sim)
    assert take(model) == 1
    lib.xd_slot_answer(model.page, 0, 7, lib.XD_ROUTE_REFUSED, ffi.NULL)
    assert_waits(sim)
    assert model.state() == lib.XD_STATE_RESP_READY
    model.port.events.notify(model.local)
    assert console.receive() == 7
    model.port.close()


def test_a_notify_from_before_a_request_does_not_count(sim: SimProcess, console: Console) -> None:
    model = Model(sim)
    model.port.events.notify(model.local)
    with sim.console() as other:
        assert other.ask("hold", vcpu=0, point=embedded.XD_POINT_POSTED) == 0
        console.begin(0, "load", MMIO, 4)
        assert other.ask("wait_phase", vcpu=0, phase=embedded.XD_PHASE_HELD, seconds=PATIENCE) == 0
        assert take(model) == 1
        lib.xd_slot_answer(model.page, 0, 7, lib.XD_ROUTE_REFUSED, ffi.NULL)
        assert other.ask("unhold", vcpu=0) == 0
        assert_waits(sim)
    model.port.events.notify(model.local)
    assert console.receive() == 7
    model.port.close()


def test_a_channel_has_one_device_model_until_that_one_dies(sim: SimProcess, console: Console) -> None:
    first = Model(sim)
    second = sim.port()
    with pytest.raises(HostError) as caught:
        second.events.bind(first.remote)
    assert caught.value.errno == errno.EINVAL
    console.begin(0, "store", MMIO, 4, 3)
    first.wait()
    assert take(first) == 1
    first.port.close()
    successor = Model(sim, adopt=first.server)
    assert successor.port.events.drain() == 1
    assert take(successor, begun=True) == 1
    successor.answer()
    console.receive()
    successor.port.close()
    second.close()


def test_a_notify_on_a_channel_whose_server_is_gone_wakes_nobody(sim: SimProcess, console: Console) -> None:
    old = Model(sim)
    old.port.destroy_server(old.server)
    new = Model(sim)
    console.begin(0, "load", MMIO, 4)
    new.wait()
    assert take(new) == 1
    lib.xd_slot_answer(new.page, 0, 9, lib.XD_ROUTE_REFUSED, ffi.NULL)
    old.port.events.notify(old.local)
    assert_waits(sim)
    new.port.events.notify(new.local)
    assert console.receive() == 9
    for model in (old, new):
        model.port.close()


def test_a_mapping_keeps_the_frame_that_the_guest_gave_back(sim: SimProcess, console: Console) -> None:
    gfn = 5
    console.run(0, "store", gfn * FRAME, 8, 0x1111)
    first, second = sim.port(), sim.port()
    old, _ = mapped(first, gfn)
    assert word(old) == 0x1111
    console.run(0, "remove", gfn, 1)
    assert word(old) == 0x1111
    assert mapped(second, gfn)[1] == [errno.EINVAL]
    console.run(0, "add", gfn, 1)
    console.run(0, "store", gfn * FRAME, 8, 0x2222)
    assert word(old) == 0x1111
    new, _ = mapped(second, gfn)
    assert word(new) == 0x2222
    ctypes.c_uint64.from_address(old).value = 0x3333  # goes nowhere
    assert console.run(0, "load", gfn * FRAME, 8) == 0x2222
    assert console.state()["stale_frames"] == 1
    # In place, as a device model does after INVALIDATE.
    assert mapped(first, gfn, address=old)[0] == old
    assert word(old) == 0x2222
    assert console.state()["stale_frames"] == 0
    ctypes.c_uint64.from_address(old).value = 0x4444
    assert console.run(0, "load", gfn * FRAME, 8) == word(new) == 0x4444
    for port, address in ((first, old), (second, new)):
        port.unmap_frames(address, 1)
        port.close()


def test_frames_that_nobody_has_mapped_are_used_again(sim: SimProcess, console: Console) -> None:
    port = sim.port()
    for turn in range(1, 6):
        address, errors = mapped(port, 8, 8)
        assert errors == [0] * 8
        for gfn in range(8, 16):
            console.run(0, "store", gfn * FRAME, 8, turn)
        console.run(0, "remove", 10, 4)
        assert console.state()["stale_frames"] == 4
        console.run(0, "add", 10, 4)
        assert [console.run(0, "load", gfn * FRAME, 8) for gfn in range(10, 14)] == [0] * 4
        port.unmap_frames(address, 8)
        assert console.state()["stale_frames"] == 0
    address, errors = mapped(port, 0, FRAMES)
    assert errors == [0] * FRAMES
    console.run(0, "store", 12 * FRAME, 8, 77)
    assert word(address + 12 * FRAME) == 77
    port.unmap_frames(address, FRAMES)
    port.close()


def test_a_dead_device_model_keeps_no_frame(sim: SimProcess, console: Console) -> None:
    port = sim.port()
    mapped(port, 5, 2)
    mapped(port, 5)
    console.run(0, "remove", 5, 2)
    assert console.state()["stale_frames"] == 2
    port.close()
    assert console.state()["stale_frames"] == 0


def test_holes_between_frames_that_are_mapped(sim: SimProcess, console: Console) -> None:
    console.run(0, "remove", 6, 2)
    console.run(0, "store", 8 * FRAME, 8, 8)
    port = sim.port()
    address, errors = mapped(port, FRAMES - 2, 4)
    assert errors == [0, 0, errno.EINVAL, errno.EINVAL]
    port.unmap_frames(address, 4)
    address, errors = mapped(port, 5, 4)
    assert errors == [0, errno.EINVAL, errno.EINVAL, 0]
    assert word(address + 3 * FRAME) == 8
    assert lib.xd_guard_install() == 0
    value = ffi.new("uint64_t *")
    for hole in (1, 2):
        assert lib.xd_load(ffi.cast("char *", address + hole * FRAME), 8, value) == -errno.EFAULT
    port.unmap_frames(address, 4)
    port.close()
