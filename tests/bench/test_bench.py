"""That the benchmarks run and report; never how long anything took."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.bench.__main__ import BENCHES, main
from tests.bench.measure import Figure, line_through


@pytest.mark.parametrize("name", BENCHES)
def test_it_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    assert main([name, "--quick", "--json", str(out)]) == 0
    figures, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert figures
    for figure in figures:
        assert figure["bench"] == name
        assert math.isfinite(figure["value"])
        assert figure["what"] in printed


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["biuld"])
    assert "no such benchmark: biuld" in capsys.readouterr().err


def test_targets() -> None:
    assert Figure("b", "w", 3.9, "x", "", 4.0).met
    assert Figure("b", "w", 4.1, "x", "", 4.0).met is False
    assert Figure("b", "w", 4.1, "/s", "", 4.0, at_least=True).met
    assert Figure("b", "w", 3.9, "/s", "", 4.0, at_least=True).met is False
    assert Figure("b", "w", 3.9, "x", "").met is None


def test_a_line_is_fixed_and_slope() -> None:
    fixed, slope = line_through([(1.0, 12.0), (100.0, 210.0)])
    assert (fixed, slope) == pytest.approx((10.0, 2.0))
