"""A successor of a daemon that served a whole GPU: the guest finds the function and its BARs where they were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.faults import wait_until_blocked
from tests.support.pci_probe import linux_msi, linux_sizes
from tests.support.records import IdRecord
from tests.support.skylake import BAR0, BAR2, FRAMES, SKYLAKE, Ports, Requests, interrupts_of, place, run
from tests.support.tables import FRAME
from xengt_dm.adoption import MODELS as KNOWN_MODELS
from xengt_dm.gpu import MODELS
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.settings import Settings
from xengt_dm.state.file import open_state
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.device import Model
from xengt_dm.vgpu.pci import SBDF
from xengt_dm.vgpu.registers import GraphicsMemory

MIB = 1 << 20
NEW = 0xE0000000


class Host:
    """A domain, and what its daemons leave to each other."""

    def __init__(self, domain: EmbeddedDomain, directory: Path) -> None:
        self.domain = domain
        self.record = IdRecord(None)
        self.directory = directory

    @contextmanager
    def daemon(self, settings: Settings = SKYLAKE) -> Iterator[Instance]:
        """One that leaves the domain to a successor at its end."""
        port = self.domain.port()
        with (
            open_state(self.directory, self.domain.domid, (os.geteuid(),)) as state,
            open_instance(port, settings, record=self.record, store=state) as instance,
        ):
            yield instance
            instance.hand_over()
        port.close()

    def stop(self) -> None:
        """The last one ends in order."""
        with (
            open_state(self.directory, self.domain.domid, (os.geteuid(),)) as state,
            open_instance(self.domain.port(), SKYLAKE, record=self.record, store=state),
        ):
            pass


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with EmbeddedDomain(FRAMES, 2) as domain:
        made = Host(domain, tmp_path)
        yield made
        made.stop()


def ranges(instance: Instance) -> list[Range]:
    return sorted(instance.server.ranges.read() or [])


def memory(address: int) -> Range:
    return Range(RangeKind.MEMORY, address, address + 16 * MIB - 1)


FUNCTION = Range(RangeKind.PCI, SBDF, SBDF)


def test_everything_is_where_it_was(host: Host) -> None:
    values: list[int] = []
    with host.daemon() as first:
        run(host.domain, first, lambda vcpu: place(Ports(vcpu)))
        linux_msi(Requests(first), 0xFEE00000, 0x41)
        first.device.write(0x2080, 4, 0x5000)
    with host.daemon() as second:
        assert second.found.kept
        assert ranges(second) == [memory(BAR0), memory(BAR2), FUNCTION]
        run(host.domain, second, lambda vcpu: values.append(vcpu.mmio_read(BAR0 + 0x2080, 4)))
        run(host.domain, second, lambda vcpu: values.append(len(linux_sizes(Ports(vcpu)))))
        interrupts_of(second).signal(True)
        assert host.domain.msis == [(0xFEE00000, 0x41)]
    assert values == [0x5000, 2]


def test_bars_that_were_nowhere_stay_there(host: Host) -> None:
    with host.daemon():
        pass
    with host.daemon() as second:
        assert ranges(second) == [FUNCTION]
        run(host.domain, second, lambda vcpu: place(Ports(vcpu)))
        assert ranges(second) == [memory(BAR0), memory(BAR2), FUNCTION]


def test_a_write_to_a_bar_that_the_predecessor_did_not_answer(host: Host) -> None:
    """It is done by the successor."""

    def move(vcpu: Vcpu) -> None:
        vcpu.pci_write(SBDF, 0x10, 4, NEW)

    with host.daemon() as first:
        place(Requests(first))
        host.domain.start(0, move)
        wait_until_blocked(host.domain, 0)
    with host.daemon() as second:
        run(host.domain, second)
        assert ranges(second) == [memory(NEW), memory(BAR2), FUNCTION]
        assert second.bar0.address == NEW


def test_ranges_that_the_predecessor_was_moving(host: Host) -> None:
    """Killed when configuration space had the new address, and no range was there; and with both there."""
    with host.daemon() as first:
        place(Requests(first))
        assert first.gpu.config is not None
        first.gpu.config.mmio.store(0x10, 4, NEW | 4)
    with host.daemon() as second:
        assert ranges(second) == [memory(NEW), memory(BAR2), FUNCTION]
        second.server.add_range(memory(BAR0))
    with host.daemon() as third:
        assert ranges(third) == [memory(NEW), memory(BAR2), FUNCTION]


def test_another_configuration_waits_for_another_guest(host: Host) -> None:
    """The kind and the windows are those that the guest knows."""
    with host.daemon(SKYLAKE._replace(graphics=GraphicsMemory(64, 16))) as first:
        place(Requests(first))
    with host.daemon(Settings()) as second:
        assert second.settings.model is Model.SKYLAKE
        assert second.settings.graphics == GraphicsMemory(64, 16)
        assert second.settings.generation == 9
        assert second.gpu.bars[2].size == 64 * MIB


def test_spaces_that_ended_with_a_driver_stay_ended(host: Host) -> None:
    def announce_and_die(vcpu: Vcpu) -> None:
        vcpu.mmio_write(BAR0 + reg.PDP0, 8, 4 * FRAME)
        vcpu.mmio_write(BAR0 + reg.G2V_NOTIFY, 4, reg.Notification.PPGTT_L4_CREATE)
        vcpu.mmio_write(BAR0 + reg.G2V_NOTIFY, 4, reg.Notification.PPGTT_L4_CREATE)

    def come(vcpu: Vcpu) -> None:
        vcpu.mmio_read(BAR0 + reg.PVINFO, 8)
        vcpu.mmio_write(BAR0 + 0x941C, 4, 1)

    with host.daemon() as first:
        place(Requests(first))
        run(host.domain, first, announce_and_die)
    with host.daemon() as second:
        assert len(second.engine.spaces) == 1
        run(host.domain, second, come)
        assert second.engine.spaces == []
    with host.daemon() as third:
        assert third.engine.spaces == []


def test_a_kind_that_nobody_knows(host: Host) -> None:
    with host.daemon() as first:
        place(Requests(first))
        first.life.model = len(MODELS)
    with host.daemon() as second:
        assert not second.found.kept
        assert second.found.problem == f"a device of kind {len(MODELS)}"


def test_the_number_of_kinds() -> None:
    assert len(MODELS) == KNOWN_MODELS
    assert set(MODELS) == set(Model)
    assert MODELS[0] is Model.PPGTT, "what states were before there were kinds"
