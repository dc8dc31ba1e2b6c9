"""Stores that must not be answered yet, because the frame before theirs was protected too early.

Facts: a store that lies in two frames is performed in the first one and sent to us for the second. If the first one is
protected meanwhile, the instruction does not end as it began, and Xen crashes the domain
(:mod:`xengt_dm.traps.state`). While it is protected, another vCPU may store to it, and then it must not become RAM
until that store is over.

What we do: the store to the second frame is *held*. The other one is answered; when it is over the first frame becomes
RAM, and only then the held store is answered.

A successor must hold it as well. So the frames before those of held stores are on record, and so is a frame from before
it is protected until it is known whether a store must be held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from xengt_dm.traps.protected import FramesInHand


class Holds:
    """The frames to which stores are held, and for each the one that must be RAM before; ``record`` has them, too."""

    def __init__(self, record: FramesInHand) -> None:
        self._before: dict[int, int] = {}
        self._record = record

    def __bool__(self) -> bool:
        return bool(self._before)

    def hold(self, gfns: Iterable[int]) -> None:
        """Holds the stores to the frames behind these until :meth:`release`."""
        if new := {gfn + 1: gfn for gfn in gfns}:
            self._change({**self._before, **new})

    def adopt(self, gfns: Iterable[int]) -> None:
        """Holds the stores to the frames behind these, and no others of those that a predecessor has on record."""
        self.hold(gfns)
        self._record.hold(self._before.values())
        self._record.end()

    def before(self, gfn: int) -> int | None:
        """Returns the frame for which a store to this one is held, if it is."""
        return self._before.get(gfn)

    def keep(self, gfns: Collection[int]) -> None:
        """Forgets the holds of other frames than these: whatever the held requests were, they are answered."""
        self._change({held: gfn for held, gfn in self._before.items() if gfn in gfns})

    def waiting(self, gfns: Iterable[int]) -> set[int]:
        """Returns those of these frames for which a store to the next one is held."""
        return {gfn for gfn in gfns if gfn + 1 in self._before} if self._before else set()

    def release(self, gfn: int) -> None:
        """Ends what :meth:`hold` began for a frame."""
        self._change({held: before for held, before in self._before.items() if before != gfn})

    def _change(self, before: dict[int, int]) -> None:
        if before != self._before:
            self._record.hold(before.values())
            self._before = before
