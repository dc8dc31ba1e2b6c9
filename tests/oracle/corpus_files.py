"""tests/traces: the hand-made traces as files, and the table that says what each guards."""

from __future__ import annotations

import re
from pathlib import Path

from .corpus import CASES
from .machine import Trace, load, save

DIRECTORY = Path(__file__).resolve().parents[1] / "traces"
_ROW = re.compile(r"^\| `([a-z0-9-]+)` \| .+ \| .+ \|$", re.MULTILINE)


def corpus() -> dict[str, Trace]:
    """Every trace in the directory, by name: the hand-made ones, and those that a hunt brought in."""
    return {path.name.removesuffix(".jsonl"): load(path) for path in sorted(DIRECTORY.glob("*.jsonl"))}


def rows() -> list[str]:
    """The names in the table of README.md."""
    return _ROW.findall((DIRECTORY / "README.md").read_text())


def hand_made_rows() -> str:
    return "".join(f"| `{case.name}` | {case.guards} | {case.source} |\n" for case in CASES)


def write_corpus() -> None:
    """Write the hand-made traces, and their rows between the table's marks; other rows and files stay."""
    for case in CASES:
        save(DIRECTORY / f"{case.name}.jsonl", case.trace)
    readme = DIRECTORY / "README.md"
    head, _, rest = readme.read_text().partition("<!-- hand-made -->\n")
    _, _, tail = rest.partition("<!-- end -->")
    table = f"| trace | guards | source |\n|---|---|---|\n{hand_made_rows()}"
    readme.write_text(f"{head}<!-- hand-made -->\n{table}<!-- end -->{tail}")
