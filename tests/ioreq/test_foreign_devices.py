"""A successor takes no access away from another server's device, not for the moment of a hypercall.

Xen asks the server with the highest id first, and QEMU's is the lowest: whatever a successor claims goes to it.
"""

from __future__ import annotations

import pytest

from tests.support.device_model import FRAME, PATIENCE, DeviceModel
from tests.support.faults import wait_until_blocked
from tests.support.records import IdRecord, RangeRecord
from xengt_dm._core import ffi
from xengt_dm.adoption import adopt_without_state
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort, Vcpu
from xengt_dm.instance import open_instance
from xengt_dm.ioreq.bar import Bar
from xengt_dm.ioreq.bus import Bus
from xengt_dm.ioreq.journal import Journal
from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.ioreq.server import attach, left_server
from xengt_dm.settings import Settings
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.traps.guard_ranges import guard_range
from xengt_dm.vgpu.registers import BAR0_SIZE

FRAMES = 0x4000
BAR0 = 0x1000 * FRAME
#: QEMU's device lies right behind our BAR, and RAM right behind that.
DEVICE = BAR0 + BAR0_SIZE
VALUE = 0x5EED_D0D0
TRAPPED = (5, 6, DEVICE // FRAME + 1)
GUARDED = (9, 700, 0x3000)


class Qemu:
    """Another server, with a device that a vCPU reads."""

    def __init__(self, domain: EmbeddedDomain) -> None:
        self.domain = domain
        self.model = DeviceModel(domain, [(DEVICE, DEVICE + FRAME - 1)], claim=False)
        self.reads = 0

    def read(self) -> None:
        """Have vCPU 1 read the device's register."""
        got: list[int] = []

        def program(vcpu: Vcpu) -> None:
            got.append(vcpu.mmio_read(DEVICE + 8, 4))

        thread = self.domain.start(1, program)
        wait_until_blocked(self.domain, 1)
        requests = self.model.scan()
        assert [request.addr for request in requests] == [DEVICE + 8], "the access went to another server"
        self.model.answer(requests[0], VALUE)
        thread.join(PATIENCE)
        assert got == [VALUE]
        self.reads += 1


class PolledPort(EmbeddedPort):
    """A successor's port. After each hypercall that changes what its server has, a vCPU reads QEMU's device."""

    def __init__(self, domain: EmbeddedDomain, qemu: Qemu) -> None:
        super().__init__(domain)
        self._qemu = qemu

    def map_mmio(self, server: int, first: int, last: int) -> None:
        super().map_mmio(server, first, last)
        self._qemu.read()

    def unmap_mmio(self, server: int, first: int, last: int) -> None:
        super().unmap_mmio(server, first, last)
        self._qemu.read()

    def set_server_state(self, server: int, enabled: bool) -> None:
        super().set_server_state(server, enabled)
        self._qemu.read()

    def release_writes(self, server: int) -> None:
        super().release_writes(server)
        self._qemu.read()


def adopt_and_die(port: PolledPort, record: IdRecord, ranges: RangeRecord) -> None:
    """A successor, killed when it has adopted the server."""
    stats = ffi.new("xd_stats *")
    journal = Journal.private()
    left = left_server(port, record)
    server = attach(port, left, record, ranges, ffi.addressof(stats.counters, "timing"), journal)
    assert server.adopted
    bus = Bus(None, stats.counters, journal)  # type: ignore[arg-type]
    bar = Bar(bus, None, BAR0_SIZE, server)  # type: ignore[arg-type]
    adopt_without_state(server, ClaimTraps(port, server.id, server.slots, ranges), {bar: BAR0}, ranges.read())
    port.close()


@pytest.mark.parametrize("rep_stores", [False, True], ids=["any store", "rep stos"])
@pytest.mark.parametrize("recorded", [False, True], ids=["no record", "record"])
def test_an_adoption_leaves_qemus_devices_alone(recorded: bool, rep_stores: bool) -> None:
    """Several times over, each time with a request in a slot that names the end of our BAR."""
    holes = [(BAR0 // FRAME, BAR0_SIZE // FRAME + 1)]
    with EmbeddedDomain(FRAMES, 2, holes=holes, rep_stores=rep_stores) as domain:
        qemu = Qemu(domain)
        ours = DeviceModel(domain, [(BAR0, BAR0 + BAR0_SIZE - 1)])
        for gfn in GUARDED:
            guard = guard_range(gfn)
            ours.port.map_mmio(ours.server, guard.first, guard.last)
        ours.protect(*TRAPPED)
        domain.start(0, lambda vcpu: vcpu.mmio_read(DEVICE - 4, 4))
        wait_until_blocked(domain, 0)
        ours.close()

        bar0 = Range(RangeKind.MEMORY, BAR0, DEVICE - 1)
        record = IdRecord(ours.server)
        ranges = RangeRecord([bar0, *map(guard_range, GUARDED)] if recorded else None)
        for _ in range(3):
            before = qemu.reads
            adopt_and_die(PolledPort(domain, qemu), record, ranges)
            assert qemu.reads > before
            assert ranges.ranges is not None
            assert ranges.ranges >= {bar0}
        with open_instance(
            PolledPort(domain, qemu), Settings(bar0=BAR0), record=record, ranges=ranges, left_ranges=ranges.read
        ) as instance:
            instance.traps.drop_guard_ranges()
            instance.loop.answer_begun()
            assert domain.range_count(instance.server.id) == 1
        assert domain.join(PATIENCE)
