"""How long a vCPU waits because of what another one does, with guests that do the worst they can.

One vCPU stores to one leaf table, again and again. Another one links and unlinks trees of tens of thousands of tables,
moves a page byte by byte to a directory, announces spaces, names memory that is no RAM. What is bounded, and judged, is
the CPU time of the serving thread between two looks at the slots: 2 ms. What the storing vCPU waits is printed besides;
the scheduler of a busy machine is in it.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from tests.bench.measure import MICRO, Figure
from tests.support.tables import ENTRIES, FRAME, pte
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.vcpu import Vcpu
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import Settings
from xengt_dm.vgpu.device import announcement

BAR0 = Settings().bar0
#: The space of the vCPU that stores; and the root of the other's.
ROOT, OWN_LEAF, HOSTILE = 1, 4, 16
HUGE = 0x83
LIMIT_MS = 2.0


@dataclass
class Looks:
    """The CPU time of the serving thread between two looks at the slots."""

    last: float = 0.0
    most: float = 0.0
    total: float = 0.0

    def until_now(self) -> Looks:
        return Looks(self.last, self.most, self.total)

    def watch(self, look: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            now = time.thread_time()
            if self.last:
                self.most = max(self.most, now - self.last)
                self.total += now - self.last
            found = look(*arguments, **named)
            self.last = time.thread_time()
            return found

        return watched


@dataclass
class Guest:
    """A domain with two vCPUs, its device model, and pages that are written before the device model knows of them."""

    frames: int
    holes: list[tuple[int, int]] = field(default_factory=list)

    def open(self, stack: ExitStack) -> tuple[EmbeddedDomain, Instance]:
        domain = stack.enter_context(EmbeddedDomain(self.frames, 2, "4.17", holes=self.holes))
        for gfn in range(ROOT, OWN_LEAF):
            poke(domain, gfn, [pte(gfn + 1)])
        return domain, stack.enter_context(open_instance(domain.port(), Settings()))


def poke(domain: EmbeddedDomain, gfn: int, entries: list[int]) -> None:
    domain.write(gfn * FRAME, b"".join(entry.to_bytes(8, "little") for entry in entries))


def announce(vcpu: Vcpu, root: int) -> None:
    for offset, size, value in announcement(Mode.L4, (root * FRAME,)):
        vcpu.mmio_write(BAR0 + offset, size, value)


@dataclass(frozen=True)
class Case:
    """``prepare`` writes guest memory, ``hostile`` is what one vCPU does; returns its instructions."""

    name: str
    guest: Guest
    prepare: Callable[[EmbeddedDomain], None]
    hostile: Callable[[Vcpu], int]
    #: What an operator does meanwhile.
    operator: Callable[[Instance], Any] | None = None


def tree(domain: EmbeddedDomain, directories: int) -> None:
    """A page-directory pointer table of so many directories, each of 512 leaf tables of its own."""
    first = HOSTILE + 2
    poke(domain, HOSTILE + 1, [pte(first + n) for n in range(directories)])
    for n in range(directories):
        leaves = first + directories + n * ENTRIES
        poke(domain, first + n, [pte(leaves + slot) for slot in range(ENTRIES)])


def flip(vcpu: Vcpu, times: int) -> int:
    announce(vcpu, HOSTILE)
    for _ in range(times):
        vcpu.store(HOSTILE * FRAME, 8, pte(HOSTILE + 1))
        vcpu.store(HOSTILE * FRAME, 8, 0)
    return 2 * times


def hold(vcpu: Vcpu) -> int:
    announce(vcpu, HOSTILE)
    vcpu.store(HOSTILE * FRAME, 8, pte(HOSTILE + 1))
    return 1


def move_bytes(vcpu: Vcpu, count: int) -> int:
    """``rep movsb`` from registers to a root: every byte may link another tree."""
    announce(vcpu, HOSTILE)
    source = BAR0 + 0x200000
    for at in range(0, count, 8):
        vcpu.mmio_write(source + at, 8, pte(HOSTILE + 1))
    vcpu.rep_movs(HOSTILE * FRAME, source, 1, count)
    return 1


def huge(domain: EmbeddedDomain, directories: int) -> None:
    """Directories full of 2 MiB entries that all name one chunk."""
    poke(domain, HOSTILE, [pte(HOSTILE + 1 + n) for n in range(directories // ENTRIES)])
    first = HOSTILE + 1 + directories // ENTRIES
    for n in range(directories // ENTRIES):
        poke(domain, HOSTILE + 1 + n, [pte(first + n * ENTRIES + slot) for slot in range(ENTRIES)])
    for n in range(directories):
        poke(domain, first + n, [ENTRIES * FRAME | HUGE] * ENTRIES)


def announce_once(vcpu: Vcpu) -> int:
    announce(vcpu, HOSTILE)
    return 1


def many_spaces(vcpu: Vcpu, count: int) -> int:
    for n in range(count):
        announce(vcpu, 0x100000 + n)
    return 3 * count


def holes(domain: EmbeddedDomain, first: int) -> None:
    """Leaf tables that name a chunk without RAM in each entry."""
    poke(domain, HOSTILE, [pte(HOSTILE + 1)])
    poke(domain, HOSTILE + 1, [pte(HOSTILE + 2)])
    for table in range(4):
        poke(domain, HOSTILE + 3 + table, [pte(first + (table * ENTRIES + n) * 512) for n in range(ENTRIES)])


def link_holes(vcpu: Vcpu) -> int:
    announce(vcpu, HOSTILE)
    for table in range(4):
        vcpu.store((HOSTILE + 2) * FRAME + 8 * table, 8, pte(HOSTILE + 3 + table))
    return 4


def give_back(vcpu: Vcpu, times: int) -> int:
    hold(vcpu)
    for _ in range(times):
        vcpu.remove(8, 1)
        vcpu.add(8, 1)
    return 2 * times


async def audit(instance: Instance) -> None:
    for space in instance.engine.spaces:
        synced = await instance.loop.run(instance.engine.sync(space))
        await instance.loop.run(instance.engine.audit(space, synced))


async def quiesce(instance: Instance) -> None:
    await instance.quiesce()
    await instance.resume()


def cases(quick: bool) -> list[Case]:
    directories = 2 if quick else 126
    large = Guest(HOSTILE + 2 + directories * (ENTRIES + 1) + 1024)
    full = partial(tree, domain=None, directories=directories)
    prepare = lambda domain: full(domain=domain)  # noqa: E731
    pages = ENTRIES if quick else 16 * ENTRIES
    first_hole = 4096
    return [
        Case("link and unlink a tree", large, prepare, partial(flip, times=1 if quick else 4)),
        Case("rep movsb to a root", large, prepare, partial(move_bytes, count=64 if quick else 4096)),
        Case("directories of 2 MiB", Guest(pages + 8192), lambda domain: huge(domain, pages), announce_once),
        Case("many spaces", Guest(4096), lambda domain: None, partial(many_spaces, count=50 if quick else 6000)),
        Case(
            "tables of holes",
            Guest(first_hole + (1 << 20), [(first_hole, 1 << 20)]),
            lambda domain: holes(domain, first_hole),
            link_holes,
        ),
        Case("frames given back", large, prepare, partial(give_back, times=10 if quick else 200)),
        Case("audit of a tree", large, prepare, hold, audit),
        Case("quiesce and resume", large, prepare, hold, quiesce),
    ]


def run(quick: bool) -> Iterator[Figure]:
    for case in cases(quick):
        looks, waits, spent, instructions = beside(case)
        cuts = statistics.quantiles(waits, n=100) if len(waits) > 1 else [waits[0]] * 99
        wait = f"{cuts[49] * MICRO:,.0f} us (p50), {cuts[98] * MICRO:,.0f} (p99), {max(waits) * MICRO:,.0f} at most"
        cost = f"{spent / instructions * 1000:,.1f} ms CPU an instruction"
        how = f"the other vCPU waits {wait}, {len(waits)} stores; {cost}"
        yield Figure("neighbours", case.name, looks.most * 1000, "ms between looks", how, target=LIMIT_MS)


def beside(case: Case) -> tuple[Looks, list[float], float, int]:
    """The looks, the waits of the storing vCPU, the daemon's CPU time, and the instructions of the other."""
    with ExitStack() as stack:
        domain, instance = case.guest.open(stack)
        case.prepare(domain)
        gc.collect()
        gc.freeze()  # as the daemon does
        looks, waits, done = Looks(), [], threading.Event()
        burst: Any = instance.loop.burst
        burst.run, burst.look = looks.watch(burst.run), looks.watch(burst.look)

        def store_on() -> None:
            vcpu = domain.vcpu(1)
            while not done.is_set() or len(waits) < 2:
                start = time.perf_counter()
                vcpu.store(OWN_LEAF * FRAME, 8, pte(len(waits) % 1024))
                waits.append(time.perf_counter() - start)

        instructions = 0

        async def main() -> None:
            nonlocal instructions
            async with trio.open_nursery() as nursery:
                await nursery.start(instance.loop.serve)
                await trio.to_thread.run_sync(announce, domain.vcpu(1), ROOT)
                async with trio.open_nursery() as storing:
                    storing.start_soon(trio.to_thread.run_sync, store_on)
                    instructions = await trio.to_thread.run_sync(case.hostile, domain.vcpu(0))
                    if case.operator is not None:
                        await case.operator(instance)
                    done.set()
                nursery.cancel_scope.cancel()

        trio.run(main)
        assert instance.engine.check() == []
        seen = looks.until_now()  # without the end of the instance
        return seen, waits, seen.total, instructions
