"""What a space maps, as a sequence and as JSON text made in C."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from xengt_dm._core import ffi
from xengt_dm.ppgtt.read import Mapping, Runs

NUMBERS = st.integers(0, 2**64 - 1)
FIELDS = st.tuples(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 1), st.integers(0, 7))


def runs_of(fields: list[tuple[int, ...]]) -> Runs:
    parts = [fields[first : first + Runs.SLICE] for first in range(0, len(fields), Runs.SLICE)]
    return Runs([(ffi.new("xd_run[]", part), len(part)) for part in parts])


@given(st.lists(FIELDS, max_size=30))
def test_json_is_that_of_the_tuples(fields: list[tuple[int, ...]]) -> None:
    assert b"".join(runs_of(fields).json_pieces()).decode() == json.dumps(fields, separators=(",", ":"))


def test_many_runs_come_in_pieces() -> None:
    fields = [(2**64 - 1 - i, 4096 * i, i, i % 2, i % 8) for i in range(2 * Runs.SLICE + 3)]
    pieces = list(runs_of(fields).json_pieces())
    assert len(pieces) == 4
    assert json.loads(b"".join(pieces)) == [list(run) for run in fields]


def test_runs_are_a_sequence_of_mappings() -> None:
    runs = runs_of([(4096 * i, 4096, 8192, 1, 2) for i in range(5)])
    assert len(runs) == 5
    assert runs[-1] == Mapping(16384, 4096, 8192, 1, 2)
    assert runs[1:3] == list(runs)[1:3]
