"""One input of the fuzzer: bytes become a trace and a quota, and its replay must say what the reference says."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from tests.fuzz.decode import decode
from tests.oracle import expected, save
from tests.support.replayed import differences
from xengt_dm.errors import DataError

MODES = ("strict", "relaxed")
#: More runs than this in one trace are left out: they take seconds and show what fewer show.
MOST_RUNS = 100_000
#: The second byte has the generation in its lowest bit, and which of these in the next three.
QUOTAS = (None, None, None, 20, 8, 4, 2, 1)
#: Inputs that fuzzing kept because each reached something new, a line each, in hexadecimal.
CORPUS = Path(__file__).with_name("corpus.txt")


def one_input(data: bytes) -> list[str]:
    """What is wrong with the replay of these bytes; if anything is, the trace is in ``crash.jsonl``."""
    trace = decode(data)
    want = expected(trace)
    if sum(len(space["mappings"] or ()) for dump in want["dumps"] for space in dump["spaces"]) > MOST_RUNS:
        return []
    quota = QUOTAS[data[1] >> 1 & 7] if len(data) > 1 else None
    found = []
    for mode in MODES:
        try:
            found += [f"{mode}: {one}" for one in differences(scratch_file(), trace, mode, quota, want)]
        except DataError as error:
            found.append(f"{mode}: the trace is refused: {error}")
    if found:
        save("crash.jsonl", trace)
    return found


@functools.cache
def scratch_file() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-")) / "trace.jsonl"


def corpus() -> list[bytes]:
    return [bytes.fromhex(line) for line in CORPUS.read_text().split()]
