"""What a shadow table costs: anonymous memory of the process, which is all but the guest's and files'.

Once the engine alone, and once a whole device model, which remembers in Python what is protected. Each in a process of
its own, because memory that Python was done with before would hide what it takes now.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Figure
from tests.bench.world import Guest
from tests.support.tables import ENTRIES, FRAME, pte
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import open_instance
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import Settings
from xengt_dm.steps import complete

TARGET = 4400.0
_ROOT = Path(__file__).resolve().parents[2]


def run(quick: bool) -> Iterator[Figure]:
    count = 400 if quick else 20_000
    for what in _GROWTH:
        words = [sys.executable, "-m", "tests.bench.memory", what, str(count)]
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(_ROOT)]))
        done = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, check=True)
        grown = float(done.stdout)
        how = f"{grown / 1e6:.2f} MB for a space of {count:,} leaf tables"
        yield Figure("memory", f"{what}, a table", grown / count, "B", how, TARGET)


def _of_an_engine(leaves: int) -> float:
    """Bytes that came with an engine and its shadow of a space of this many leaf tables."""
    guest = Guest(leaves)
    before = _anonymous()
    engine = guest.engine()
    guest.create(engine)
    grown = _anonymous() - before
    engine.close()
    return grown


def _of_a_device_model(leaves: int) -> float:
    """Bytes that came with a space of this many leaf tables to a device model on the embedded hypervisor."""
    directories = -(-leaves // ENTRIES)
    first_leaf = 3 + directories

    def page(first: int, count: int) -> bytes:
        """Entries that name frames from ``first`` on."""
        return b"".join(pte(first + i).to_bytes(8, "little") for i in range(count)).ljust(FRAME, b"\0")

    with (
        EmbeddedDomain(first_leaf + leaves, 1) as domain,
        open_instance(domain.port(), Settings(max_tables=first_leaf + leaves)) as instance,
    ):
        domain.write(1 * FRAME, page(2, 1) + page(3, directories))
        for i in range(directories):
            linked = min(ENTRIES, leaves - i * ENTRIES)
            domain.write((3 + i) * FRAME, page(first_leaf + i * ENTRIES, linked))
        domain.write(first_leaf * FRAME, page(0, min(ENTRIES, leaves)) * leaves)
        before = _anonymous()
        complete(instance.engine.create_space(Mode.L4, (1 * FRAME,)))
        grown = _anonymous() - before
        assert instance.engine.counters.tables == leaves + first_leaf - 1
    return grown


def _anonymous() -> float:
    gc.collect()
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Anonymous":
            return 1024.0 * int(value.split()[0])
    raise OSError("/proc/self/smaps_rollup says nothing of anonymous memory")


_GROWTH = {"engine": _of_an_engine, "device model": _of_a_device_model}

if __name__ == "__main__":
    print(_GROWTH[sys.argv[1]](int(sys.argv[2])))
