"""A daemon is killed at drawn steps of each kind of request; ``python -m tests.single_step`` does it at every step."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.single_step.cases import CASES, Case
from tests.single_step.harness import Stepper
from tests.single_step.sweep import KINDS, Sweep

BY_NAME = {case.name: case for case in CASES}
QUICK = ("store to a leaf", "announcement of a live space")


@pytest.fixture(scope="module")
def stepper() -> Iterator[Stepper]:
    with Stepper() as stepper:
        yield stepper


def test_names_tell_cases_apart() -> None:
    assert len(BY_NAME) == len(CASES)


@pytest.mark.parametrize("name", QUICK)
def test_the_guest_finds_what_it_would_have_found(stepper: Stepper, name: str) -> None:
    sweep = Sweep(stepper, BY_NAME[name], "instructions")
    assert sweep.run(3, random.Random(name)) == []
    assert sweep.kills


@pytest.mark.slow
@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nobody_finds_anything_else(stepper: Stepper, case: Case, what: str) -> None:
    assert Sweep(stepper, case, what).run(2, random.Random(case.name + what)) == []


@pytest.mark.slow
def test_a_daemon_without_a_journal_is_found_out() -> None:
    with Stepper(hooks=["tests.storm.faults:no_journal"]) as stepper:
        sweep = Sweep(stepper, BY_NAME["announcement of a new space"], "lines")
        wrong = sweep.run(10, random.Random(1))
    assert any("spaces" in line for line in wrong)
