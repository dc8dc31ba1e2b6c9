"""Kills at the steps of one case, and what is otherwise than without a kill."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

from tests.single_step.cases import Case
from tests.single_step.harness import Run, Stepper

#: What steps are: instructions of _core, lines of xengt_dm.
KINDS: Final = ("instructions", "lines")
#: An upgrade ends the daemon, so nobody tells how many steps it took; more than these.
_UPGRADE_STEPS: Final = {"instructions": 2000, "lines": 2000}


class Sweep:
    """The steps of a case. ``skip``: names of what of the end state is not compared."""

    def __init__(self, stepper: Stepper, case: Case, what: str, skip: frozenset[str] = frozenset()) -> None:
        self._stepper = stepper
        self._case = case
        self._what = what
        self._skip = skip
        self.kills = 0
        self.steps = 0

    def __str__(self) -> str:
        return f"{self._case.name}: {self.kills} kills at {self.steps} {self._what}"

    def run(self, points: int, rng: random.Random) -> list[str]:
        """Kill at so many steps, drawn from all parts of the case; 0: at each. Returns what is wrong, a line each."""
        references = [self._stepper.run(self._case)]
        if self._case.command:  # one that was not answered may have had no effect at all
            references.append(self._stepper.run(Case(self._case.name, commands=self._case.commands)))
        self.steps = self._stepper.run(self._case, self._what).steps or _UPGRADE_STEPS[self._what]
        wrong = []
        for after in self._drawn(points, rng):
            run = self._stepper.run(self._case, self._what, after)
            self.kills += run.died
            if lines := self._differences(references, run):
                wrong.append(f"killed after {after} {self._what}: {lines}")
        return wrong

    def _drawn(self, points: int, rng: random.Random) -> Iterable[int]:
        if not 0 < points < self.steps:
            return range(1, self.steps + 1)
        return [rng.randint(n * self.steps // points + 1, (n + 1) * self.steps // points) for n in range(points)]

    def _differences(self, references: list[Run], run: Run) -> str:
        """What is not as in any of the runs without a kill; empty if nothing."""
        answered = bool(self._case.command) and run.answer is not None
        wrong = []
        for reference in references[:1] if answered else references:
            lines = list(self._compare(reference, run))
            if not lines:
                return ""
            wrong.append("; ".join(lines))
        return " | or ".join(wrong)

    def _compare(self, reference: Run, run: Run) -> Iterable[str]:
        if self._case.op and run.answer != reference.answer:
            yield f"the answer is {run.answer}, not {reference.answer}"
        for name, meant in reference.state.items():
            if run.state and name not in self._skip and run.state.get(name) != meant:
                yield f"{name}{_first_difference(run.state.get(name), meant)}"


def _first_difference(found: Any, meant: Any) -> str:
    if isinstance(found, list) and isinstance(meant, list) and len(found) == len(meant):
        at = next(n for n in range(len(found)) if found[n] != meant[n])
        return f"[{at}]{_first_difference(found[at], meant[at])}"
    if isinstance(found, str) and isinstance(meant, str) and len(found) == len(meant) > 32:
        at = next(n for n in range(0, len(found), 16) if found[n : n + 16] != meant[n : n + 16])
        return f" byte {at // 2}: {found[at : at + 16]}, not {meant[at : at + 16]}"
    return f": {str(found)[:200]}, not {str(meant)[:200]}"
