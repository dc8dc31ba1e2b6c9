"""Guests whose vCPUs store to the same tables while these are unsynced, resynced and unprotected, in any order.

A seed decides what is stored and who runs when (:mod:`tests.support.schedule`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.support.schedule import Schedule, ScheduledPort, Store
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm._core import lib
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.port import WriteTrap
from xengt_dm.instance import WRITE_TRAPS, Instance, TrapsMaker, open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import Settings
from xengt_dm.steps import complete

PATIENCE = 20.0
ROOT, POINTERS, DIRECTORY = 4, 5, 6
#: Two are neighbours, each of them of a frame that is no table, too; so stores may lie in two frames of any kind.
LEAVES = (8, 10, 11)
FRAMES = 64
STORES = 8
ROOTS = (ROOT * FRAME,)
#: Bytes at each end of a page that are for stores over it.
_EDGE = 64


def programs(rng: random.Random, vcpus: int, straddles: bool = True) -> dict[int, list[Store]]:
    """What each vCPU stores: to a part of each table of its own, and if ``straddles``, over the ends of some pages.

    Many stores repeat the value of the one before. The first vCPU also takes tables out and puts them back.
    """
    part = (FRAME - 2 * _EDGE) // vcpus // 64 * 64
    result: dict[int, list[Store]] = {}
    for vcpu in range(vcpus):
        stores: list[Store] = []
        for _ in range(STORES):
            if straddles and rng.random() < 0.3:  # over a page's end, of which each is one vCPU's
                last = rng.choice([gfn for gfn in (7, 8, 9, 10, 11) if gfn % vcpus == vcpu] or [10 + vcpu])
                if last % vcpus == vcpu:
                    before = rng.choice([1, 2, 4, 6, 8])
                    size = rng.choice([size for size in (2, 4, 8, 16) if size > before])
                    stores.append((last * FRAME + FRAME - before, rng.randbytes(size)))
                continue
            leaf = rng.choice(LEAVES)
            size = rng.choice([4, 8, 8, 16, 32, 64])
            gpa = leaf * FRAME + _EDGE + vcpu * part + rng.randrange(0, part - 128, 4)
            stores.append((gpa, rng.randbytes(size)))
            if size == 8 and rng.random() < 0.7:
                stores.extend((gpa + 8 * i, stores[-1][1]) for i in (1, 2))
            if vcpu == 0 and rng.random() < 0.4:
                slot = rng.randrange(len(LEAVES))
                at = DIRECTORY * FRAME + 8 * slot
                stores.extend((at, entry.to_bytes(8, "little")) for entry in (0, pte(LEAVES[slot])))
        result[vcpu] = stores
    return result


@dataclass
class Outcome:
    lost: list[int]
    mismatches: int
    turns: list[str]
    #: How often tables were unsynced after stores to them, and protected because they had settled.
    unsynced: int
    settled: int


def explore(
    seed: int,
    flavour: str,
    sync: Sync,
    write_traps: Mapping[WriteTrap, TrapsMaker] = WRITE_TRAPS,
    stop_early: bool = False,
    rep_stores: bool = False,
    vcpus: int = 2,
    unlocked: bool | None = None,
    switches: bool = False,
    straddles: bool = True,
) -> Outcome:
    """One order. Leaf tables are protected to begin with, settle at once, and are unsynced after their first store.

    ``unlocked``: whether Xen looks at types without a lock from the first emulation pass on. ``switches``: the mode is
    switched to strict and back now and then. ``straddles``: whether stores lie in two pages.
    """
    rng = random.Random(seed)
    stores = programs(rng, vcpus, straddles)
    with EmbeddedDomain(FRAMES, vcpus, flavour, rep_stores=rep_stores, unlocked_looks=unlocked) as domain:
        for gfn, slot, child in (
            (ROOT, 0, POINTERS),
            (POINTERS, 0, DIRECTORY),
            *((DIRECTORY, slot, leaf) for slot, leaf in enumerate(LEAVES)),
        ):
            domain.write(gfn * FRAME + 8 * slot, pte(child).to_bytes(8, "little"))
        schedule = Schedule(domain, seed)
        port = ScheduledPort(domain, schedule)
        mismatches = 0
        with open_instance(port, Settings(), write_traps=write_traps) as instance:
            complete(instance.engine.create_space(Mode.L4, ROOTS))
            complete(instance.engine.set_sync_mode(sync))
            schedule.start(stores)
            looks = 0
            while schedule.turn() and not (stop_early and looks > 8):
                looks += 1
                assert looks < 10_000, f"nothing happens any more (seed {seed})"
                _hasten(instance)
                if rng.random() < 0.4:
                    for _ in instance.engine.submit(Mode.L4, ROOTS) or ():
                        instance.loop.service()
                if switches and rng.random() < 0.15:
                    for mode in (Sync.STRICT, Sync.RELAXED):
                        for _ in instance.engine.set_sync_mode(mode):
                            schedule.point()
                            instance.loop.service()
                if rng.random() < 0.1:
                    instance.traps.unprotect_deferred()
                if rng.random() < 0.2:
                    instance.traps.drop_guard_ranges()
                instance.loop.service()
                while instance.loop.busy:  # it may wait for another vCPU
                    schedule.point()
                    instance.loop.take_turns()
                instance.traps.check()
            if not stop_early:
                (space,) = instance.engine.spaces
                engine = WholeEngine(instance.engine)
                mismatches = sum(engine.audit(space, engine.sync(space)))  # nobody stores, so no table is left out
        schedule.finish()
        assert domain.protected() == []
        counters = instance.stats.counters
        unsynced, settled = int(counters.opened_pages), int(counters.settled_tables)
        assert domain.join(PATIENCE)
        return Outcome(wrong(domain, stores), mismatches, schedule.turns, unsynced, settled)


def _hasten(instance: Instance) -> None:
    """Have leaf tables settle, and be unsynced, as early as can be."""
    shadow = instance.engine.shadow
    for number in _leaves(instance):
        shadow.tables[number].life.calm = shadow.tables[number].life.patience = 1


def _leaves(instance: Instance) -> Iterator[int]:
    shadow = instance.engine.shadow
    for number in range(1, shadow.used + 1):
        if shadow.tables[number].kind & lib.XD_LEVEL_MASK == 1:
            yield number


def wrong(domain: EmbeddedDomain, stores: Mapping[int, Sequence[Store]]) -> list[int]:
    """Addresses that do not hold what was stored there last."""
    memory: dict[int, int] = {}
    for each in stores.values():
        for gpa, data in each:
            memory.update((gpa + i, byte) for i, byte in enumerate(data))
    return [gpa for gpa, byte in memory.items() if domain.read(gpa, 1)[0] != byte]
