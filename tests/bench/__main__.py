"""``python -m tests.bench``, from the project's root, with the project installed; or ``tests/run bench``."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import (
    adoption,
    blits,
    build,
    crowd,
    memory,
    metrics,
    neighbours,
    operator,
    relaxed,
    replaying,
    start,
    stores,
    structure,
    sync,
)
from tests.bench.measure import Figure, table

BENCHES: dict[str, Callable[[bool], Iterator[Figure]]] = {
    "build": build.run,
    "sync": sync.run,
    "relaxed": relaxed.run,
    "stores": stores.run,
    "replay": replaying.run,
    "memory": memory.run,
    "structure": structure.run,
    "metrics": metrics.run,
    "neighbours": neighbours.run,
    "adoption": adoption.run,
    "start": start.run,
    "crowd": crowd.run,
    "operator": operator.run,
    "blits": blits.run,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure and report; 0 whether or not targets are met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure how fast the project is.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all, if none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--quick", action="store_true", help="sizes too small to mean anything: does it still run?")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    figures = []
    for name, run in BENCHES.items():
        if options.names and name not in options.names:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures += run(options.quick)
    print(f"Python {platform.python_version()} on {_cpu()}")
    print(table([("bench", "what", "figure", "target", "", "made of"), *(figure.row() for figure in figures)]))
    if options.json:
        options.json.write_text(json.dumps([figure.as_json() for figure in figures], indent=1) + "\n")
    return 0


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
