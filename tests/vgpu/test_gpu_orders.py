"""Lists in any order, against what a driver accepts: one promotion for each list, one end for each element."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.gpu_bench import GpuBench
from tests.support.tables import FRAME
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BCS0, RCS0

ENGINES = (RCS0, BCS0)
CONTEXTS = 3
_INCREMENT = 0x05


class Work:
    """Contexts of an engine, each with a counter that its commands increment, and a gate that holds them up.

    While it is closed, a command waits for the dword of the gate to become 1.
    """

    def __init__(self, bench: GpuBench, engine: int) -> None:
        self.bench = bench
        self.engine = engine
        self.contexts = [bench.driver.context(engine) for _ in range(CONTEXTS)]
        gfn = bench.take()
        self.page = gfn * FRAME
        self.address = bench.driver.bind([gfn])
        self.expected = [0] * CONTEXTS

    def emit(self, which: int, *, waits: bool) -> None:
        """Add a command to a context, behind a gate if it ``waits``."""
        context = self.contexts[which]
        if waits:
            context.emit(mi.semaphore_wait(self.address + 512, 1, 4, ggtt=True))
        increment = [
            0x2F << 23 | mi.GGTT | _INCREMENT << 8 | 1 << 18 | 9,
            *mi.split(self.address + 8 * which),
            *[0] * 8,
        ]
        context.emit(increment)
        self.expected[which] += 1

    def gate(self, opened: bool) -> None:
        self.bench.store(self.page + 512, 4, opened)

    def submit(self, chosen: list[int]) -> None:
        """Submit these contexts, if a driver may submit anything now."""
        lists = self.bench.driver.lists[self.engine]
        if not lists.pending:
            self.bench.driver.submit(*(self.contexts[which] for which in chosen))

    def check(self) -> None:
        """All is done, each element once and in order."""
        lists = self.bench.driver.lists[self.engine]
        assert lists.idle
        assert [self.bench.dword(self.page + 8 * which) for which in range(CONTEXTS)] == self.expected


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("emit"), st.sampled_from((0, 1)), st.integers(0, CONTEXTS - 1), st.booleans()),
        st.tuples(
            st.just("submit"),
            st.sampled_from((0, 1)),
            st.lists(st.integers(0, CONTEXTS - 1), min_size=1, max_size=2, unique=True),
        ),
        st.tuples(st.just("gate"), st.sampled_from((0, 1)), st.booleans()),
        st.tuples(st.just("slice")),
        st.tuples(st.just("time")),
        st.tuples(st.just("interrupt")),
        st.tuples(st.just("kill")),
    ),
    min_size=4,
    max_size=40,
)


@examples(60)
@given(STEPS)
def test_a_driver_accepts_what_becomes_of_its_lists(steps: list[tuple[object, ...]]) -> None:
    bench = GpuBench()
    works = [Work(bench, engine) for engine in ENGINES]
    for name, *arguments in steps:
        if name == "slice":
            bench.engines.run()
        elif name == "time":
            bench.pass_time()
        elif name == "interrupt":
            bench.driver.interrupt()
        elif name == "kill":
            bench.attach()
        else:
            work = works[arguments[0]]  # type: ignore[call-overload]
            if name == "emit":
                work.emit(arguments[1], waits=arguments[2])
            elif name == "gate":
                work.gate(arguments[1])
            else:
                work.submit(arguments[1])
    for work in works:
        work.gate(True)
    for work in works:
        finish(bench, work)
        work.check()


def finish(bench: GpuBench, work: Work) -> None:
    """Have everything come to its end that was submitted, and submit what was not."""
    lists = bench.driver.lists[work.engine]
    bench.settle(200)
    for which in range(CONTEXTS):
        bench.driver.interrupt()
        assert lists.idle
        work.submit([which])
        bench.settle(200)
    bench.driver.interrupt()
