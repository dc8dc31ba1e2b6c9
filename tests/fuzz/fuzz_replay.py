"""Fuzzing the whole path under coverage: bytes become a trace, and its replay must say what the reference says.

    pip install atheris
    python -m tests.fuzz.fuzz_replay [-max_total_time=60] [CORPUS_DIRECTORY]

Takes libFuzzer's options. Before it gives up on an input it writes its trace to ``crash.jsonl``, which
``python -m tests.oracle check crash.jsonl`` shows to a person.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["xengt_dm"]):
    from xengt_dm.daemon import DEFAULT_MAX_TABLES
    from xengt_dm.observe.trace import read_trace
    from xengt_dm.ppgtt.engine import Sync
    from xengt_dm.replay import replay

from tests.fuzz.decode import decode
from tests.oracle import compare, expected, save
from tests.oracle.machine import Trace

#: More runs than this in one trace are left out: they take seconds and show what fewer show.
MOST_RUNS = 100_000


def one_input(data: bytes) -> None:
    trace = decode(data)
    want = expected(trace)
    if sum(len(space["mappings"] or ()) for dump in want["dumps"] for space in dump["spaces"]) > MOST_RUNS:
        return
    for sync in Sync:
        found = differences(trace, want, sync)
        if found:
            save("crash.jsonl", trace)
            raise AssertionError(f"{sync.value}: {found[:5]}")


def differences(trace: Trace, want: dict[str, Any], sync: Sync) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        save(Path(file.name), trace)
        header, events = read_trace(file.name)
    outcome = replay(header, events, sync=sync, max_tables=DEFAULT_MAX_TABLES)
    output: dict[str, Any] = {"dumps": outcome.dumps, "counters": outcome.counters}
    for dump in output["dumps"]:
        for space in dump["spaces"]:
            space["mappings"] = space["mappings"] and [list(run) for run in space["mappings"]]
    return compare(want, output, sync.value)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
