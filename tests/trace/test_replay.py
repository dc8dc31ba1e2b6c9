"""Traces through the whole path, in both modes, against the reference in tests/oracle."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.decode import decode
from tests.oracle import expected
from tests.oracle.corpus_files import corpus
from tests.oracle.generate import KINDS, generate
from tests.support.replayed import differences
from xengt_dm.errors import DataError
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.sim.replay import replay
from xengt_dm.trace.read import read_trace

CORPUS = corpus()
MODES = ("strict", "relaxed")


@functools.cache
def of_corpus(name: str) -> dict[str, Any]:
    """What the reference says of a trace in the corpus: the same for each mode and each quota."""
    return expected(CORPUS[name])


@functools.cache
def of_generated(kind: str, seed: int) -> dict[str, Any]:
    """What the reference says of a generated trace."""
    return expected(generate(kind, seed))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name in CORPUS if not name.startswith("runs-")])
def test_corpus(tmp_path: Path, name: str, mode: str) -> None:
    assert differences(tmp_path / "a.jsonl", CORPUS[name], mode, want=of_corpus(name)) == []


@pytest.mark.python_heavy
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CORPUS if name.startswith("runs-")])
def test_corpus_of_millions_of_runs(tmp_path: Path, name: str) -> None:
    assert differences(tmp_path / "a.jsonl", CORPUS[name], "strict") == []


@pytest.mark.parametrize("max_tables", [1, 4, 20])
def test_corpus_with_a_quota(tmp_path: Path, max_tables: int) -> None:
    for name, trace in CORPUS.items():
        if not name.startswith("runs-"):
            for mode in MODES:
                found = differences(tmp_path / "a.jsonl", trace, mode, max_tables, of_corpus(name))
                assert found == [], (name, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_generated(tmp_path: Path, kind: str, mode: str) -> None:
    for seed in range(1000, 1006):
        trace = generate(kind, seed)
        found = differences(tmp_path / "a.jsonl", trace, mode, want=of_generated(kind, seed))
        assert found == [], f"{kind} {seed} {mode}"


@pytest.mark.parametrize("mode", MODES)
def test_generated_with_a_quota(tmp_path: Path, mode: str) -> None:
    rng = random.Random(7)
    for seed in range(1000, 1012):
        kind, quota = rng.choice(["hostile", "table_reuse"]), rng.choice([1, 2, 3, 5, 8, 13, 20])
        found = differences(tmp_path / "a.jsonl", generate(kind, seed), mode, quota, of_generated(kind, seed))
        assert found == [], f"{kind} {seed} {mode} {quota}"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(min_size=40, max_size=1600), mode=st.sampled_from(MODES))
def test_decoded_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, mode: str) -> None:
    assert differences(tmp_path_factory.getbasetemp() / "bytes.jsonl", decode(data), mode) == []


def test_a_guest_too_large_to_be_played(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    path.write_text('{"trace": 1, "generation": 8, "ram_frames": 64}\n{"op": "add", "gfn": 1073741824, "count": 1}\n')
    header, events = read_trace(path)
    with pytest.raises(DataError, match="frames up to 1073741824"):
        replay(header, events, sync=Sync.STRICT, max_tables=1)
