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
@pytest.mark.parametrize("flavour", ["4.20", "4.12"])
def test_nor_on_another_xen(tmp_path: Path, flavour: str) -> None:
    Storm(tmp_path, Plan(seed=SEED + 1, kills=60, flavour=flavour, rep_stores=flavour == "4.20")).run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "checks"),
    [
        ("forget_registers", {Check.REGISTERS}),
        ("forget_spaces", {Check.SPACES}),
        ("no_journal", {Check.SPACES}),
    ],
)
def test_a_fault_is_found(tmp_path: Path, fault: str, checks: set[Check]) -> None:
    plan = Plan(seed=SEED, kills=1000, hooks=(f"tests.storm.faults:{fault}",))
    with pytest.raises(Failed) as caught:
        Storm(tmp_path, plan).run()
    assert caught.value.check in checks
