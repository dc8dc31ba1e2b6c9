"""A vCPU that remembers what it did last, so that a failure can be understood."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from tests.support.tables import FRAME
from xengt_dm._embedded import lib
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu

#: Operations that are remembered.
_MOST = 5000


class Did(NamedTuple):
    """One operation, as Vcpu._one has it; ``number`` counts all of a vCPU."""

    number: int
    kind: int
    at: int
    size: int
    value: int
    other: int
    elements: int
    down: bool

    def touches(self, gpa: int) -> bool:
        """Whether it may have stored to an address, or loaded from it."""
        if self.kind in (lib.XD_OP_ADD, lib.XD_OP_REMOVE):
            return self.at <= gpa // FRAME < self.at + self.elements
        reach = max(self.elements, 1) * max(self.size, 1)
        first = -reach if self.down else -8
        return any(first <= gpa - where < reach + 8 for where in (self.at, self.other))

    def __str__(self) -> str:
        down = " down" if self.down else ""
        return (
            f"{self.number}: kind {self.kind} at {self.at:#x} size {self.size} value {self.value:#x} "
            f"other {self.other:#x} count {self.elements}{down}"
        )


class History(Vcpu):
    """A vCPU with a memory."""

    def __init__(self, domain: EmbeddedDomain, index: int) -> None:
        super().__init__(domain, index)
        self._count = 0
        self._last: deque[Did] = deque(maxlen=_MOST)

    def _one(
        self, kind: int, at: int, size: int = 0, value: int = 0, *, other: int = 0, count: int = 0, down: bool = False
    ) -> None:
        self._count += 1
        self._last.append(Did(self._count, kind, at, size, value, other, count, down))
        super()._one(kind, at, size, value, other=other, count=count, down=down)

    def of(self, gpa: int) -> list[str]:
        """The last operations at an address, the latest last."""
        return [str(did) for did in self._last if did.touches(gpa)][-12:]
