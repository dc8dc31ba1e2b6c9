"""What relaxed mode saves: traps, counted, and the engine's time, for what drivers do to their leaf tables.

A trap is counted wherever a store finds its frame protected. The engine's time has no trap in it, and no hypercall. On
Xen these cost most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from tests.bench.measure import MICRO, Figure, best, cpu
from tests.support.engine_bench import EngineBench
from tests.support.tables import ENTRIES, FRAME, pte
from xengt_dm._core import lib
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode

ROOT, POINTERS, DIRECTORY, FIRST_LEAF, DATA = 1, 2, 3, 4, 600
FRAMES = 4096
SPACE = (Mode.L4, (ROOT * FRAME,))
#: Submissions that settle every table.
CALM: int = lib.XD_CALM


class Driver:
    """A guest's driver with one space; ``traps``: how many of its stores have trapped."""

    def __init__(self, sync: Sync, leaves: int) -> None:
        self.guest = EngineBench(FRAMES, backed=DATA)
        self.traps = 0
        self._value = DATA
        self.guest.put(ROOT, 0, pte(POINTERS))
        self.guest.put(POINTERS, 0, pte(DIRECTORY))
        for i in range(leaves):
            self.guest.put(DIRECTORY, i, pte(FIRST_LEAF + i))
        self.engine = self.guest.make_engine(sync=sync)
        self.engine.create_space(*SPACE)

    def store(self, table: int, entry: int, value: int | None = None) -> None:
        """Another value each time, unless it is said which."""
        if value is None:
            self._value = DATA + (self._value + 1 - DATA) % (FRAMES - DATA)
            value = pte(self._value)
        self.traps += self.guest.store(self.engine, table * FRAME + 8 * entry, 8, value)

    def fill(self, leaf: int, count: int = ENTRIES) -> None:
        for entry in range(count):
            self.store(FIRST_LEAF + leaf, entry)

    def submit(self) -> None:
        self.engine.submit(*SPACE)

    def settle(self) -> None:
        for _ in range(CALM + 1):
            self.submit()


def run(quick: bool) -> Iterator[Figure]:
    rounds = 4 if quick else 1000
    for leaves, target in ((1, 300), (64, 700)):
        yield _rewritten(leaves, target, 2 if quick else rounds if leaves == 1 else 800)
    yield _fresh(rounds)
    yield _life_of_a_space()
    yield from _times(quick)


def _rewritten(leaves: int, target: float, rounds: int) -> Figure:
    """Tables that had settled, all of them rewritten before each submission."""
    traps = {}
    for sync, count in ((Sync.STRICT, 1), (Sync.RELAXED, rounds)):
        driver = Driver(sync, leaves)
        driver.settle()
        for _ in range(count):
            for leaf in range(leaves):
                driver.fill(leaf)
            driver.submit()
        traps[sync] = driver.traps * rounds // count
    how = f"{traps[Sync.STRICT]:,} traps in {rounds} submissions, relaxed {traps[Sync.RELAXED]:,}"
    ratio = traps[Sync.STRICT] / max(traps[Sync.RELAXED], 1)
    what = f"{leaves} rewritten table{'s' * (leaves > 1)}, strict"
    return Figure("relaxed", what, ratio, "x the traps", how, target, at_least=True)


def _fresh(rounds: int) -> Figure:
    """A page that becomes a leaf table, is filled, submitted and given up; the same page again each time."""
    driver = Driver(Sync.RELAXED, 0)
    for _ in range(rounds):
        driver.fill(0, 8)
        driver.store(DIRECTORY, 0, pte(FIRST_LEAF))
        driver.fill(0)
        driver.submit()
        driver.store(DIRECTORY, 0, 0)
    how = "linked, filled by 512 stores, submitted, unlinked"
    return Figure("relaxed", "a fresh table's life", driver.traps / rounds, "traps", how, 4)


def _life_of_a_space() -> Figure:
    """As i915: 100 buffers of 64 pages, whose leaf tables are linked when the first page in them is bound."""
    traps = {}
    for sync in Sync:
        driver = Driver(sync, 0)
        for buffer in range(100):
            for page in range(64 * buffer, 64 * buffer + 64):
                leaf, entry = divmod(page, ENTRIES)
                if not entry:
                    driver.store(DIRECTORY, leaf, pte(FIRST_LEAF + leaf))
                driver.store(FIRST_LEAF + leaf, entry)
            if buffer % 10 == 9:
                driver.submit()
        for page in range(64 * 100):
            driver.store(FIRST_LEAF + page // ENTRIES, page % ENTRIES, 0)
        for leaf in range(-(-64 * 100 // ENTRIES)):
            driver.store(DIRECTORY, leaf, 0)
        driver.engine.destroy_space(*SPACE)
        traps[sync] = driver.traps
    how = f"{traps[Sync.STRICT]:,} traps, relaxed {traps[Sync.RELAXED]:,}: 100 buffers, 10 submissions, the end"
    ratio = traps[Sync.STRICT] / max(traps[Sync.RELAXED], 1)
    return Figure("relaxed", "a space's life, strict", ratio, "x the traps", how, 10, at_least=True)


def _times(quick: bool) -> Iterator[Figure]:
    rounds = 2 if quick else 300
    strict, relaxed = (_one_store_each(sync, quick) for sync in (Sync.STRICT, Sync.RELAXED))
    first, second = best(rounds // 10 or 2, strict, relaxed)
    how = f"{second * MICRO:,.0f} us and {first * MICRO:,.0f}: a store to each of 64 settled tables, each submitted"
    yield Figure("relaxed", "one store a submission", second / first, "x strict", how, 1.1)
    alone, among = best(rounds, _hot(1), _hot(64))
    how = f"{among * MICRO:,.0f} us and {alone * MICRO:,.0f}: rewritten in memory, and submitted"
    yield Figure("relaxed", "one hot table of 64", among / alone, "x one alone", how, 1.2)


def _one_store_each(sync: Sync, quick: bool) -> Callable[[], float]:
    """A store to another table before each submission. The tables that this unsyncs settle again meanwhile."""
    leaves = 64
    driver = Driver(sync, leaves)
    driver.settle()

    def round_of_stores() -> None:
        for leaf in range(leaves):
            driver.store(FIRST_LEAF + leaf, 7)
            driver.submit()

    for _ in range(1 if quick else 20):
        round_of_stores()
    return partial(cpu, round_of_stores)


def _hot(leaves: int) -> Callable[[], float]:
    """One table is rewritten before each submission, without traps by now; the others have settled."""
    driver = Driver(Sync.RELAXED, leaves)
    for _ in range(CALM + 4):
        driver.fill(0)
        driver.submit()

    def submitted() -> float:
        driver.fill(0)
        return cpu(driver.submit)

    return submitted
