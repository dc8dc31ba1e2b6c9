"""What a hand-made trace is: a function with ``@case`` makes one file; its docstring says what the file guards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .machine import Trace
from .script import Script


@dataclass(frozen=True)
class Case:
    name: str
    guards: str
    source: str
    make: Callable[[], Script]

    @property
    def trace(self) -> Trace:
        return self.make().trace


CASES: list[Case] = []

U64 = (1 << 64) - 1

GVT = "i915/gvt/gtt.c of Linux 6.1"
ISSUE = "intel/gvt-linux issue"


def case(source: str) -> Callable[[Callable[[], Script]], Callable[[], Script]]:
    def register(make: Callable[[], Script]) -> Callable[[], Script]:
        guards = " ".join((make.__doc__ or "").split())
        CASES.append(Case(make.__name__.replace("_", "-"), guards, source, make))
        return make

    return register
