"""What replay makes of a trace, in this process, against what the reference in tests/oracle says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.oracle import Trace, compare, expected, save
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import DEFAULT_MAX_TABLES
from xengt_dm.sim.replay import Player, replay
from xengt_dm.trace.events import Dump, Event
from xengt_dm.trace.read import read_trace


class CheckedPlayer(Player):
    """Looks at each dump for what must always hold of the shadows."""

    async def play_one(self, event: Event) -> None:
        await super().play_one(event)
        if isinstance(event, Dump):
            wrong = self.instance.engine.check()
            assert wrong == [], f"at dump {event.id}: {wrong[:3]}"


def differences(
    path: Path, trace: Trace, mode: str, max_tables: int | None = None, want: dict[str, Any] | None = None
) -> list[str]:
    """All that is wrong with how the trace is replayed; ``path`` is where it is written for that.

    ``want``: what the reference says, if that is known already.
    """
    save(path, trace)
    header, events = read_trace(path)
    quota = max_tables or DEFAULT_MAX_TABLES
    outcome = replay(header, events, sync=Sync(mode), max_tables=quota, player=CheckedPlayer)
    output: dict[str, Any] = {"dumps": outcome.dumps, "counters": outcome.counters}
    for dump in output["dumps"]:
        for space in dump["spaces"]:
            if space["mappings"] is not None:
                space["mappings"] = [list(run) for run in space["mappings"]]
    return compare(want or expected(trace), output, mode, max_tables)
