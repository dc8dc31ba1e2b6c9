"""A guest that behaves like i915, on the embedded hypervisor: the whole path without Xen.

Each of two vCPUs is a driver with an address space of its own. It stores in the order of
``drivers/gpu/drm/i915/gt/gen8_ppgtt.c`` of Linux 6.1:

* All spaces share a tree of scratch tables.
* A table is filled before one 8-byte store links it.
* Entries are inserted with one store each, and ranges are cleared with a compiled ``memset64``.
* A table is unlinked from its parent before its page is used for something else.
* A space is announced when it is complete, and destroyed before its tables are freed.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from xengt_dm.control import report
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.shadow_paging import Paging
from xengt_dm.hypervisor.embedded.vcpu import Vcpu
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.engine import Engine, Sync
from xengt_dm.service.threads import run_abandonable
from xengt_dm.settings import DEFAULT_BAR0, Settings
from xengt_dm.sim.ending import Ending, ending_in_order
from xengt_dm.stats.counters import read_counters
from xengt_dm.steps import complete
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE
from xengt_dm.vgpu import registers as reg

ENTRIES = 512
RAM_FRAMES = 16384
#: The low bits of entries. Source: gen8_pde_encode and gen8_pte_encode.
TABLE = 0x003
TABLE_TO_SCRATCH = 0x01B
PAGE_CACHED = 0x083
PAGE_SCRATCH = 0x019
#: GPU addresses that are resolved in each space at the end.
LOOKUPS = 1000

Progress = Callable[[int, float], None]


class GuestFault(AssertionError):  # noqa: N818 - what the guest found, in its own words
    """The guest read something else from its memory than it had stored."""


class Pages:
    """The guest kernel's page allocator for one vCPU.

    Each vCPU has its own, so the pages that it gets do not depend on how fast the other runs.
    """

    def __init__(self, first: int, last: int) -> None:
        self._free = list(range(last, first - 1, -1))

    def take(self) -> int:
        """Returns the gfn of a free page, which is in use from here on."""
        return self._free.pop()

    def give_back(self, gfn: int) -> None:
        """Frees a page that :meth:`take` returned."""
        self._free.append(gfn)


@dataclass(frozen=True)
class Scratch:
    """What unused entries point to: the gfn of a data page, and of one full table for each level."""

    data: int
    tables: tuple[int, int, int]

    @classmethod
    def build(cls, vcpu: Vcpu, pages: Pages) -> Scratch:
        """Builds the scratch tables. The first vCPU does it before any space is announced, so no store traps."""
        data = pages.take()
        entry = data * PAGE_SIZE | PAGE_SCRATCH
        tables = []
        for _ in range(3):
            gfn = pages.take()
            vcpu.fill(gfn * PAGE_SIZE, ENTRIES, entry)
            tables.append(gfn)
            entry = gfn * PAGE_SIZE | TABLE_TO_SCRATCH
        return cls(data, (tables[0], tables[1], tables[2]))

    def entry(self, level: int) -> int:
        """Returns the value of an unused entry in a table of this level."""
        if level == 1:
            return self.data * PAGE_SIZE | PAGE_SCRATCH
        return self.tables[level - 2] * PAGE_SIZE | TABLE_TO_SCRATCH


class AddressSpace:
    """One PPGTT as its driver sees it: its tables, and what the driver stored in them."""

    def __init__(self, vcpu: Vcpu, pages: Pages, scratch: Scratch, lock: threading.Lock) -> None:
        self._vcpu = vcpu
        self._pages = pages
        self._scratch = scratch
        self._notify_lock = lock
        #: gfn -> the 512 entries that this table should hold.
        self.believed: dict[int, list[int]] = {}
        self.root = self._new_table(4)
        directory_pointers, directory = self._new_table(3), self._new_table(2)
        self._set(directory_pointers, 0, directory * PAGE_SIZE | TABLE)
        self._set(self.root, 0, directory_pointers * PAGE_SIZE | TABLE)
        self.directory = directory

    def announce(self, notification: reg.Notification) -> None:
        """Announces or destroys the space, as gen8_ppgtt_notify_vgt does. vCPUs share pdp[0], so there is a lock."""
        with self._notify_lock:
            base = DEFAULT_BAR0
            self._vcpu.mmio_write(base + reg.PDP0, 4, self.root * PAGE_SIZE & 0xFFFFFFFF)
            self._vcpu.mmio_write(base + reg.PDP0 + 4, 4, self.root * PAGE_SIZE >> 32)
            self._vcpu.mmio_write(base + reg.G2V_NOTIFY, 4, notification)

    def map_range(self, slot: int, gfns: list[int]) -> None:
        """Binds a buffer: links a new table at ``slot`` of the directory, then stores one entry after the other."""
        table = self._new_table(1)
        self._set(self.directory, slot, table * PAGE_SIZE | TABLE)
        for i, gfn in enumerate(gfns):
            self._set(table, i, gfn * PAGE_SIZE | PAGE_CACHED)

    def clear_range(self, slot: int, first: int, count: int) -> None:
        """Unbinds a range: a memset64 of scratch entries over a part of a linked table."""
        table = self.believed[self.directory][slot] // PAGE_SIZE
        self._fill(table, first, count, self._scratch.entry(1))

    def unmap(self, slot: int) -> None:
        """Unlinks a table, uses its page for something else, and frees it."""
        table = self.believed[self.directory][slot] // PAGE_SIZE
        self._set(self.directory, slot, self._scratch.entry(2))
        del self.believed[table]
        self._vcpu.fill(table * PAGE_SIZE, ENTRIES, 0x5A5A5A5A5A5A5A5A)
        self._pages.give_back(table)

    def rebind(self, rng: random.Random, count: int, pages: int, ram_frames: int) -> None:
        """Binds ``count`` buffers of ``pages`` pages anywhere in RAM, each in place of another, and unbinds some."""
        slots = rng.sample(range(ENTRIES), count)
        live = self.believed[self.directory]
        for slot in slots:
            if live[slot] & 0xFFF == TABLE:
                self.unmap(slot)
            self.map_range(slot, [rng.randrange(ram_frames) for _ in range(pages)])
        self.clear_range(slots[0], rng.randrange(ENTRIES // 2), ENTRIES // 4)
        self.unmap(slots[1])

    def check(self) -> None:
        """Reads every table back. Raises GuestFault if an entry differs from what was stored."""
        for gfn, entries in self.believed.items():
            for i, entry in enumerate(entries):
                found = self._vcpu.load(gfn * PAGE_SIZE + 8 * i, 8)
                if found != entry:
                    raise GuestFault(f"entry {i} of table {gfn:#x} reads {found:#x}, and {entry:#x} was stored")

    def mapped(self) -> list[tuple[int, int]]:
        """Returns (va, gpa) of every page that an entry of a linked table maps."""
        return [
            (slot << 21 | i << PAGE_SHIFT, entry & ~0xFFF)
            for slot, link in enumerate(self.believed[self.directory])
            if link & 0xFFF == TABLE
            for i, entry in enumerate(self.believed[link // PAGE_SIZE])
        ]

    def free(self) -> None:
        """Frees the pages of all tables."""
        for gfn in self.believed:
            self._pages.give_back(gfn)

    def _new_table(self, level: int) -> int:
        gfn = self._pages.take()
        self.believed[gfn] = [0] * ENTRIES
        self._fill(gfn, 0, ENTRIES, self._scratch.entry(level))
        return gfn

    def _set(self, gfn: int, slot: int, entry: int) -> None:
        self._vcpu.store(gfn * PAGE_SIZE + 8 * slot, 8, entry)
        self.believed[gfn][slot] = entry

    def _fill(self, gfn: int, first: int, count: int, entry: int) -> None:
        self._vcpu.fill(gfn * PAGE_SIZE + 8 * first, count, entry)
        self.believed[gfn][first : first + count] = [entry] * count


class Guest:
    """The guest: a program for each vCPU, and the moments at which the vCPUs wait for each other."""

    VCPUS = 2
    #: Tables that are bound in one round.
    SLOTS = 4
    PAGES_A_SLOT = 96
    #: The smallest number of rounds. There are more if there is time.
    ROUNDS = 2

    def __init__(self, seconds: float, seed: int) -> None:
        self._seconds = seconds
        self._seed = seed
        part = RAM_FRAMES // (2 * self.VCPUS)
        self._pages = [Pages(256 + n * part, 255 + (n + 1) * part) for n in range(self.VCPUS)]
        self._lock = threading.Lock()
        self._scratch: Scratch | None = None
        self._ready = threading.Barrier(self.VCPUS)
        #: All programs stop here with their spaces live. After the audit they continue.
        self.live: list[AddressSpace] = []
        self.resting = threading.Semaphore(0)
        self.go_on = threading.Event()

    def program(self, vcpu: Vcpu) -> None:
        """The program of one vCPU. Raises GuestFault, and VcpuStoppedError when the domain ends."""
        if vcpu.index == 0:
            self._scratch = Scratch.build(vcpu, self._pages[0])
        self._ready.wait()
        assert self._scratch is not None
        rng = random.Random(self._seed + vcpu.index)
        end = time.monotonic() + self._seconds
        space = AddressSpace(vcpu, self._pages[vcpu.index], self._scratch, self._lock)
        try:
            if vcpu.mmio_read(DEFAULT_BAR0 + reg.PVINFO, 8) != reg.PVINFO_MAGIC:
                raise GuestFault("no virtual GPU answers at PVINFO")
            space.announce(reg.Notification.PPGTT_L4_CREATE)
            for _ in range(self.ROUNDS):
                space.rebind(rng, self.SLOTS, self.PAGES_A_SLOT, RAM_FRAMES)
            while time.monotonic() < end:
                space.rebind(rng, self.SLOTS, self.PAGES_A_SLOT, RAM_FRAMES)
            space.check()
            self.live.append(space)
        finally:
            self.resting.release()
        self.go_on.wait()
        space.announce(reg.Notification.PPGTT_L4_DESTROY)
        space.free()

    def abandon(self) -> None:
        """The domain is destroyed: no program waits for another any more, nor anybody for a program."""
        self._ready.abort()
        self.go_on.set()
        self.resting.release(self.VCPUS)


@dataclass(frozen=True, slots=True)
class Result:
    """What was found while all spaces were live. ``counters`` are those at the end.

    ``resolved`` is the number of GPU addresses that were resolved by the shadow, and ``wrong`` how many of them led to
    another page than the guest meant. ``digest`` is a hash of where they led; it is the same for the same guest on any
    hypervisor. ``mismatches`` is the number of entries that the audit found to be wrong or overdue.
    """

    flavour: str
    paging: Paging
    seed: int
    seconds: float
    spaces: int
    tables: int
    resolved: int
    wrong: int
    digest: str
    mismatches: int
    counters: dict[str, int]


def demo(
    seconds: float,
    flavour: str,
    seed: int,
    progress: Progress,
    sync: Sync = Sync.STRICT,
    paging: Paging = Paging.HAP,
) -> Result:
    """Runs the guest for about ``seconds``, but at least ROUNDS rounds; audits the shadows; and ends in order.

    A few times a second ``progress`` is called with the number of stores that have trapped and the seconds that have
    passed. Raises GuestFault if the guest finds its memory wrong, HostError if no device model can see every store of
    a guest with this paging on this flavour of Xen, and KeyboardInterrupt or SystemExit if it is interrupted.
    """
    guest = Guest(seconds, seed)
    with (
        ending_in_order() as ending,
        EmbeddedDomain(RAM_FRAMES, Guest.VCPUS, flavour, paging=paging) as domain,
        open_instance(domain.port(), Settings(sync=sync)) as instance,
    ):
        result = trio.run(_demo, domain, instance, guest, seed, progress, ending)
    if isinstance(result, GuestFault):
        raise result
    return result


async def _demo(
    domain: EmbeddedDomain, instance: Instance, guest: Guest, seed: int, progress: Progress, ending: Ending
) -> Result | GuestFault:
    engine = instance.engine
    started = time.monotonic()

    def stop() -> None:
        domain.destroy()
        guest.abandon()

    async with trio.open_nursery() as nursery:
        await nursery.start(ending.watch, stop, nursery.cancel_scope)
        await nursery.start(instance.loop.serve)
        nursery.start_soon(_report, instance, started, progress)
        for index in range(Guest.VCPUS):
            domain.start(index, guest.program)
        for _ in range(Guest.VCPUS):
            await run_abandonable(guest.resting.acquire)
        seconds = time.monotonic() - started
        spaces = engine.spaces
        resolved, wrong, digest = _resolve(engine, guest, seed)
        mismatches = report.audit_spaces(engine)
        tables = int(engine.counters.tables)
        guest.go_on.set()
        try:
            await run_abandonable(domain.join)
        except GuestFault as fault:  # the nursery would put it into a group
            return fault
        finally:
            nursery.cancel_scope.cancel()
    counters = read_counters(engine.counters)
    return Result(
        domain.flavour.name,
        domain.paging,
        seed,
        seconds,
        len(spaces),
        tables,
        resolved,
        wrong,
        digest,
        mismatches,
        counters,
    )


def _resolve(engine: Engine, guest: Guest, seed: int) -> tuple[int, int, str]:
    """Resolves GPU addresses of every space by its shadow.

    Returns how many were resolved, how many led to another page than the guest meant, and a hash of where they led.
    """
    rng = random.Random(seed)
    digest = hashlib.sha256()
    by_root = {space.roots: space for space in engine.spaces}
    resolved = wrong = 0
    for space in sorted(guest.live, key=lambda space: space.root):
        pages = space.mapped()
        shadowed = by_root[space.root * PAGE_SIZE,]
        complete(engine.sync(shadowed))
        for va, gpa in rng.sample(pages, min(LOOKUPS, len(pages))):
            page = engine.resolve(shadowed, va)
            resolved += 1
            wrong += page is None or page.gpa != gpa
            digest.update(repr((space.root, va, page)).encode())
    return resolved, wrong, digest.hexdigest()[:16]


async def _report(instance: Instance, started: float, progress: Progress) -> None:
    while True:
        await trio.sleep(0.2)
        progress(int(instance.engine.counters.store_traps), time.monotonic() - started)
