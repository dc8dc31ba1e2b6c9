"""A process is killed after an instruction of a request that submits a list or clears interrupts; another one goes on.

In the end registers and guest memory must be those of a run without a kill.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import random
import sys
from collections.abc import Callable
from functools import partial

import pytest

from tests.single_step.forked import run_until
from tests.support.gpu_bench import GpuBench
from tests.support.tables import FRAME
from xengt_dm._core import lib
from xengt_dm.ioreq.journal import RECORD_BYTES, Journal
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BASES, ELSP, RCS0
from xengt_dm.state.layout import DEVICE
from xengt_dm.vgpu.state import SIZE

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="single steps are made for x86-64"
)

#: How many instructions of each request a usual run looks at.
POINTS = 10
IIR = 0x44308
#: A write of BAR0, or a read if there is no value.
Access = tuple[int, int | None]


class Shared:
    """A bench whose state and journal are shared with the processes that are forked, as guest memory is."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE + RECORD_BYTES)
        view = memoryview(self.memory)
        self.journal = Journal(view[SIZE:], view[:SIZE])
        self.bench = GpuBench(128, state=view[:SIZE], requests=self.journal)

    def keep(self) -> tuple[bytes, bytes]:
        return bytes(self.memory), bytes(self.bench.guest.memory)

    def set(self, kept: tuple[bytes, bytes]) -> None:
        self.memory[:], self.bench.guest.memory[:] = kept
        self.bench.attach()

    def do(self, access: Access) -> None:
        """Serve a new request of the guest, and have the engines come to their end."""
        self.serve_anew(access)
        self.bench.settle()

    def serve_anew(self, access: Access) -> None:
        lib.xd_journal_forget(self.journal.pointer)
        self.serve(access)

    def serve(self, access: Access) -> None:
        offset, value = access
        if value is None:
            self.bench.mmio_read(offset, 4)
            return
        self.journal.in_hand(0, 0)
        self.bench.mmio_write(offset, 4, value)
        self.journal.put_down()

    def take_over(self, access: Access) -> None:
        """Another process finds the request that was begun."""
        self.journal.take_over([(0, SIZE)])
        self.bench.attach()
        if not self.journal.progress(0).done:
            self.serve(access)
        self.bench.settle()

    def outcome(self) -> tuple[bytes, bytes]:
        """Returns the registers and guest memory."""
        return bytes(DEVICE["registers"].of(memoryview(self.memory)[:SIZE])), bytes(self.bench.guest.memory)


def one_list(shared: Shared) -> list[Access]:
    """A list of two contexts that store and interrupt, the read of IIR, and its clearing."""
    bench = shared.bench
    gfn = bench.take()
    address = bench.driver.bind([gfn])
    contexts = [bench.driver.context(RCS0) for _ in range(2)]
    for i, context in enumerate(contexts):
        context.emit(mi.store(address + 8 * i, 0x51 + i, ggtt=True), mi.USER_INTERRUPT)
        context.write_image(7, context.tail)
    first, second = (context.address | 0x119 for context in contexts)
    port = BASES[RCS0] + ELSP
    return [(port, 65), (port, second), (port, 64), (port, first), (IIR, None), (IIR, 0xFFFFFFFF)]


def a_longer_ring(shared: Shared) -> list[Access]:
    """The context that runs is submitted again, with a new tail; it waits at a semaphore."""
    bench = shared.bench
    gfn = bench.take()
    address = bench.driver.bind([gfn])
    context = bench.driver.context(RCS0)
    context.emit(mi.semaphore_wait(address, 1, 4, ggtt=True))
    bench.driver.submit(context)
    bench.run()
    context.emit(mi.store(address + 8, 7, ggtt=True))
    context.write_image(7, context.tail)
    bench.store(gfn * FRAME, 4, 1)
    port = BASES[RCS0] + ELSP
    return [(port, 0), (port, 0), (port, 70), (port, context.address | 0x119), (IIR, None), (IIR, 0xFFFFFFFF)]


@pytest.mark.parametrize("scene", [one_list, a_longer_ring])
def test_kills(scene: Callable[[Shared], list[Access]], stepping: ctypes.CDLL) -> None:
    rng = random.Random(5)
    shared = Shared()
    accesses = scene(shared)
    begun = shared.keep()
    shared.set(begun)
    for access in accesses:
        shared.do(access)
    expected = shared.outcome()
    killed = 0
    for number, access in enumerate(accesses):
        if access[1] is None:
            continue
        shared.set(begun)
        for before in accesses[:number]:
            shared.do(before)
        here = shared.keep()
        serve = partial(shared.serve_anew, access)
        steps = run_until(stepping, lib.xd_hot_write, serve, 0)
        assert steps is not None
        for after in sorted(rng.sample(range(1, steps), min(steps - 1, POINTS))):
            shared.set(here)
            if run_until(stepping, lib.xd_hot_write, serve, after) is not None:
                break
            killed += 1
            shared.take_over(access)
            for later in accesses[number + 1 :]:
                shared.do(later)
            same = shared.outcome() == expected
            assert same, f"killed after {after} of {steps} instructions of access {number}"
    assert killed >= 3 * POINTS
