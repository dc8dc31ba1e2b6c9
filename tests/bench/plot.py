"""``python -m tests.bench.plot FIGURES... > docs/cost.svg``: what an access costs on Xen, as a picture.

FIGURES are files that ``tests/lab/run cost --xen VERSION --json FILE`` has written. For each access and each Xen there
is a bar, in units of what the loop in C takes in the same boot.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

_SUFFIX: Final = "/ratio"
_WIDTH, _LABEL, _BAR, _GAP, _TEXT = 760, 250, 16, 14, 12
_COLOURS: Final = ("#4878a8", "#c0803c")
#: Twice what C takes is half of the picture, unless something takes more.
_LEAST_SCALE: Final = 2.0

#: By access: by Xen, the ratio.
Ratios = Mapping[str, Mapping[str, float]]


def ratios(files: Sequence[Path]) -> Ratios:
    """Reads the ratios of accesses. A later line of the same scenario and Xen counts."""
    found: dict[str, dict[str, float]] = {}
    for line in (line for file in files for line in file.read_text().splitlines()):
        run = json.loads(line)
        for name, value in run["figures"].items():
            if name.endswith(_SUFFIX):
                label = name.removesuffix(_SUFFIX) + (", two processors" if run["scenario"] == "cost_two" else "")
                found.setdefault(label, {})[run["xen"]] = value
    return found


def svg(found: Ratios) -> str:
    """The picture."""
    xens = sorted({xen for by_xen in found.values() for xen in by_xen})
    scale = (_WIDTH - _LABEL - 60) / max(_LEAST_SCALE, *(value for each in found.values() for value in each.values()))
    height = len(found) * (len(xens) * _BAR + _GAP) + 40
    one = _LABEL + scale
    font = f'font-family="sans-serif" font-size="{_TEXT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" {font}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        *_bars(found, xens, scale),
        f'<path d="M{one:.1f} 8V{height - 24}" stroke="black" stroke-dasharray="3 3"/>',
        f'<text x="{one:.1f}" y="{height - 8}" text-anchor="middle">1 = the loop in C</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _bars(found: Ratios, xens: Sequence[str], scale: float) -> Iterator[str]:
    y = 10
    for name, by_xen in found.items():
        middle = y + len(xens) * _BAR / 2 + _TEXT / 3
        yield f'<text x="{_LABEL - 10}" y="{middle:.1f}" text-anchor="end">{name}</text>'
        for xen, colour in zip(xens, _COLOURS, strict=False):
            if xen in by_xen:
                value = by_xen[xen]
                yield f'<rect x="{_LABEL}" y="{y}" width="{value * scale:.1f}" height="{_BAR - 2}" fill="{colour}"/>'
                text = f"{value:.2f} on {xen}"
                yield f'<text x="{_LABEL + value * scale + 4:.1f}" y="{y + _TEXT - 1}">{text}</text>'
            y += _BAR
        y += _GAP


if __name__ == "__main__":
    sys.stdout.write(svg(ratios([Path(word) for word in sys.argv[1:]])))
