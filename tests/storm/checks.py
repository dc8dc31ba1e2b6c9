"""What must be true of a guest and its daemon after any number of kills."""

from __future__ import annotations

import enum
from typing import Any

from tests.support.sim import Console


class Check(enum.Enum):
    """One thing that is compared. The names are those of ``--skip``."""

    MEMORY = "memory"  #: every store is in guest memory
    WAITING = "waiting"  #: no vCPU waits for ever
    SPACES = "spaces"  #: the daemon knows the live spaces and their references
    REGISTERS = "registers"  #: registers are what was written last
    AUDIT = "audit"  #: after a sync, the shadows are what the tables say
    LIFE = "life"  #: mode and quiesced are what the operator was told
    GPU = "gpu"  #: what the GPU stored is in memory
    STATUS = "status"  #: a daemon ends when it is killed, not before
    ORDERLY = "orderly"  #: an orderly stop leaves nothing


class Failed(Exception):  # noqa: N818 - a check
    """A check failed."""

    def __init__(self, check: Check, text: str) -> None:
        super().__init__(f"{check.value}: {text}")
        self.check = check


def spaces_differ(told: list[dict[str, Any]], meant: list[list[Any]]) -> str | None:
    """What is wrong with the answer to ``spaces``, None if nothing is."""
    found = sorted(
        [each["mode"], each["roots"] if isinstance(each.get("roots"), list) else _roots(each["root"]), each["refs"]]
        for each in told
    )
    if found == meant:
        return None
    missing = [each for each in meant if each not in found]
    more = [each for each in found if each not in meant]
    return f"of {len(meant)} spaces {len(missing)} are missing or counted otherwise: {missing[:4]}; found {more[:4]}"


def _roots(root: Any) -> list[int]:
    return root if isinstance(root, list) else [root]


def left_behind(console: Console) -> str | None:
    """What an orderly stop left in the hypervisor, None if nothing."""
    state = console.state()
    left = {name: state[name] for name in ("protected", "entries", "owner", "device_models", "stale_frames")}
    lost = {name: state["counters"][name] for name in ("dropped_stores", "discarded_stores")}
    if any(left[name] for name in ("protected", "entries", "device_models", "stale_frames")):
        return str(left)
    if left["owner"] is not None or any(lost.values()) or state["crash_reason"]:
        return f"{left} {lost} {state['crash_reason']}"
    return None
