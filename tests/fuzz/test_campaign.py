"""A few rounds of the campaign, and that it notices what is wrong."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import Done, Plan, Round, main, one_round
from tests.fuzz.hostile import LOST
from tests.fuzz.judge import WrongError
from xengt_dm.ppgtt.engine import Engine
from xengt_dm.ppgtt.space import Mode
from xengt_dm.ppgtt.stores import TableStores

SEED = 3
STORES = 2000


def some_rounds() -> None:
    for number in range(20):
        one_round(SEED, number, slots=False, done=Done(), stores=20_000)


@pytest.mark.parametrize("number", range(6))
def test_rounds_of_stores(number: int) -> None:
    done = Done()
    one_round(SEED, number, slots=False, done=done, stores=STORES)
    assert done.tally["rounds"] == 1


@pytest.mark.parametrize("number", range(3))
def test_rounds_of_slots(number: int) -> None:
    done = Done()
    one_round(SEED, number, slots=True, done=done, pages=1)
    assert done.tally["slots"] > 400


def test_the_command_ends_when_enough_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--stores", "0.5", "--slots", "0.5", "--seconds", "0"]) == 0
    assert "nothing was wrong" in capsys.readouterr().out


def test_an_invalidation_that_is_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that the guest gave back stay mapped then."""
    monkeypatch.setattr(TableStores, "frames_changed", lambda self: None)
    with pytest.raises(WrongError):
        some_rounds()


def test_a_submission_that_is_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(self: Engine, mode: Mode, roots: tuple[int, ...]) -> None:
        return None

    monkeypatch.setattr(Engine, "submit", submit)
    with pytest.raises(WrongError):
        some_rounds()


def test_writes_to_what_is_not_the_guests_and_stores_that_are_lost_are_noticed() -> None:
    exact = next(plan for number in range(50) if (plan := Plan.drawn(f"{number}", False)).vcpus == 1 and plan.may & 4)
    play = Round(exact, Done())
    try:
        play.judge._put_canaries()
        play.judge.frames_that_are_lost()
        play.judge.memory(play.model)
        play.domain.write(exact.frames * 4096 - 8, b"whatever")
        assert play.owned[exact.frames - 1] == LOST
        with pytest.raises(WrongError, match="is not the guest's, and was written"):
            play.judge.frames_that_are_lost()
        play.model[4096] = 1
        with pytest.raises(WrongError, match="0x1000 holds"):
            play.judge.memory(play.model)
    finally:
        play.close()
