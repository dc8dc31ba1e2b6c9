"""Generated, decoded and hand-made traces are valid, the same each time, and about something."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.decode import decode
from tests.oracle import Trace, expected, load, save
from tests.oracle.corpus import CASES
from tests.oracle.corpus_files import DIRECTORY, corpus, hand_made_rows, rows
from tests.oracle.generate import KINDS, generate
from tests.oracle.hunt import minimised
from xengt_dm.trace.read import read_trace


def is_valid(path: Path, trace: Trace) -> bool:
    save(path, trace)
    header, events = read_trace(path)
    again = [json.loads(line.line()) for line in (header, *events)]
    return again == [{key: value for key, value in line.items() if (key, value) != ("vcpu", 0)} for line in trace]


@pytest.mark.parametrize("kind", KINDS)
def test_generated_traces_are_valid_and_the_same_each_time(tmp_path: Path, kind: str) -> None:
    for seed in range(8):
        trace = generate(kind, seed)
        assert trace == generate(kind, seed)
        assert trace != generate(kind, seed + 1)
        assert is_valid(tmp_path / "a.jsonl.gz", trace)
        assert load(tmp_path / "a.jsonl.gz") == trace


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_generated_traces_show_something(kind: str) -> None:
    outcomes = [expected(generate(kind, seed)) for seed in range(4, 12)]
    spaces = [space for outcome in outcomes for dump in outcome["dumps"] for space in dump["spaces"]]
    assert sum(bool(space["mappings"]) for space in spaces) > len(spaces) / 3
    assert sum(outcome["counters"]["strict"]["store_traps"][0] for outcome in outcomes) > 8 * 50
    saved = [o["counters"]["relaxed"]["store_traps"][0] < o["counters"]["strict"]["store_traps"][0] for o in outcomes]
    assert any(saved)


def test_a_larger_scale_is_larger() -> None:
    assert len(generate("table_reuse", 1, scale=8)) > 4 * len(generate("table_reuse", 1))


@given(st.binary(max_size=1200))
def test_every_byte_string_is_a_trace(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    trace = decode(data)
    assert trace == decode(data)
    assert trace[-1] == {"op": "dump", "id": "last"}
    assert is_valid(tmp_path_factory.getbasetemp() / "decoded.jsonl", trace)


@pytest.mark.slow
def test_bytes_reach_everything() -> None:
    """A few thousand random events have every op, L3 and L4 spaces that map something, and stores that trap."""
    rng = random.Random(1)
    traces = [decode(rng.randbytes(4 + 8 * 200)) for _ in range(20)]
    ops = {event["op"] for trace in traces for event in trace[1:]}
    assert ops == {"store", "fill", "mmio", "submit", "gpu_store", "remove", "add", "dump"}
    outcomes = [expected(trace) for trace in traces]
    spaces = [space for outcome in outcomes for dump in outcome["dumps"] for space in dump["spaces"]]
    assert {space["mode"] for space in spaces if space["mappings"]} == {"l3", "l4"}
    assert sum(outcome["counters"]["strict"]["store_traps"][1] for outcome in outcomes) > 1000
    assert len(decode(rng.randbytes(100_000))) == 402


def test_corpus_files_are_as_written_down() -> None:
    """If this fails after a change of a corpus_*.py: ``python -m tests.oracle corpus``."""
    files = corpus()
    for case in CASES:
        assert files[case.name] == case.trace, case.name
    assert sorted(rows()) == sorted(files)
    assert hand_made_rows() in (DIRECTORY / "README.md").read_text()


def test_corpus_traces_are_valid_and_small(tmp_path: Path) -> None:
    for name, trace in corpus().items():
        assert is_valid(tmp_path / "a.jsonl", trace), name
        assert len(trace) <= 300
        ids = [event["id"] for event in trace[1:] if event["op"] == "dump"]
        assert len(ids) == len(set(ids)) > 0, name


def test_minimising_keeps_what_fails() -> None:
    trace = generate("linux_like", 3)

    def fails(attempt: Trace) -> bool:
        return sum(event["op"] == "store" and event["size"] == 8 for event in attempt[1:]) > 1

    assert fails(trace)
    small = minimised(trace, fails)
    assert len(small) == 3
    assert small[0] == trace[0]
    assert small[1]["value"] == small[2]["value"] == 0
