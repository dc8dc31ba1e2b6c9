"""A small storm, with every check; and storms over daemons with a fault, which must be found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storm.checks import Check, Failed
from tests.storm.storm import Plan, Storm

SEED = 1


def test_a_guest_notices_nothing_of_thirty_kills(tmp_path: Path) -> None:
    report = Storm(tmp_path, Plan(seed=SEED, kills=30)).run()
    assert report.kills == 30
    assert report.looks > 1
    assert report.acts > 100


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["4.20", "4.11"])
def test_nor_on_another_xen(tmp_path: Path, flavour: str) -> None:
    Storm(tmp_path, Plan(seed=SEED + 1, kills=60, flavour=flavour)).run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "checks"),
    [
        ("forget_registers", {Check.REGISTERS}),
        ("forget_spaces", {Check.SPACES, Check.AUDIT}),
        ("no_journal", {Check.SPACES, Check.REGISTERS, Check.MEMORY}),
        ("leave_answers", {Check.WAITING}),
    ],
)
def test_a_fault_is_found(tmp_path: Path, fault: str, checks: set[Check]) -> None:
    plan = Plan(seed=SEED, kills=2000, hooks=(f"tests.storm.faults:{fault}",), patience=5.0)
    with pytest.raises(Failed) as caught:
        Storm(tmp_path, plan).run()
    assert caught.value.check in checks
