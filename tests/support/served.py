"""A daemon that serves a domain of the embedded hypervisor, with a run directory that others can look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.instance import DEFAULT_BAR0, Instance, Settings, open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.run_dir.directory import open_directory
from xengt_dm.vgpu import registers as reg

FRAME = 4096
#: Frames of the tables of one L4 space, root first, one more leaf table, and a frame of data.
L4, L3, L2, L1, OTHER_L1, DATA = range(2, 8)
RW = 3
FRAMES = 64


@contextmanager
def serving(
    base: Path, domid: int, *, sync: Sync = Sync.STRICT
) -> Iterator[tuple[Instance, Callable[[Callable[[Vcpu], None]], None]]]:
    """The instance, and what runs a guest program to its end while the instance serves it."""
    directory = open_directory(base, domid)
    with (
        EmbeddedDomain(FRAMES, 1, domid=domid) as domain,
        open_instance(domain.port(), Settings(sync=sync), directory=directory) as instance,
    ):

        async def serve(program: Callable[[Vcpu], None]) -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(instance.loop.serve)
                await trio.to_thread.run_sync(program, domain.vcpu(0))
                nursery.cancel_scope.cancel()

        yield instance, lambda program: trio.run(serve, program)


def entry(gfn: int) -> int:
    return gfn * FRAME | RW


def announce(vcpu: Vcpu) -> None:
    """Build an L4 space, which nobody sees, and announce it: three writes of registers."""
    for table, child in ((L4, L3), (L3, L2), (L2, L1), (L1, DATA)):
        vcpu.store(table * FRAME, 8, entry(child))
    vcpu.mmio_write(DEFAULT_BAR0 + reg.PDP0, 4, L4 * FRAME)
    vcpu.mmio_write(DEFAULT_BAR0 + reg.PDP0 + 4, 4, 0)
    vcpu.mmio_write(DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, reg.Notification.PPGTT_L4_CREATE)


def busy(vcpu: Vcpu) -> None:
    """:func:`announce`, then :func:`store`."""
    announce(vcpu)
    store(vcpu)


def store(vcpu: Vcpu) -> None:
    """10 stores to a page table, 2 to a directory, and a register read."""
    for i in range(1, 11):
        vcpu.store(L1 * FRAME + 8 * i, 8, entry(DATA))
    vcpu.store(L2 * FRAME + 8, 8, entry(OTHER_L1))
    vcpu.store(L2 * FRAME + 8, 8, 0)
    vcpu.mmio_read(DEFAULT_BAR0 + reg.PDP0, 4)
