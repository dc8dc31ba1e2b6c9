"""What being watched costs: the time that the hot path keeps, and a scrape.

    python -m tests.bench.metrics

in a venv with the project installed (docs/development.md). Each figure is the least of several runs, because everything
else that the machine does only adds; where one thread does all, of its CPU time.
"""

from __future__ import annotations

import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from tests.support.served import FRAME, L1, announce, entry
from xengt_dm._core import ffi, lib
from xengt_dm.daemon import Settings, open_instance
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.observe import exporter
from xengt_dm.observe.stats_page import StatsPage
from xengt_dm.observe.stats_reader import read_host

RUNS = 7
ROUNDS = 100_000
STORES = 40_000


def least(work: Callable[[], None]) -> float:
    """Seconds of CPU time."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def slots(timed: bool) -> float:
    """Seconds to take and answer one request of one vCPU, called from Python as the daemon does."""
    page = ffi.new("xd_ioreq[]", 128)
    taken = ffi.new("xd_taken[]", 1)
    counters = ffi.new("xd_counters *")
    timing = ffi.addressof(counters, "timing") if timed else ffi.NULL
    take, answer, ready = lib.xd_slots_take, lib.xd_slot_answer, lib.XD_STATE_READY
    lib.xd_slot_post(page, 0, ffi.new("xd_ioreq *", {"type": lib.XD_IOREQ_COPY, "size": 8}))

    def work() -> None:
        for _ in range(ROUNDS):
            lib.xd_slot_set_state(page, 0, ready)
            take(page, 1, 0, taken, timing)
            answer(page, 0, 0, timing)

    return least(work) / ROUNDS


def clock() -> float:
    """Seconds to read the clock, without what any call from Python takes."""

    def calls(function: Callable[[], int]) -> Callable[[], None]:
        def work() -> None:
            for _ in range(ROUNDS):
                function()

        return work

    return (least(calls(lib.xd_now)) - least(calls(lib.xd_guard_install))) / ROUNDS


def stores() -> float:
    """Seconds for one store, from the vCPU's instruction to the next, on the embedded hypervisor."""
    with EmbeddedDomain(64, 1) as domain, open_instance(domain.port(), Settings()) as instance:
        vcpu = domain.vcpu(0)
        batch = [(L1 * FRAME + 8 * (i % 512), entry(i % 64), 0, 0, 8, lib.XD_OP_STORE, 0) for i in range(STORES)]
        operations = ffi.new("xd_emb_op[]", batch)

        async def main() -> float:
            async with trio.open_nursery() as nursery:
                await nursery.start(instance.serve)
                await trio.to_thread.run_sync(announce, vcpu)
                times = []
                for _ in range(RUNS):
                    start = time.perf_counter()
                    await trio.to_thread.run_sync(vcpu.run, operations, STORES)
                    times.append(time.perf_counter() - start)
                nursery.cancel_scope.cancel()
            return min(times)

        return trio.run(main) / STORES


def scrapes(instances: int) -> tuple[float, float, int]:
    """Seconds to read the pages, seconds for a whole scrape, and its bytes."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        pages = []
        for domid in range(1, instances + 1):
            (base / str(domid)).mkdir()
            pages.append(StatsPage(base / str(domid), domid))
        reading = least(lambda: [read_host(base) for _ in range(10)] and None) / 10
        whole = least(lambda: [exporter.text(base) for _ in range(10)] and None) / 10
        return reading, whole, len(exporter.text(base))


def main() -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}")
    plain, timed = slots(timed=False), slots(timed=True)
    print(
        f"take and answer: {plain * 1e9:.0f} ns, with times {timed * 1e9:.0f} ns: {(timed - plain) * 1e9:.0f} ns more"
    )
    print(f"reading the clock once: {clock() * 1e9:.0f} ns")
    store = stores()
    print(f"a whole store: {store * 1e6:.1f} us, so keeping its time is {(timed - plain) / store:.2%} of it")
    for instances in (0, 1, 20, 100):
        reading, whole, size = scrapes(instances)
        print(f"{instances} daemons: pages {reading * 1e3:.2f} ms, scrape {whole * 1e3:.2f} ms, {size / 1000:.1f} kB")
    print(f"most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
