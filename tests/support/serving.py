"""What the serve loop does as a task, done by a test: requests are handled to their end."""

from __future__ import annotations

from xengt_dm.ioreq.bus import Answer, Bus
from xengt_dm.ioreq.loop import ServeLoop
from xengt_dm.ioreq.request import Request
from xengt_dm.steps import complete


def handled(bus: Bus, request: Request) -> Answer:
    """What a request is answered with in the end."""
    outcome = bus.handle(request)
    return outcome if isinstance(outcome, Answer) else complete(outcome)


def serve_all(loop: ServeLoop) -> int:
    """Serve what waits, with all that takes more than a slice. Returns how many requests were taken at first."""
    served = loop.service()
    while loop.busy:
        loop.take_turns()
    return served
