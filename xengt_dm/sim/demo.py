"""A guest that does what i915 does, on the embedded hypervisor: the whole path at work without Xen.

Each of two vCPUs is a driver with an address space of its own. The order of its stores is that of
``drivers/gpu/drm/i915/gt/gen8_ppgtt.c`` of Linux 6.1: a scratch hierarchy that every space shares; tables filled before
they are linked by one 8-byte store; entries inserted one store each; ranges cleared by a compiled ``memset64``; a table
unlinked from its parent before its page is used for something else; the space announced when it is complete, and taken
back before its tables are freed.
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
from xengt_dm.daemon.main import DEFAULT_BAR0, Instance, Settings, open_instance
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.vcpu import Vcpu
from xengt_dm.ppgtt.engine import Engine, Sync
from xengt_dm.stats.counters import read_counters
from xengt_dm.vgpu import registers as reg

FRAME = 4096
ENTRIES = 512
RAM_FRAMES = 16384
#: What the entries are made of, gen8_pde_encode and gen8_pte_encode.
TABLE = 0x003
TABLE_TO_SCRATCH = 0x01B
PAGE_CACHED = 0x083
PAGE_SCRATCH = 0x019
#: GPU addresses looked up in each space in the end.
LOOKUPS = 1000

Progress = Callable[[int, float], None]


class GuestFault(AssertionError):  # noqa: N818 - what the guest found, in its own words
    """The guest's memory is not what the guest stored."""


class Pages:
    """The guest kernel's page allocator, a vCPU's part of it: so what one gets does not depend on the others' pace."""

    def __init__(self, first: int, last: int) -> None:
        self._free = list(range(last, first - 1, -1))

    def take(self) -> int:
        return self._free.pop()

    def give_back(self, gfn: int) -> None:
        self._free.append(gfn)


@dataclass(frozen=True)
class Scratch:
    """What entries point to that map nothing of anybody's: gfns of a data page and of a full table of each level."""

    data: int
    tables: tuple[int, int, int]

    @classmethod
    def build(cls, vcpu: Vcpu, pages: Pages) -> Scratch:
        """Made by the first vCPU, before anything is announced; so none of it traps."""
        data = pages.take()
        entry = data * FRAME | PAGE_SCRATCH
        tables = []
        for _ in range(3):
            gfn = pages.take()
            vcpu.fill(gfn * FRAME, ENTRIES, entry)
            tables.append(gfn)
            entry = gfn * FRAME | TABLE_TO_SCRATCH
        return cls(data, (tables[0], tables[1], tables[2]))

    def entry(self, level: int) -> int:
        """What an empty entry of a table of this level says."""
        if level == 1:
            return self.data * FRAME | PAGE_SCRATCH
        return self.tables[level - 2] * FRAME | TABLE_TO_SCRATCH


class AddressSpace:
    """One PPGTT, as its driver keeps it: its tables, and what it believes they say."""

    def __init__(self, vcpu: Vcpu, pages: Pages, scratch: Scratch, lock: threading.Lock) -> None:
        self._vcpu = vcpu
        self._pages = pages
        self._scratch = scratch
        self._notify_lock = lock
        #: gfn -> the 512 entries that this table should hold.
        self.believed: dict[int, list[int]] = {}
        self.root = self._new_table(4)
        directory_pointers, directory = self._new_table(3), self._new_table(2)
        self._set(directory_pointers, 0, directory * FRAME | TABLE)
        self._set(self.root, 0, directory_pointers * FRAME | TABLE)
        self.directory = directory

    def announce(self, notification: reg.Notification) -> None:
        """gen8_ppgtt_notify_vgt: under one lock, because the pdp registers are shared."""
        with self._notify_lock:
            base = DEFAULT_BAR0
            self._vcpu.mmio_write(base + reg.PDP0, 4, self.root * FRAME & 0xFFFFFFFF)
            self._vcpu.mmio_write(base + reg.PDP0 + 4, 4, self.root * FRAME >> 32)
            self._vcpu.mmio_write(base + reg.G2V_NOTIFY, 4, notification)

    def map_range(self, slot: int, gfns: list[int]) -> None:
        """Bind a buffer: a new table under ``slot`` of the directory, then one entry after the other."""
        table = self._new_table(1)
        self._set(self.directory, slot, table * FRAME | TABLE)
        for i, gfn in enumerate(gfns):
            self._set(table, i, gfn * FRAME | PAGE_CACHED)

    def clear_range(self, slot: int, first: int, count: int) -> None:
        """Unbind: a memset64 of scratch entries over a live table."""
        table = self.believed[self.directory][slot] // FRAME
        self._fill(table, first, count, self._scratch.entry(1))

    def unmap(self, slot: int) -> None:
        """Take a whole table out, then use its page for something else."""
        table = self.believed[self.directory][slot] // FRAME
        self._set(self.directory, slot, self._scratch.entry(2))
        del self.believed[table]
        self._vcpu.fill(table * FRAME, ENTRIES, 0x5A5A5A5A5A5A5A5A)
        self._pages.give_back(table)

    def check(self) -> None:
        """Read every table back. Raises GuestFault."""
        for gfn, entries in self.believed.items():
            for i, entry in enumerate(entries):
                found = self._vcpu.load(gfn * FRAME + 8 * i, 8)
                if found != entry:
                    raise GuestFault(f"entry {i} of table {gfn:#x} reads {found:#x}, and {entry:#x} was stored")

    def mapped(self) -> list[tuple[int, int]]:
        """(va, gpa) of every page that an entry of a linked table names."""
        return [
            (slot << 21 | i << 12, entry & ~0xFFF)
            for slot, link in enumerate(self.believed[self.directory])
            if link & 0xFFF == TABLE
            for i, entry in enumerate(self.believed[link // FRAME])
        ]

    def free(self) -> None:
        for gfn in self.believed:
            self._pages.give_back(gfn)

    def _new_table(self, level: int) -> int:
        gfn = self._pages.take()
        self.believed[gfn] = [0] * ENTRIES
        self._fill(gfn, 0, ENTRIES, self._scratch.entry(level))
        return gfn

    def _set(self, gfn: int, slot: int, entry: int) -> None:
        self._vcpu.store(gfn * FRAME + 8 * slot, 8, entry)
        self.believed[gfn][slot] = entry

    def _fill(self, gfn: int, first: int, count: int, entry: int) -> None:
        self._vcpu.fill(gfn * FRAME + 8 * first, count, entry)
        self.believed[gfn][first : first + count] = [entry] * count


class Guest:
    """The guest's side: a program for each vCPU, and the moments at which they wait for each other."""

    VCPUS = 2
    #: Tables bound and cleared in one round; with 3 stores more to link, unlink and clear.
    SLOTS = 4
    PAGES_A_SLOT = 96
    #: At least so many; more as long as there is time.
    ROUNDS = 2

    def __init__(self, seconds: float, seed: int) -> None:
        self._seconds = seconds
        self._seed = seed
        part = RAM_FRAMES // (2 * self.VCPUS)
        self._pages = [Pages(256 + n * part, 255 + (n + 1) * part) for n in range(self.VCPUS)]
        self._lock = threading.Lock()
        self._scratch: Scratch | None = None
        self._ready = threading.Barrier(self.VCPUS)
        #: All programs stand still with their spaces live; then the audit; then they go on.
        self.live: list[AddressSpace] = []
        self.resting = threading.Semaphore(0)
        self.go_on = threading.Event()

    def program(self, vcpu: Vcpu) -> None:
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
                self._round(space, rng)
            while time.monotonic() < end:
                self._round(space, rng)
            space.check()
            self.live.append(space)
        finally:
            self.resting.release()
        self.go_on.wait()
        space.announce(reg.Notification.PPGTT_L4_DESTROY)
        space.free()

    def _round(self, space: AddressSpace, rng: random.Random) -> None:
        slots = rng.sample(range(ENTRIES), self.SLOTS)
        live = space.believed[space.directory]
        for slot in slots:
            if live[slot] & 0xFFF == TABLE:
                space.unmap(slot)
            space.map_range(slot, [rng.randrange(RAM_FRAMES) for _ in range(self.PAGES_A_SLOT)])
        space.clear_range(slots[0], rng.randrange(ENTRIES // 2), ENTRIES // 4)
        space.unmap(slots[1])


@dataclass(frozen=True, slots=True)
class Result:
    """What was found while all spaces were live; ``counters`` are of the end.

    ``resolved``: GPU addresses looked up in the shadow, ``wrong``: of those, the ones that led elsewhere than the guest
    meant, ``digest``: of where they led, the same for the same guest on any hypervisor. ``mismatches``: of the audit.
    """

    flavour: str
    seed: int
    seconds: float
    spaces: int
    tables: int
    resolved: int
    wrong: int
    digest: str
    mismatches: int
    counters: dict[str, int]


def demo(seconds: float, flavour: str, seed: int, progress: Progress, sync: Sync = Sync.STRICT) -> Result:
    """Run the guest for about ``seconds`` (one round at least), audit, and end in order.

    ``progress`` is called with the stores trapped so far and the seconds gone by, a few times a second. Raises
    GuestFault if the guest finds its memory wrong, HostError if that Xen cannot show what a guest stores.
    """
    guest = Guest(seconds, seed)
    with (
        EmbeddedDomain(RAM_FRAMES, Guest.VCPUS, flavour) as domain,
        open_instance(domain.port(), Settings(sync=sync)) as instance,
    ):
        return trio.run(_demo, domain, instance, guest, seed, progress)


async def _demo(domain: EmbeddedDomain, instance: Instance, guest: Guest, seed: int, progress: Progress) -> Result:
    engine = instance.engine
    started = time.monotonic()
    async with trio.open_nursery() as nursery:
        await nursery.start(instance.serve)
        nursery.start_soon(_report, instance, started, progress)
        for index in range(Guest.VCPUS):
            domain.start(index, guest.program)
        for _ in range(Guest.VCPUS):
            await trio.to_thread.run_sync(guest.resting.acquire)
        seconds = time.monotonic() - started
        spaces = engine.spaces
        resolved, wrong, digest = _resolve(engine, guest, seed)
        mismatches = report.audit_spaces(engine)
        tables = int(engine.counters.tables)
        guest.go_on.set()
        await trio.to_thread.run_sync(domain.join)
        nursery.cancel_scope.cancel()
    counters = read_counters(engine.counters)
    return Result(
        domain.flavour.name, seed, seconds, len(spaces), tables, resolved, wrong, digest, mismatches, counters
    )


def _resolve(engine: Engine, guest: Guest, seed: int) -> tuple[int, int, str]:
    """Look up GPU addresses of every space in its shadow: how many, how many led elsewhere than the guest meant."""
    rng = random.Random(seed)
    digest = hashlib.sha256()
    by_root = {space.roots: space for space in engine.spaces}
    resolved = wrong = 0
    for space in sorted(guest.live, key=lambda space: space.root):
        pages = space.mapped()
        shadowed = by_root[space.root * FRAME,]
        engine.sync(shadowed)
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
