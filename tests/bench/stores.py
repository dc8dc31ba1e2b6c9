"""One strict store to a leaf table after the other, from the vCPU that stores to the vCPU that goes on, against the
least that a device model in C can do for the same vCPU.

Ours is the whole path: ioreq slot, event channel, trio, bus, engine, shadow, answer. The reference polls the slot,
writes to memory and answers; it shadows nothing and never sleeps. Two threads hand over to each other for each store,
so on a busy machine both wait for the CPU; the best of many short runs is what it takes when they need not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import trio

from tests.bench import reference
from tests.bench.measure import MICRO, Figure, best, wall
from tests.support.device_model import DeviceModel
from tests.support.tables import FRAME, pte
from xengt_dm._embedded import ffi, lib
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import Settings
from xengt_dm.steps import complete
from xengt_dm.units import CData

RAM_FRAMES = 1024
ROOT, LEAF = 1, 4


def run(quick: bool) -> Iterator[Figure]:
    stores = 100 if quick else 4000
    ops = _stores(stores)
    with ExitStack() as stack:
        ours_domain = stack.enter_context(EmbeddedDomain(RAM_FRAMES, 1))
        instance = stack.enter_context(open_instance(ours_domain.port(), Settings()))
        theirs_domain = stack.enter_context(EmbeddedDomain(RAM_FRAMES, 1))
        model = DeviceModel(theirs_domain)
        stack.callback(model.close)
        model.protect(LEAF)
        library = reference.load()
        _make_tables(ours_domain, instance)

        def ours() -> float:
            return trio.run(_serve, ours_domain, instance, ops, stores)

        def theirs() -> float:
            return wall(lambda: _serve_in_c(library, model, ops, stores))

        rounds = 2 if quick else 60
        seconds, least = best(rounds, ours, theirs)
        trapped = int(instance.engine.counters.store_traps)
        assert trapped == rounds * stores, f"{trapped} stores trapped of {rounds * stores}"
    how = f"{seconds / stores * MICRO:.2f} us a store, the C loop {least / stores * MICRO:.2f}"
    yield Figure("stores", "strict, one vCPU", seconds / least, "x C loop", how, target=2.0)


def _stores(count: int) -> CData:
    """Stores to the leaf table, each of which changes an entry."""
    return ffi.new(
        "xd_emb_op[]",
        [
            {
                "kind": lib.XD_OP_STORE,
                "gpa": LEAF * FRAME + i % 512 * 8,
                "size": 8,
                "value": pte(i * 7 % RAM_FRAMES),
            }
            for i in range(count)
        ],
    )


def _make_tables(domain: EmbeddedDomain, instance: Instance) -> None:
    for gfn in range(ROOT, LEAF):
        domain.write(gfn * FRAME, pte(gfn + 1).to_bytes(8, "little"))
    complete(instance.engine.create_space(Mode.L4, (ROOT * FRAME,)))


async def _serve(domain: EmbeddedDomain, instance: Instance, ops: CData, count: int) -> float:
    async with trio.open_nursery() as nursery:
        await nursery.start(instance.loop.serve)
        start = time.perf_counter()
        await trio.to_thread.run_sync(domain.vcpu(0).run, ops, count)
        seconds = time.perf_counter() - start
        nursery.cancel_scope.cancel()
    return seconds


def _serve_in_c(library: object, model: DeviceModel, ops: CData, count: int) -> None:
    vcpu = threading.Thread(target=model.domain.vcpu(0).run, args=(ops, count))
    vcpu.start()
    to = reference.FFI.cast
    library.serve_stores(  # type: ignore[attr-defined]
        to("void *", _address(model.page)),
        to("char *", model.base),
        count,
        to("int (*)(void *, int)", _address(ffi.addressof(lib, "xd_emb_events_notify"))),
        to("void *", _address(model.port.events.handle)),
        model.channels[0],
    )
    vcpu.join()


def _address(pointer: CData) -> int:
    return int(ffi.cast("uintptr_t", pointer))
