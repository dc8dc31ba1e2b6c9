"""That the benchmarks run and report; never how long anything took."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.__main__ import BENCHES, main
from tests.bench.measure import Figure, line_through
from tests.bench.plot import ratios, svg


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


def test_the_picture_has_a_bar_for_each_xen(tmp_path: Path) -> None:
    lines = [
        {"scenario": "cost", "xen": "4.17", "figures": {"BAR0 read/ratio": 1.25, "BAR0 read/reference": 49_600}},
        {"scenario": "cost", "xen": "4.20", "figures": {"BAR0 read/ratio": 0.5}},
        {"scenario": "cost_two", "xen": "4.20", "figures": {"BAR0 read/ratio": 3}},
    ]
    files = [tmp_path / str(number) for number in range(2)]
    files[0].write_text(json.dumps(lines[0]) + "\n")
    files[1].write_text("\n".join(map(json.dumps, lines[1:])) + "\n")
    found = ratios(files)
    assert found == {"BAR0 read": {"4.17": 1.25, "4.20": 0.5}, "BAR0 read, two processors": {"4.20": 3}}
    picture = ElementTree.fromstring(svg(found))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text and " on " in text] == ["1.25 on 4.17", "0.50 on 4.20", "3.00 on 4.20"]
