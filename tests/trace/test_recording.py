"""What is recorded of a guest must come to the same dumps when it is played: for every trace there is, for random ones,
for the demonstration's guest, and from the middle of a guest's life.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.decode import decode
from tests.oracle import Trace, save
from tests.oracle.corpus_files import corpus
from tests.oracle.generate import KINDS, generate
from tests.support.recording import dumps_of, play_recorded

CORPUS = {name: trace for name, trace in corpus().items() if not name.startswith("runs-")}
MODES = ("strict", "relaxed")


def differences(path: Path, trace: Trace, mode: str, start: int = 0, max_tables: int = 4096) -> list[str]:
    """Play a trace and record it from its ``start``-th event on; where the recording, played in each mode, dumps
    otherwise.
    """
    save(path, trace)
    recording = path.with_suffix(".recorded.jsonl")
    meant = play_recorded(path, recording, mode, start, max_tables)
    found = []
    for other in MODES:
        played = dumps_of(recording, other)
        found += [
            f"{other}: dump {index} is {show(one)}, and was {show(two)}"
            for index, (one, two) in enumerate(zip(played, meant, strict=True))
            if one != two
        ]
    return found


def show(dump: Any) -> str:
    return json.dumps(dump)[:400]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CORPUS)
def test_corpus(tmp_path: Path, name: str, mode: str) -> None:
    assert differences(tmp_path / "a.jsonl", CORPUS[name], mode) == []


@pytest.mark.parametrize("name", CORPUS)
def test_corpus_from_its_middle(tmp_path: Path, name: str) -> None:
    trace = CORPUS[name]
    assert differences(tmp_path / "a.jsonl", trace, "relaxed", len(trace) // 2) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_generated(tmp_path: Path, kind: str, mode: str) -> None:
    for seed in range(2000, 2002):
        trace = generate(kind, seed)
        for start in (0, len(trace) // 3):
            assert differences(tmp_path / "a.jsonl", trace, mode, start) == [], f"{kind} {seed} {mode} {start}"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(min_size=40, max_size=1600), mode=st.sampled_from(MODES), start=st.integers(0, 40))
def test_decoded_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, mode: str, start: int) -> None:
    assert differences(tmp_path_factory.getbasetemp() / "recorded.jsonl", decode(data), mode, start) == []
