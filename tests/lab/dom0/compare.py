"""The daemon's dump against what the guest says it meant, and both against the guest's tables."""

from typing import Any

from .checks import require
from .guest import Guest
from .walk import difference, of_intents, of_runs, of_tables


def compare(guest: Guest, dump: dict[str, Any], when: str) -> int:
    """How many pages are mapped, in all spaces. Raises ScenarioError if the three views differ anywhere."""
    require(dump["audit_mismatches"] == 0, f"{when}: the audit found {dump['audit_mismatches']} mismatches")
    intents = guest.intents()
    spaces = {space["root"]: space for space in dump["spaces"]}
    require(spaces.keys() == intents.keys(), f"{when}: live roots {sorted(spaces)}, the guest's are {sorted(intents)}")
    pages = 0
    for root, records in intents.items():
        meant = of_intents(records)
        tables = difference(meant, of_tables(guest.memory, root))
        require(tables is None, f"{when}: the tables under {root:#x} are not what the guest meant: {tables}")
        require(spaces[root]["mode"] == "l4", f"{when}: the space {root:#x} is {spaces[root]['mode']}")
        shadow = difference(meant, of_runs(spaces[root]["mappings"]))
        require(shadow is None, f"{when}: the shadow of {root:#x} is not what the guest meant: {shadow}")
        pages += len(meant)
    return pages
