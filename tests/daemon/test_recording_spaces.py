"""A recording that begins when the guest has many spaces, or has announced one of them very often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from tests.support.machine import L1, L4, PATIENCE, Machine, announce, play
from tests.support.record_command import recording_of
from tests.support.recording import dumps_of
from tests.support.tables import FRAME, pte
from xengt_dm.daemon.outcome import LostOutcome, Outcome
from xengt_dm.daemon.recording import Bounds, open_trace_file
from xengt_dm.hypervisor.embedded import Vcpu
from xengt_dm.ioreq.loop import ServeLoop
from xengt_dm.steps import Slices, Steps, complete
from xengt_dm.trace.events import Event, Mmio
from xengt_dm.trace.read import read_trace
from xengt_dm.vgpu import registers as reg

_T = TypeVar("_T")
CREATE, DESTROY = reg.Notification.PPGTT_L4_CREATE, reg.Notification.PPGTT_L4_DESTROY
#: Roots of spaces that map nothing.
OTHERS = range(20, 50)


class Between:
    """In place of a serve loop: lets the guest act after each slice of what it is to run."""

    def __init__(self, act: Callable[[int], Awaitable[None]]) -> None:
        self.act = act
        self.slices = 0

    async def run(self, work: Steps[_T]) -> _T:
        slices = Slices(work)
        for _ in slices:
            self.slices += 1
            await self.act(self.slices)
        return slices.value


def spaces_of(dump: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**space, "mappings": [list(run) for run in space["mappings"]]} for space in dump]


def announcements(events: list[Event]) -> int:
    return sum(isinstance(each, Mmio) and (each.offset, each.value) == (reg.G2V_NOTIFY, CREATE) for each in events)


def test_what_the_guest_does_meanwhile_comes_after_the_spaces_that_were_there(tmp_path: Path) -> None:
    """It takes spaces back, announces others, and stores, while the recording tells of those that it found."""
    file = tmp_path / "trace.jsonl"
    left: list[dict[str, Any]] = []

    async def body(machine: Machine) -> None:
        await machine.make_space()
        for root in OTHERS:
            await machine.announce(root)

        async def act(slices: int) -> None:
            if slices == 2:
                await machine.announce(OTHERS[0], DESTROY)
                await machine.announce(OTHERS[-1], DESTROY)
            elif slices == 4:
                await machine.announce(60)
                await machine.store(L1, 3, pte(9))
            elif slices == 8:
                await machine.announce(60, DESTROY)
                await machine.announce(61)

        between = Between(act)
        recording = recording_of(machine)
        await recording.start_later(open_trace_file(str(file)), Bounds(), cast(ServeLoop, between))
        assert between.slices > len(OTHERS)
        recording.stop()
        left.extend(spaces_of(machine.dump()))

    play(body)
    (dump,) = dumps_of(file, "strict")
    assert dump["spaces"] == left
    assert [space["root"] for space in left] == [root * FRAME for root in (L4, *OTHERS[1:-1], 61)]


def test_a_space_that_was_announced_very_often_is_told_in_slices(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    often = 10_000

    def program(vcpu: Vcpu) -> None:
        vcpu.run_stores([(machine_bar0 + reg.G2V_NOTIFY, 4, CREATE)] * (often - 1))

    async def body(machine: Machine) -> None:
        nonlocal machine_bar0
        machine_bar0 = machine.instance.settings.bar0
        await machine.make_space()
        await machine.guest(program)

        async def act(slices: int) -> None:
            if slices == 1:
                await machine.guest(announce)

        between = Between(act)
        recording = recording_of(machine)
        await recording.start_later(open_trace_file(str(file)), Bounds(), cast(ServeLoop, between))
        assert 5 < between.slices < 100
        recording.stop()

    machine_bar0 = 0
    play(body)
    assert announcements(read_trace(file)[1]) == often + 1


def test_a_stop_waits_until_all_spaces_are_told(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    left: list[dict[str, Any]] = []

    async def body(machine: Machine) -> None:
        await machine.make_space()
        for root in OTHERS:
            await machine.announce(root)
        recording = recording_of(machine)
        stop: list[Steps[Outcome | LostOutcome]] = []

        async def act(slices: int) -> None:
            if not stop:
                stop.append(recording.finish())
            next(stop[0])
            assert recording.name is not None

        await recording.start_later(open_trace_file(str(file)), Bounds(), cast(ServeLoop, Between(act)))
        outcome = complete(stop[0])
        assert outcome.wait(PATIENCE)
        left.extend(spaces_of(machine.dump()))

    play(body)
    (dump,) = dumps_of(file, "strict")
    assert dump["spaces"] == left
