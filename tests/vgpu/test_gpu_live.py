"""The whole GPU on the embedded hypervisor: a driver on a vCPU, the serve loop beside it, interrupts as messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio

from tests.support.pci_probe import hvmloader
from tests.support.skylake import BAR0, BAR2, PLACES, SKYLAKE, Ports
from xengt_dm.control import report
from xengt_dm.errors import BusyError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BCS0, RCS0, VCS0, VECS0, Driver
from xengt_dm.sim.spaces import AddressSpace
from xengt_dm.units import PAGE_SIZE

FRAMES = 1024
VA = 0x7FFF_0000_0000
MSI_CONTROL, MSI_ADDRESS, MSI_DATA, COMMAND = 0x92, 0x94, 0x9C, 0x04


class Guest:
    """A driver on a vCPU, with a space of a batch page and two data pages for each engine."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self._free = iter(range(16, FRAMES))
        self.config = Ports(vcpu)
        hvmloader(self.config, lambda bar: PLACES[bar.register])
        self.config.write(COMMAND, 2, 6)
        self.config.write(MSI_ADDRESS, 4, 0xFEE00000)
        self.config.write(MSI_DATA, 2, 0x24)
        self.config.write(MSI_CONTROL, 2, 1)
        self.driver = Driver(vcpu, self.take, BAR0)
        self.driver.start()

    def take(self) -> int:
        return next(self._free)

    def space(self) -> tuple[AddressSpace, int, int]:
        """A space with a batch at VA and data at VA + PAGE_SIZE; the gpas of both."""
        space = AddressSpace(self.driver, self.take)
        space.announce()
        pages = [self.take() for _ in range(2)]
        for i, gfn in enumerate(pages):
            space.map(VA + i * PAGE_SIZE, gfn)
        return space, pages[0] * PAGE_SIZE, pages[1] * PAGE_SIZE

    def write(self, gpa: int, *commands: list[int] | int) -> None:
        dwords = [dword for each in commands for dword in ([each] if isinstance(each, int) else each)]
        for i, dword in enumerate(dwords):
            self.vcpu.store(gpa + 4 * i, 4, dword)

    def wait(self, engine: int) -> None:
        """Take interrupts until the driver believes that an engine is idle."""
        for _ in range(2000):
            self.driver.interrupt()
            if self.driver.lists[engine].idle:
                return
        raise AssertionError("the engine does not come to its end")


@contextmanager
def running(
    sync: Sync = Sync.STRICT, vcpus: int = 2, flavour: str = "4.17", rep_stores: bool = False
) -> Iterator[Callable[..., tuple[EmbeddedDomain, Instance]]]:
    """Yields a function that runs programs on vCPUs to their ends, served as a daemon serves."""
    with (
        EmbeddedDomain(FRAMES, vcpus, flavour, rep_stores=rep_stores) as domain,
        open_instance(domain.port(), SKYLAKE._replace(sync=sync)) as instance,
    ):

        def run(*programs: Callable[[Vcpu], None]) -> tuple[EmbeddedDomain, Instance]:
            async def main() -> None:
                async with trio.open_nursery() as nursery:
                    await nursery.start(instance.loop.serve)
                    async with trio.open_nursery() as guests:
                        for index, program in enumerate(programs):
                            guests.start_soon(trio.to_thread.run_sync, program, domain.vcpu(index))
                    assert report.audit_spaces(instance.engine) == 0
                    instance.traps.check()
                    nursery.cancel_scope.cancel()

            trio.run(main)
            return domain, instance

        yield run


@pytest.mark.parametrize("sync", Sync)
def test_a_driver_starts_and_every_engine_executes(sync: Sync) -> None:
    done: list[int] = []
    interrupts: list[int] = []

    def program(vcpu: Vcpu) -> None:
        guest = Guest(vcpu)
        for engine in (RCS0, BCS0, VCS0, VECS0):
            space, batch, data = guest.space()
            context = guest.driver.context(engine, space.root)
            for round_ in range(3):
                guest.write(batch, mi.store(VA + PAGE_SIZE, 0x100 * engine + round_), mi.BATCH_END)
                context.emit(mi.batch_start(VA), mi.USER_INTERRUPT)
                guest.driver.submit(context)
                guest.wait(engine)
                done.append(vcpu.load(data, 4))
            space.destroy()
        interrupts.append(guest.driver.interrupts)
        assert not guest.driver.spurious

    with running(sync) as run:
        domain, _ = run(program)
        assert done == [0x100 * engine + round_ for engine in range(4) for round_ in range(3)]
        assert len(domain.msis) == interrupts[0]


def test_a_spinner_of_one_vcpu_leaves_the_other_vcpu_alone() -> None:
    seen: list[int] = []

    def program(vcpu: Vcpu) -> None:
        guest = Guest(vcpu)
        space, batch, data = guest.space()
        vcpu.store(data, 4, 0xFFFFFFFF)
        guest.write(batch, mi.end_if_not_above(VA + PAGE_SIZE, 5), mi.batch_start(VA))
        context = guest.driver.context(RCS0, space.root)
        context.emit(mi.batch_start(VA))
        guest.driver.submit(context)
        other, batch, result = guest.space()
        second = guest.driver.context(BCS0, other.root)
        for i in range(20):
            guest.write(batch, mi.store(VA + PAGE_SIZE, i), mi.BATCH_END)
            second.emit(mi.batch_start(VA))
            guest.driver.submit(second)
            guest.wait(BCS0)
            seen.append(vcpu.load(result, 4))
        guest.driver.interrupt()
        assert not guest.driver.lists[RCS0].idle
        vcpu.store(data, 4, 0)
        guest.wait(RCS0)

    def busy(vcpu: Vcpu) -> None:
        for i in range(500):
            vcpu.store(8 * PAGE_SIZE + 8 * (i % 512), 8, i)

    with running() as run:
        run(program, busy)
        assert seen == list(range(20))


@pytest.mark.parametrize("flavour", ["4.17", "4.20"])
def test_tables_that_a_vcpu_stores_to_while_an_engine_has_them_synced(flavour: str) -> None:
    """A batch invalidates the TLB again and again, so tables settle and are unsynced in turns of the engine, and not
    while a vCPU waits for its submission. Each store is an instruction that Xen may emulate twice."""
    pages, rounds = 48, 13  # an odd number: in the end the order is the other way round
    shared: dict[str, AddressSpace] = {}
    found: list[int] = []

    def driver(vcpu: Vcpu) -> None:
        guest = Guest(vcpu)
        space, batch, gate = guest.space()
        frames = [guest.take() for _ in range(pages)]
        for i in range(pages):
            space.map(VA + (8 + i) * PAGE_SIZE, frames[i])
        vcpu.store(gate, 4, 0xFFFFFFFF)
        flushes = [dword for _ in range(20) for dword in mi.pipe_control(mi.TLB_INVALIDATE)]
        store = mi.store(VA + 8 * PAGE_SIZE, 1)
        guest.write(batch, flushes, store, mi.end_if_not_above(VA + PAGE_SIZE, 5), mi.batch_start(VA))
        context = guest.driver.context(RCS0, space.root)
        context.emit(mi.batch_start(VA))
        guest.driver.submit(context)
        shared["space"] = space
        while "done" not in shared:
            guest.driver.interrupt()
        vcpu.store(gate, 4, 0)
        guest.wait(RCS0)
        stores = [mi.store(VA + (8 + i) * PAGE_SIZE, 0x500 + i) for i in range(pages)]
        guest.write(batch, *stores, mi.BATCH_END)
        context.emit(mi.batch_start(VA))
        guest.driver.submit(context)
        guest.wait(RCS0)
        found.extend(vcpu.load(frames[pages - 1 - i] * PAGE_SIZE, 4) for i in range(pages))

    def mapper(vcpu: Vcpu) -> None:
        while "space" not in shared:
            vcpu.load(PAGE_SIZE, 4)
        first = shared["space"].entry_of(VA + 8 * PAGE_SIZE)
        entries = [vcpu.load(first + 8 * i, 8) for i in range(pages)]
        try:
            for _ in range(rounds):
                entries.reverse()
                for i, entry in enumerate(entries):
                    vcpu.store(first + 8 * i, 8, entry)
        finally:
            shared["done"] = shared["space"]

    with running(Sync.RELAXED, flavour=flavour, rep_stores=True) as run:
        run(driver, mapper)
        assert found == [0x500 + i for i in range(pages)]


def test_what_is_submitted_is_executed_in_a_burst() -> None:
    figures: list[int] = []

    def program(vcpu: Vcpu) -> None:
        guest = Guest(vcpu)
        gfn = guest.take()
        address = guest.driver.bind([gfn])
        context = guest.driver.context(RCS0)
        for i in range(50):
            context.emit(mi.store(address, i, ggtt=True))
            guest.driver.submit(context)
            assert vcpu.load(gfn * PAGE_SIZE, 4) == i
            guest.driver.interrupt()
        figures.append(guest.driver.interrupts)

    with running() as run:
        domain, instance = run(program)
        assert figures == [50]
        assert len(domain.msis) == 50
        counts = instance.gpu.engines.pointer.counts  # type: ignore[union-attr]
        assert (counts.lists, counts.contexts, counts.events) == (50, 50, 100)


def test_the_aperture_is_served_in_a_burst() -> None:
    bound: list[int] = []

    def bind(vcpu: Vcpu) -> None:
        guest = Guest(vcpu)
        pages = [guest.take(), guest.take()]
        for number, gfn in enumerate(pages):
            guest.driver.bind_at(number * PAGE_SIZE, gfn * PAGE_SIZE | 1)
        bound.extend([BAR2, *(gfn * PAGE_SIZE for gfn in pages)])
        vcpu.store(bound[0], 4, 1)

    def plain(vcpu: Vcpu) -> None:
        at, first, second = bound
        for i in range(0, PAGE_SIZE, 7):
            vcpu.store(first + i, 1, i & 0xFF)
            assert vcpu.load(at + i, 1) == i & 0xFF
            value, offset = 0x0123456789ABCDEF ^ i, i // 8 * 8
            vcpu.store(at + PAGE_SIZE + offset, 8, value)
            assert vcpu.load(second + offset, 8) == vcpu.load(at + PAGE_SIZE + offset, 8) == value
        assert vcpu.load(BAR2 + (8 << 20), 8) == 0

    def apart(vcpu: Vcpu) -> None:
        at, first, _ = bound
        vcpu.store(at + 12, 8, 0x1122334455667788)
        assert vcpu.load(first + 12, 8) == 0x1122334455667788

    with running() as run:
        _, instance = run(bind)
        handed = [int(instance.stats.pointer.handed_requests)]
        for program in (plain, apart):
            run(program)
            handed.append(int(instance.stats.pointer.handed_requests))
        assert handed == [handed[0], handed[0], handed[0] + 1]


def test_a_quiesce_waits_for_the_engines() -> None:
    seen: list[object] = []

    async def body(domain: EmbeddedDomain, instance: Instance) -> None:
        guests: list[Guest] = []
        await trio.to_thread.run_sync(lambda: guests.append(Guest(domain.vcpu(0))))
        guest = guests[0]
        space, batch, data = await trio.to_thread.run_sync(guest.space)
        context = await trio.to_thread.run_sync(guest.driver.context, RCS0, space.root)

        def spin() -> None:
            guest.vcpu.store(data, 4, 0xFFFFFFFF)
            guest.write(batch, mi.end_if_not_above(VA + PAGE_SIZE, 5), mi.batch_start(VA))
            context.emit(mi.batch_start(VA))
            guest.driver.submit(context)

        def submit() -> None:
            guest.write(batch, mi.store(VA + PAGE_SIZE, 0x77), mi.BATCH_END)
            context.emit(mi.batch_start(VA))
            guest.driver.submit(context)
            seen.append(guest.vcpu.load(data, 4))

        def end() -> None:
            guest.vcpu.store(data, 4, 0)
            guest.wait(RCS0)

        await trio.to_thread.run_sync(spin)
        with pytest.raises(BusyError):
            await instance.quiesce()
        assert not instance.engine.quiesced
        await trio.to_thread.run_sync(end)
        assert await instance.quiesce()
        await trio.to_thread.run_sync(submit)
        assert await instance.resume()
        await trio.to_thread.run_sync(guest.wait, RCS0)
        seen.append(await trio.to_thread.run_sync(guest.vcpu.load, data, 4))
        assert report.audit_spaces(instance.engine) == 0

    async def main() -> None:
        with EmbeddedDomain(FRAMES, 1, "4.17") as domain, open_instance(domain.port(), SKYLAKE) as instance:
            async with trio.open_nursery() as nursery:
                await nursery.start(instance.loop.serve)
                await body(domain, instance)
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert seen == [0, 0x77]
