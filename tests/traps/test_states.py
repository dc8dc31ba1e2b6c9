"""The state of a frame, by its table: random events against the embedded hypervisor's p2m, for both ways to trap."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest

from tests.support.protected import trapping
from tests.support.trapping import Setting
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.hypervisor.port import MemType
from xengt_dm.steps import complete
from xengt_dm.traps import claim, ranges
from xengt_dm.traps.state import TRANSITIONS, TRAPPING, Event, Frames, FrameState
from xengt_dm.units import CData

FRAMES = range(10, 22)
STEPS = 2000
#: With a process that dies.
MORTAL_STEPS = 1500


class Watched(Frames):
    """Frames that note which events happened in which states."""

    seen: set[tuple[FrameState, Event]] = set()

    def apply(self, event: Event, gfns: Iterable[int]) -> None:
        gfns = list(gfns)
        self.seen.update((self[gfn], event) for gfn in gfns)
        super().apply(event, gfns)

    def adopt(self, gfns: Collection[int]) -> None:
        self.seen.update((self[gfn], Event.LEFT_PROTECTED) for gfn in gfns)
        super().adopt(gfns)


class Guest:
    """A guest, its shadows and Xen, which do at random what they may; ``model`` is what must come of it.

    The shadows track a frame from when it is protected until they say that they need it no more, and ask only for what
    the engine asks for: nothing is protected twice, only what is protected is unsynced, only what is unsynced is
    resynced.
    """

    def __init__(self, flavour: str, seed: int, rep_stores: bool, *, mortal: bool = False) -> None:
        self.rng = random.Random(seed)
        self.mortal = mortal
        self.setting = Setting(flavour, rep_stores=rep_stores)
        #: Frames that the shadows track, and whether each is unsynced.
        self.tracked: dict[int, bool] = {}
        #: Frames of which a store is under way.
        self.stores: set[int] = set()
        self.refusals = 0
        port = self.setting.port
        self._change = self._recorded(port.set_mem_types)
        port.set_mem_types = self._sometimes_refuse  # type: ignore[method-assign]

    def _recorded(self, change: Callable[..., int]) -> Callable[..., int]:
        """Whatever traps before and after a change of type is on record by then."""

        def changed(*arguments: Any) -> int:
            assert trapping(self.setting.domain, FRAMES) <= set(self.setting.protected.frames())
            failed = change(*arguments)
            assert trapping(self.setting.domain, FRAMES) <= set(self.setting.protected.frames())
            return failed

        return changed

    def _sometimes_refuse(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        if not self.refusals:
            return self._change(mem_type, gfns, count, errors)
        self.refusals -= 1
        for i in range(count):
            errors[i] = errno.EAGAIN
        return count

    def step(self) -> None:
        kind = self.rng.choice(
            [self.protect] * 4
            + [self.forget] * 3
            + [self.unsync] * 4
            + [self.resync] * 3
            + [self.store] * 4
            + [self.late]
            + [self.give_back, self.take_back] * 2
            + [self.retry, self.invalidate, self.refuse]
            + [self.die] * self.mortal
        )
        kind()
        self.setting.slots.unfinished = set(self.stores)
        self.setting.slots.in_flight = {gfn + i for gfn in self.stores for i in range(2)}
        self.check()

    def end(self) -> None:
        """As :func:`xengt_dm.instance.stop`."""
        self.stores.clear()
        self.refusals = 0
        self.setting.slots.unfinished = self.setting.slots.in_flight = set()
        while len(self.tracked) < len(FRAMES):
            self.take_back()
            self.protect()
        if self.mortal:
            self.setting.succeed()
            self.setting.remove(self.setting.domain.protected()[0])
            self.tracked.clear()
        self.setting.traps.refuse_new()
        assert complete(self.setting.traps.unprotect_all())
        assert self.setting.domain.protected() == []
        assert self.setting.traps.drop_guard_ranges()
        assert self.setting.ranges() == 0
        assert self.setting.protected.frames() == []
        self.setting.unprotect(*[gfn for gfn, unsynced in self.tracked.items() if not unsynced])

    # The shadows

    def pick(self, frames: Iterable[int]) -> int | None:
        return self.rng.choice(sorted(frames)) if frames else None

    def protect(self) -> None:
        gfn = self.pick(set(FRAMES) - set(self.tracked))
        if gfn is None:
            return
        if self.rng.random() < 0.5 and self.setting.still_trapping(gfn) == [False]:
            self.tracked[gfn] = True  # born unsynced
        elif self.setting.protect(gfn) == [0]:
            self.tracked[gfn] = False

    def forget(self) -> None:
        gfn = self.pick(self.tracked)
        if gfn is not None and not self.tracked.pop(gfn):
            self.setting.unprotect(gfn)

    def unsync(self) -> None:
        gfn = self.pick([gfn for gfn, unsynced in self.tracked.items() if not unsynced])
        if gfn is not None and self.setting.unsync(gfn):
            self.tracked[gfn] = True

    def retry(self) -> None:
        self.setting.traps.unprotect_deferred()
        if self.rng.random() < 0.5:
            complete(self.setting.traps.unprotect_adopted())

    def resync(self) -> None:
        gfn = self.pick([gfn for gfn, unsynced in self.tracked.items() if unsynced])
        if gfn is not None and self.setting.resync(gfn) == [0]:
            self.tracked[gfn] = False

    def late(self) -> None:
        """A late store to a frame that is no table is answered."""
        gfn = self.pick(set(FRAMES) - set(self.tracked))
        if gfn is not None:
            self.setting.traps.trap_late(gfn)

    def invalidate(self) -> None:
        """The guest says that it gave frames back; the next submission verifies what the shadows rely on."""
        self.setting.traps.frames_changed()
        if relied_on := [gfn for gfn, unsynced in self.tracked.items() if not unsynced]:
            with contextlib.suppress(HostError):  # if Xen refuses twice
                self.setting.verify(*relied_on)

    # The guest and Xen

    def store(self) -> None:
        """A store begins or ends. One that begins traps, so its frame does."""
        if self.stores and self.rng.random() < 0.7:
            self.stores.remove(self.rng.choice(sorted(self.stores)))
        elif protected := self.setting.domain.protected():
            self.stores.add(self.rng.choice(protected))

    def die(self) -> None:
        """The process dies. Its successor creates the tables again, while the guest does what it likes."""
        self.setting.succeed()
        self.setting.traps.protect_in_flight()
        tables, self.tracked = [*self.tracked], {}
        self.rng.shuffle(tables)
        for gfn in tables:
            self.check()
            self.rng.choice([self.give_back, self.take_back, self.retry, self.invalidate, self.unsync, self.refuse])()
            if gfn not in self.tracked and self.setting.protect(gfn) == [0]:
                self.tracked[gfn] = False

    def give_back(self) -> None:
        gfn = self.pick(set(FRAMES) - self.stores)
        if gfn is not None:
            self.setting.remove(gfn)

    def take_back(self) -> None:
        for gfn in FRAMES:
            if gfn not in self.setting.domain.protected() and self.setting.domain.type_of(gfn) is P2mType.MMIO_DM:
                self.setting.domain.set_type(gfn, 1, P2mType.RAM_RW)
                return

    def refuse(self) -> None:
        """Xen refuses the next change of type, and the second try."""
        self.refusals = 2

    # What must hold

    def check(self) -> None:
        traps, domain = self.setting.traps, self.setting.domain
        traps.check()
        trapping = set(domain.protected())
        assert self.setting.protected.frames() == sorted(traps.protected)
        # No frame traps that is not known to; and of those that are, only what the guest gave back does not.
        assert trapping <= traps.protected
        assert not any(domain.type_of(gfn) is P2mType.IOREQ_SERVER for gfn in traps.protected - trapping)
        if self.setting.port.retype_in_flight_is_fatal:
            assert self.stores <= trapping, "a frame became RAM while a store to it was under way"


def test_the_table_is_total() -> None:
    assert list(TRANSITIONS) == list(Event)
    assert all(len(row) == len(FrameState) for row in TRANSITIONS.values())
    assert frozenset({FrameState.PROTECTED, FrameState.DEFERRED, FrameState.ADOPTED}) == TRAPPING


def test_every_state_can_be_reached_and_left() -> None:
    steps = {(before, after) for row in TRANSITIONS.values() for before, after in enumerate(row) if after is not None}
    reached = {FrameState.PLAIN}
    while more := {after for before, after in steps if before in reached} - reached:
        reached |= more
    assert reached == set(FrameState)
    for state in FrameState:
        assert {after for before, after in steps if before == state} - {state}


#: Where the type is claimed, no frame with a range is adopted twice. By ranges, a frame that the guest replaced is LOST
#: before it is protected again, and late stores need no trap.
_BY_THE_OTHER = {
    "4.17": {(FrameState.ADOPTED, Event.LEFT_PROTECTED)},
    "v7": {(FrameState.PROTECTED, Event.PROTECT), (FrameState.PLAIN, Event.TRAP_LATE)},
}


@pytest.mark.parametrize(
    ("flavour", "rep_stores"),
    [("4.17", False), ("4.17", True), ("v7", False), ("v7", True)],
    ids=["4.17", "4.17 rep stos", "v7", "v7 rep stos"],
)
def test_random_events(flavour: str, rep_stores: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No event happens in a state in which it cannot, and each that can does."""
    seen: set[tuple[FrameState, Event]] = set()
    monkeypatch.setattr(Watched, "seen", seen)
    for module in (claim, ranges):
        monkeypatch.setattr(module, "Frames", Watched)
    for mortal, steps in ((False, STEPS), (True, MORTAL_STEPS)):
        guest = Guest(flavour, 0, rep_stores, mortal=mortal)
        with guest.setting.domain:
            for _ in range(steps):
                guest.step()
            guest.end()
    possible = {(state, event) for event, row in TRANSITIONS.items() for state in FrameState if row[state] is not None}
    expected = possible - _BY_THE_OTHER[flavour]
    if not rep_stores:
        expected.discard((FrameState.PLAIN, Event.TRAP_LATE))
    assert expected - seen == set()
    assert seen <= possible
