"""What a trap costs with two processors: one is dom0's, one the guest's, so the daemon can look for the next request.

By work, not by time: instructions of both processors together, which QEMU executes in one thread and counts (-icount).
Xen's null scheduler keeps each vCPU on a processor of its own. The figures beside those of tests/lab/scenarios/cost.py.
"""

from dom0.checks import say, sized
from dom0.cost_tables import Figures, Report
from dom0.models import Product, product, reference
from dom0.orders import Orders, ordered

from scenarios.cost import ACCESSES, MODES, Cost, accesses, measured

GUESTS = ("cost",)
PROGRAMS = ("reference",)
CPUS = 2
DOM0_CPUS = 1
XEN_OPTIONS = "sched=null"
ICOUNT = True

_TABLES = 64
_REWRITTEN = (1, 8)


def run() -> Figures:
    """The scenario, in dom0."""
    report = Report()
    count = sized(128, 512)
    with ordered() as orders:
        with reference(orders, "poll", _TABLES):
            base = accesses(orders, count)
        with reference(orders, "spin", _TABLES):
            spinning = orders.cost("store", count=count)
        with product(orders, "strict") as daemon:
            orders.do("announce", tables=_TABLES)
            ours = accesses(orders, count)
            strict = _rewrites(orders, daemon, adapts=False)
            orders.do("destroy")
        with product(orders, "relaxed") as daemon:
            orders.do("announce", tables=_TABLES)
            relaxed = _rewrites(orders, daemon, adapts=True)
            orders.do("destroy")
    rows = [(name, [base[what], ours[what], ours[what] / base[what]]) for what, name in ACCESSES.items()]
    rows.append(("8-byte store, C that spins", [base["store"], spinning, spinning / base["store"]]))
    report.table("instructions of an access, two processors", ["reference", "xengt-dm", "ratio"], rows)
    rows = [
        (f"{tables} tables rewritten, each", [*one, *other, one.instructions / other.instructions])
        for tables, one, other in zip(_REWRITTEN, strict, relaxed, strict=True)
    ]
    report.table("the same of both modes", MODES, rows)
    report.goal("8-byte store / reference", ours["store"] / base["store"], 0.6)
    say(f"goals missed: {', '.join(report.missed) or 'none'}")
    return {**report.figures, "missed": len(report.missed)}


def _rewrites(orders: Orders, daemon: Product, adapts: bool) -> list[Cost]:
    """A table rewritten and submitted, and several of them."""
    return [measured(orders, daemon, "rewrite", 512, each, each, 8, adapts) for each in _REWRITTEN]
