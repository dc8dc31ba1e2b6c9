"""What a guest does that has its daemon count something, and a machine that others can look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.machine import DATA, L1, L2, L4, Machine, build, machine
from tests.support.machine import announce as announce_space
from tests.support.tables import address, pte
from xengt_dm.hypervisor.embedded import Vcpu
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.run_dir.directory import open_directory
from xengt_dm.settings import DEFAULT_BAR0, Settings
from xengt_dm.vgpu import registers as reg

#: One more leaf table.
OTHER_L1 = 7


@contextmanager
def serving(base: Path, domid: int, *, sync: Sync = Sync.STRICT) -> Iterator[Machine]:
    """A machine with a run directory."""
    with machine(Settings(sync=sync), vcpus=1, domid=domid, directory=open_directory(base, domid)) as made:
        yield made


def announce(vcpu: Vcpu) -> None:
    """Build an L4 space, which nobody sees, and announce it: three writes of registers."""
    build(vcpu)
    announce_space(vcpu, L4, size=4)


def busy(vcpu: Vcpu) -> None:
    """:func:`announce`, then :func:`store`."""
    announce(vcpu)
    store(vcpu)


def store(vcpu: Vcpu) -> None:
    """10 stores to a page table, 2 to a directory, and a register read."""
    for i in range(1, 11):
        vcpu.store(address(L1, i), 8, pte(DATA))
    vcpu.store(address(L2, 1), 8, pte(OTHER_L1))
    vcpu.store(address(L2, 1), 8, 0)
    vcpu.mmio_read(DEFAULT_BAR0 + reg.PDP0, 4)
