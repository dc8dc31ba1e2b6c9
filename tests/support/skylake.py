"""A device model of a whole GPU on the embedded hypervisor, whose guest has given it addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.pci_probe import hvmloader
from tests.support.serving import handled, serve_all
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ioreq.request import Request, RequestType
from xengt_dm.settings import Settings
from xengt_dm.vgpu.device import Model
from xengt_dm.vgpu.pci import SBDF, InterruptSource

FRAMES = 64
BAR0, BAR2 = 0xF0000000, 0xF1000000
PLACES = {0x10: BAR0, 0x18: BAR2}
SKYLAKE = Settings(model=Model.SKYLAKE, generation=9)


class Ports:
    """Configuration space as a vCPU reaches it, by ports 0xcf8 and 0xcfc."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu

    def read(self, register: int, size: int) -> int:
        return self._vcpu.pci_read(SBDF, register, size)

    def write(self, register: int, size: int, value: int) -> None:
        self._vcpu.pci_write(SBDF, register, size, value)


class Requests:
    """Configuration space as requests that nobody waits for."""

    def __init__(self, instance: Instance) -> None:
        self._bus = instance.bus

    def read(self, register: int, size: int) -> int:
        return self._ask(register, size, 0, is_read=True)

    def write(self, register: int, size: int, value: int) -> None:
        self._ask(register, size, value, is_read=False)

    def _ask(self, register: int, size: int, value: int, *, is_read: bool) -> int:
        kind = RequestType.PCI_CONFIG
        request = Request(0, kind, SBDF << 32 | register, value, size, 1, is_read, data_is_ptr=False, down=False)
        return handled(self._bus, request).data


def interrupts_of(instance: Instance) -> InterruptSource:
    """What interrupts the guest."""
    assert instance.gpu.interrupts is not None
    return instance.gpu.interrupts


def place(config: Ports | Requests) -> None:
    """Have the firmware give the function its addresses."""
    hvmloader(config, lambda bar: PLACES[bar.register])


@contextmanager
def skylake(
    settings: Settings = SKYLAKE, *, vcpus: int = 2, xen: str = "4.17", placed: bool = True
) -> Iterator[tuple[EmbeddedDomain, Instance]]:
    """A domain whose instance serves; with its BARs in place, if ``placed``."""
    with (
        EmbeddedDomain(FRAMES, vcpus, xen) as domain,
        open_instance(domain.port(), settings) as instance,
    ):
        if placed:
            place(Requests(instance))
        yield domain, instance


def run(domain: EmbeddedDomain, instance: Instance, *programs: Callable[[Vcpu], object]) -> None:
    """Run a program on each vCPU, and serve them to their ends."""
    for index, program in enumerate(programs):
        domain.start(index, _program(program))
    while not domain.join(0.01):
        serve_all(instance.loop)


def _program(program: Callable[[Vcpu], object]) -> Callable[[Vcpu], None]:
    def run_it(vcpu: Vcpu) -> None:
        program(vcpu)

    return run_it
