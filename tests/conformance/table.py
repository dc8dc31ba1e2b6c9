"""The table of cases, read from ``cases/*.toml``; README.md has the format."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .language import BadCaseError, Step, parse

FOLDER = Path(__file__).resolve().parent / "cases"
#: What a case holds for, unless it says otherwise: the release lines that behave alike.
TODAY = ("4.12", "4.17", "4.20")
_COMMON = {"name", "source", "flavours", "embedded_only", "fresh", "paging"}
_KEYS = {
    "case": _COMMON | {"steps"},
    "group": _COMMON | {"before", "lines"},
    "matrix": _COMMON | {"before", "columns", "rows"},
}


@dataclass(frozen=True)
class Case:
    """Steps that begin in a domain without servers, with frames p, q, r and s of plain RAM, zero."""

    name: str
    source: str
    steps: tuple[Step, ...]
    flavours: tuple[str, ...]
    #: Why real Xen cannot show it in the lab; empty if it can.
    embedded_only: str
    #: It leaves a domain that is of no further use.
    fresh: bool
    #: How the domain's addresses are translated: ``hap`` or ``shadow``.
    paging: str


def _case(name: str, entry: dict[str, Any], steps: list[str], embedded_only: str = "") -> Case:
    return Case(
        name,
        entry["source"],
        tuple(parse(step) for step in steps),
        tuple(entry.get("flavours", TODAY)),
        embedded_only or entry.get("embedded_only", ""),
        entry.get("fresh", False),
        entry.get("paging", "hap"),
    )


def _group(entry: dict[str, Any]) -> Iterator[Case]:
    """Each line is a case of its own, with the same steps before it."""
    for count, line in enumerate(entry["lines"], 1):
        steps = [step.strip() for step in line.split("|")]
        first = steps[0].partition("->")[0].strip()
        yield _case(f"{entry['name']} {count}: {first}", entry, [*entry.get("before", []), *steps])


def _matrix(entry: dict[str, Any]) -> Iterator[Case]:
    """From the state that names the row to the type that names the column."""
    columns = entry["columns"]
    for state, row in entry["rows"].items():
        results = row["results"].split()
        if len(results) != len(columns):
            raise BadCaseError(f"{entry['name']}, {state}: {len(results)} results for {len(columns)} columns")
        for column, result in zip(columns, results, strict=True):
            prepare = [] if state == "as it is" else [f"p state {state}"]
            after = [f"p is {column if result == 'ok' else row['is']}"]
            steps = [*entry.get("before", []), *prepare, f"p type {column} -> {result}", *after]
            yield _case(f"{entry['name']}: {state} to {column}", entry, steps, row.get("embedded_only", ""))


_EXPAND = {"group": _group, "matrix": _matrix}


def load(folder: Path = FOLDER) -> list[Case]:
    """All cases. Raises BadCaseError with the file and the entry."""
    cases = []
    for path in sorted(folder.glob("*.toml")):
        data = tomllib.loads(path.read_text())
        for kind, entries in data.items():
            for entry in entries:
                try:
                    unknown = set(entry) - _KEYS[kind]
                    if unknown:
                        raise BadCaseError(f"unknown keys: {', '.join(sorted(unknown))}")
                    if kind == "case":
                        cases.append(_case(entry["name"], entry, entry["steps"]))
                    else:
                        cases.extend(_EXPAND[kind](entry))
                except (BadCaseError, KeyError) as error:
                    raise BadCaseError(f"{path.name}, {kind} {entry.get('name')!r}: {error}") from error
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadCaseError(f"names that are there twice: {', '.join(sorted(twice))}")
    return cases


def flipped(cases: list[Case]) -> Case:
    """A case that says the contrary of what is so: a refusal succeeds. A side on which it holds tests nothing."""
    refused = {"hap": "EBUSY", "shadow": "EOPNOTSUPP"}
    case = next(case for case in cases if case.steps[-1].results == (refused[case.paging],))
    last = case.steps[-1]
    return replace(case, steps=(*case.steps[:-1], parse(last.text.replace(refused[case.paging], "ok"))))


def for_flavour(cases: list[Case], flavour: str, lab: bool = False) -> list[Case]:
    """The cases that hold for a flavour; ``lab``: only those that real Xen can show."""
    return [case for case in cases if flavour in case.flavours and not (lab and case.embedded_only)]
