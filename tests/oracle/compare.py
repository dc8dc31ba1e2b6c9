"""Saying in words how what replay said differs from what it should have said."""

from __future__ import annotations

import itertools
from typing import Any

#: Differences told for one space; more of them say nothing new.
SHOWN = 5


def compare(
    expected: dict[str, Any], actual: dict[str, Any], mode: str = "strict", max_tables: int | None = None
) -> list[str]:
    """All differences, empty if there are none.

    ``mode`` is the mode that ``actual`` was made in. With ``max_tables``, a space of more tables than that may map less
    than it should, which also costs stores by the GPU, and traps are not compared; but what it maps must be right.
    """
    found: list[str] = []
    wanted, given = expected["dumps"], actual.get("dumps")
    if not isinstance(given, list):
        return ["there is no list of dumps"]
    if len(wanted) != len(given):
        found.append(f"{len(wanted)} dumps expected, {len(given)} given")
    for number, (want, give) in enumerate(zip(wanted, given, strict=False)):
        where = f"dump {number} ({want['id']!r})"
        if give.get("id") != want["id"]:
            found.append(f"{where}: its id is {give.get('id')!r}")
        tables = expected["tables"][number] if max_tables is not None else []
        loose = [count > (max_tables or 0) for count in tables]
        found += [f"{where}: {difference}" for difference in _spaces(want["spaces"], give.get("spaces"), loose)]
    bounds = dict(expected["counters"][mode])
    if max_tables is not None:
        kept = ("mmio_traps", "ignored_notifications", "audit_mismatches", "audit_overdue")
        bounds = {name: bounds[name] for name in kept}
    return found + _counters(bounds, actual.get("counters"))


def _spaces(wanted: list[dict[str, Any]], given: Any, loose: list[bool]) -> list[str]:
    if not isinstance(given, list):
        return ["there is no list of spaces"]
    want_names = [_name(space) for space in wanted]
    give_names = [_name(space) for space in given]
    if want_names != give_names:
        missing = [name for name in want_names if name not in give_names]
        extra = [name for name in give_names if name not in want_names]
        if not missing and not extra:
            return [f"spaces are in the order {give_names}, not {want_names}"]
        return [f"space {name} is missing" for name in missing] + [f"space {name} is not live" for name in extra]
    found = []
    for number, (want, give) in enumerate(zip(wanted, given, strict=True)):
        name = want_names[number]
        differences = _mappings(want, give, bool(loose and loose[number]))
        found += [f"space {name}: {difference}" for difference in differences[:SHOWN]]
        if len(differences) > SHOWN:
            found.append(f"space {name}: and {len(differences) - SHOWN} more")
    return found


def _name(space: Any) -> str:
    root = space["root"]
    return f"{space['mode']} " + (f"{root:#x}" if isinstance(root, int) else "/".join(f"{one:#x}" for one in root))


def _mappings(want: dict[str, Any], give: dict[str, Any], loose: bool) -> list[str]:
    wanted, given = want["mappings"], give.get("mappings")
    truncated = give.get("truncated", False)
    if (given is None) != (truncated is True):
        return [f"mappings are {_kind(given)} with truncated {truncated!r}"]
    if wanted is None or given is None:
        if wanted is given or loose:
            return []
        return [f"mappings are {_kind(given)}, expected {_kind(wanted)}"]
    if wanted == given:
        return []
    broken = [(before, run) for before, run in itertools.pairwise(given) if _unjoined(before, run)]
    if broken:
        return [f"the run {_run(run)} comes after {_run(before)}" for before, run in broken]
    if loose:
        return [f"{_run(run)} is mapped, but should not be" for run in _minus(given, wanted)]
    lost = [(run, "should be mapped, but is not") for run in _minus(wanted, given)]
    extra = [(run, "is mapped, but should not be") for run in _minus(given, wanted)]
    return [f"{_run(run)} {what}" for run, what in sorted(lost + extra)]


def _kind(mappings: list[list[int]] | None) -> str:
    return "null" if mappings is None else f"{len(mappings)} runs"


def _run(run: list[int]) -> str:
    va, length, gpa, writable, cache = run
    return f"[{va:#x}+{length:#x} -> {gpa:#x} {'rw' if writable else 'ro'} cache {cache}]"


def _unjoined(before: list[int], run: list[int]) -> bool:
    """Out of order, overlapping, or two runs that should be one."""
    end = before[0] + before[1]
    return run[0] < end or (run[0] == end and before[2] + before[1] == run[2] and before[3:] == run[3:])


def _minus(runs: list[list[int]], others: list[list[int]]) -> list[list[int]]:
    """What ``runs`` map and ``others`` do not, or not alike; both sorted and without overlaps."""
    found = []
    position = 0
    for va, length, gpa, writable, cache in runs:
        at, end = va, va + length
        while position < len(others) and others[position][0] + others[position][1] <= at:
            position += 1
        look = position
        while at < end:
            other = others[look] if look < len(others) else None
            if other is None or other[0] >= end:
                upto, alike = end, False
            elif other[0] > at:
                upto, alike = other[0], False
            else:
                upto = min(end, other[0] + other[1])
                alike = [other[2] + at - other[0], *other[3:]] == [gpa + at - va, writable, cache]
                look += 1
            if not alike:
                found.append([at, upto - at, gpa + at - va, writable, cache])
            at = upto
    return found


def _counters(bounds: dict[str, list[int]], given: Any) -> list[str]:
    if not isinstance(given, dict):
        return ["there are no counters"]
    found = []
    for name in (*bounds, *ALWAYS):
        value = given.get(name)
        if type(value) is not int:
            found.append(f"counter {name} is {value!r}")
        elif name in bounds and not bounds[name][0] <= value <= bounds[name][1]:
            least, most = bounds[name]
            right = f"{least}" if least == most else f"{least} to {most}"
            found.append(f"counter {name} is {value}, expected {right}")
    if not found and given["traps"] != given["store_traps"] + given["mmio_traps"]:
        found.append(f"counter traps is {given['traps']}, not store_traps + mmio_traps")
    return sorted(set(found))


#: Counters that every output has.
ALWAYS = (
    "traps",
    "store_traps",
    "mmio_traps",
    "tables",
    "protected_pages",
    "opened_pages",
    "syncs",
    "invalid_entries",
    "unsupported_entries",
    "ignored_notifications",
    "dropped_stores",
    "audit_mismatches",
)
