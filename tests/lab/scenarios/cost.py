"""What a trap costs, and how many there are: instructions of the whole machine, beside a loop in C in the same boot.

QEMU counts instructions here (-icount), and a tick of the guest's clock is one of them, be it of the guest, of Xen or
of dom0. So the figures do not depend on the machine that QEMU runs on. No figure makes the scenario fail; a goal that
is missed is said. docs/performance.md has the figures, and what they mean.
"""

from typing import NamedTuple

from dom0.checks import say, sized
from dom0.cost_tables import Figures, Report
from dom0.models import Product, product, reference
from dom0.orders import Orders, ordered

GUESTS = ("cost",)
PROGRAMS = ("reference",)
CPUS = 1
ICOUNT = True

_ENTRIES = 512
_TABLES = 64
_IDLE_SECONDS = 20
#: Submissions after which tables that nobody stores to are protected again, and as many more.
_SETTLING = 32
#: What is measured of each access: the order, and how often.
ACCESSES = {
    "store": "8-byte store to a leaf table",
    "rep": "rep stosq, an entry",
    "read": "BAR0 read",
    "write": "BAR0 write",
    "same_entry": "directory store, the same entry",
    "other_entry": "directory store, another entry",
}
#: The columns of a table of both modes.
MODES = ("strict", "traps", "relaxed", "traps, relaxed", "times fewer")
_GOALS = {"store": 1.05, "rep": 1.05, "read": 1.15, "write": 1.15, "other_entry": 1.5}


class Cost(NamedTuple):
    """Of one thing that the guest does, with the share of all that it brings with it."""

    instructions: float
    traps: float


def accesses(orders: Orders, count: int) -> dict[str, float]:
    """Instructions of each access, by the device model that serves now."""
    return {what: orders.cost(what, count=count, tables=_TABLES) for what in ACCESSES}


class _Mode:
    """What one mode takes, in instructions and in traps."""

    def __init__(self, orders: Orders, mode: str) -> None:
        self._orders = orders
        self._adapts = mode == "relaxed"
        with product(orders, mode) as daemon:
            self._daemon = daemon
            self.start = daemon.instructions
            self.idle_memory = daemon.memory
            self.idle = daemon.idle(_IDLE_SECONDS)
            orders.do("announce", tables=_TABLES)
            self.accesses = {} if self._adapts else accesses(orders, sized(256, _ENTRIES))
            self.link = self._each("link", 2, 64)
            self.hot_at_first = self._rewrite(1, _SETTLING)
            self.hot = self._rewrite(1)
            self.rewrites = {tables: self._rewrite(tables) for tables in (8, _TABLES)}
            self.scatter = self._each("scatter", 1, _ENTRIES)
            self.fresh = self._each("fresh", 1, sized(4, 32))
            self.filled = self._each("filled", 1, sized(4, 32))
            self.life = self._each("life", 1, 1)
            orders.do("destroy")
            orders.do("announce", tables=1)
            self.alone = self._rewrite(1)
            orders.do("destroy")
            self.memory = daemon.memory

    def _rewrite(self, tables: int, submissions: int = 8) -> Cost:
        """Of a table, the mean of so many submissions; in a mode that does not adapt, of the first of them."""
        return measured(self._orders, self._daemon, "rewrite", _ENTRIES, tables, tables, submissions, self._adapts)

    def _each(self, what: str, of_each: int, count: int) -> Cost:
        """Of each of `count`, which are done several times if the mode adapts."""
        return measured(self._orders, self._daemon, what, count, _TABLES, count / of_each, 3, self._adapts)


def measured(
    orders: Orders, daemon: Product, what: str, count: int, tables: int, units: float, runs: int, adapts: bool
) -> Cost:
    """What each of `units` takes: the mean of all runs after one that does not count, or, if not `adapts`, of one run.

    A mean, and not a median, has what now and then is done for a while to come, such as protecting a table again.
    """
    if adapts:
        orders.do(what, count=count, tables=tables)
    else:
        runs = 1
    before = daemon.traps()
    ticks = orders.do(what, count=count, tables=tables, runs=runs)
    traps = daemon.traps() - before
    cost = Cost(sum(ticks) / runs / units, traps / runs / units)
    say(f"{what}, {count} of {tables} tables: {cost.instructions:,.0f} instructions, {cost.traps:,.2f} traps")
    return cost


def run() -> Figures:
    """The scenario, in dom0."""
    report = Report()
    with ordered() as orders:
        anchors = {"cpuid": orders.cost("cpuid", count=64)}
        count = sized(256, _ENTRIES)
        with reference(orders, "poll", _TABLES):
            base = accesses(orders, count)
        for how in ("read", "yield"):
            with reference(orders, how, _TABLES):
                anchors[how] = orders.cost("store", count=count)
        with product(orders, "strict") as daemon:
            cold = daemon.instructions
        strict = _Mode(orders, "strict")
        _per_access(report, base, strict, anchors)
        _per_process(report, cold, strict)
        relaxed = _Mode(orders, "relaxed")
        _per_mode(report, strict, relaxed)
    say(f"goals missed: {', '.join(report.missed) or 'none'}")
    return {**report.figures, "missed": len(report.missed)}


def _per_access(report: Report, base: dict[str, float], strict: _Mode, anchors: dict[str, float]) -> None:
    rows = [(ACCESSES[what], [base[what], cost, cost / base[what]]) for what, cost in strict.accesses.items()]
    report.table("instructions of an access", ["reference", "xengt-dm", "ratio"], rows)
    for what, limit in _GOALS.items():
        report.goal(f"{ACCESSES[what]} / reference", strict.accesses[what] / base[what], limit)
    rows = [
        (name, [anchors[how], anchors[how] / base["store"]])
        for how, name in (
            ("cpuid", "CPUID, an exit that stays in Xen"),
            ("read", "8-byte store, C with a blocking read"),
            ("yield", "8-byte store, C that yields: the floor"),
        )
    ]
    report.table("anchors", ["instructions", "ratio"], rows)


def _per_process(report: Report, cold: float, strict: _Mode) -> None:
    million, kib = 1e6, 1024 / 1e6
    rows = [
        ("first start of a boot, M instructions", [cold / million]),
        ("start, M instructions", [strict.start / million]),
        ("idle, M instructions a second", [strict.idle / million]),
        ("private memory, idle, MB", [strict.idle_memory["private"] * kib]),
        ("of that clean pages of files, MB", [strict.idle_memory["clean"] * kib]),
        ("private memory in the end, MB", [strict.memory["private"] * kib]),
    ]
    report.table("the process", ["figure"], rows)
    report.goal("start, M instructions", strict.start / million, 550)
    report.goal("private memory, idle, MB", strict.idle_memory["private"] * kib, 18)
    report.goal("idle, M instructions a second", strict.idle / million, 0.2)


def _per_mode(report: Report, strict: _Mode, relaxed: _Mode) -> None:
    rows = []

    def compare(name: str, one: Cost, other: Cost) -> float:
        rows.append((name, [*one, *other, one.instructions / other.instructions]))
        return one.instructions / other.instructions

    alone = compare("a table rewritten, alone", strict.alone, relaxed.alone)
    compare(f"one of {_TABLES} tables rewritten, at first", strict.hot_at_first, relaxed.hot_at_first)
    compare(f"one of {_TABLES} tables rewritten, later", strict.hot, relaxed.hot)
    factors = {
        tables: compare(f"{tables} tables rewritten, each", strict.rewrites[tables], relaxed.rewrites[tables])
        for tables in strict.rewrites
    }
    scatter = compare("a store and a submission", strict.scatter, relaxed.scatter)
    compare("a table linked and unlinked", strict.link, relaxed.link)
    compare("a fresh table", strict.fresh, relaxed.fresh)
    compare("a fresh table, filled before", strict.filled, relaxed.filled)
    compare("a life of a space", strict.life, relaxed.life)
    report.table("instructions and traps of both modes", MODES, rows)
    report.goal("a table rewritten and submitted, times fewer", alone, 300, at_least=True)
    report.goal(f"the same with {_TABLES} tables", factors[_TABLES], 700, at_least=True)
    report.goal("traps of a fresh table", relaxed.fresh.traps, 4)
    report.goal("a store and a submission, relaxed / strict", 1 / scatter, 1.1)
    for when, cost in (("at first", relaxed.hot_at_first), ("later", relaxed.hot)):
        report.goal(f"one hot of {_TABLES} / alone, {when}", cost.instructions / relaxed.alone.instructions, 1.2)
    report.goal("traps of a life, strict / relaxed", strict.life.traps / max(relaxed.life.traps, 1), 10, at_least=True)
