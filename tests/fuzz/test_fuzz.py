"""The fuzz target without its fuzzer: the corpus, and changes of it that a seed decides. By hand: tests/fuzz."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.one_input import QUOTAS, corpus, one_input

CORPUS = corpus()
SEED = 20
CHANGED = 25


@pytest.fixture(autouse=True)
def _crash_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure leaves crash.jsonl where the test runs."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_the_corpus(number: int) -> None:
    assert one_input(CORPUS[number]) == []


def changed(rng: random.Random) -> bytes:
    """As fuzzers do: bytes replaced, events left out, doubled or taken from another input; and another quota."""
    data = bytearray(rng.choice(CORPUS))
    other = rng.choice(CORPUS)
    for _ in range(rng.randint(1, 12)):
        at = 4 + 8 * rng.randrange(max(1, len(data) // 8))
        match rng.randrange(4):
            case 0:
                data[rng.randrange(len(data))] = rng.getrandbits(8)
            case 1:
                del data[at : at + 8]
            case 2:
                data[at:at] = data[at : at + 8 * rng.randint(1, 4)]
            case _:
                start = 4 + 8 * rng.randrange(max(1, len(other) // 8))
                data[at:at] = other[start : start + 8 * rng.randint(1, 6)]
    data[1] = data[1] & 1 | rng.randrange(len(QUOTAS)) << 1
    return bytes(data[:1200])


@pytest.mark.parametrize("number", range(CHANGED))
def test_changes_of_the_corpus(number: int) -> None:
    assert one_input(changed(random.Random(f"{SEED} {number}"))) == []
