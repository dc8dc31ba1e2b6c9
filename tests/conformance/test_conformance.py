"""The table on the embedded hypervisor, in this process and in one of its own.

On real Xen it is tests/lab/scenarios/conformance.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.embedded import EmbeddedSide
from tests.conformance.runner import DisagreementError, run
from tests.conformance.sim import SimSide
from tests.conformance.table import Case, flipped, for_flavour, load
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS

CASES = load()
RUNS = [(flavour, case) for flavour in FLAVOURS for case in for_flavour(CASES, flavour)]
#: A sim takes six times as long as the same hypervisor in this process, so `tests/quick` tries one flavour on it.
SIM_RUNS = [
    pytest.param(flavour, case, marks=[] if flavour == "4.17" else [pytest.mark.slow], id=f"{flavour}-{case.name}")
    for flavour, case in RUNS
]


@pytest.mark.parametrize(("flavour", "case"), RUNS, ids=[f"{flavour}-{case.name}" for flavour, case in RUNS])
def test_case(flavour: str, case: Case) -> None:
    with EmbeddedSide(flavour, case.paging) as side:
        try:
            run(case, side)
        finally:
            side.domain.destroy()


class Sims:
    """A sim for all cases in a row that want the same domain and leave it usable; one to itself for each other case."""

    def __init__(self, new_directory: Callable[[], Path]) -> None:
        self._new_directory = new_directory
        self._kind = ("", "")
        self._side: SimSide | None = None

    def run(self, flavour: str, case: Case) -> None:
        if case.fresh:
            with SimSide(self._new_directory(), flavour, case.paging) as side:
                run(case, side)
            return
        if self._side is None or self._kind != (flavour, case.paging):
            self.end()
            self._side = SimSide(self._new_directory(), flavour, case.paging)
            self._side.__enter__()
            self._kind = flavour, case.paging
        try:
            run(case, self._side)
        except BaseException:
            self.end()  # who knows what it leaves
            raise

    def end(self) -> None:
        side, self._side = self._side, None
        if side is not None:
            side.__exit__()


@pytest.fixture(scope="module")
def sims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sims]:
    sims = Sims(lambda: tmp_path_factory.mktemp("sim"))
    yield sims
    sims.end()


@pytest.mark.parametrize(("flavour", "case"), SIM_RUNS)
def test_case_on_a_sim(sims: Sims, flavour: str, case: Case) -> None:
    sims.run(flavour, case)


def test_the_table_names_flavours_that_exist() -> None:
    assert {flavour for case in CASES for flavour in case.flavours} <= set(FLAVOURS)


def test_every_case_has_its_source() -> None:
    assert all(case.source for case in CASES)


@pytest.mark.parametrize("flavour", ["4.17", "4.20"])
def test_real_xen_can_show_most_of_it(flavour: str) -> None:
    assert len(for_flavour(CASES, flavour, lab=True)) >= 650


@pytest.mark.parametrize(("paging", "had"), [("hap", "EBUSY"), ("shadow", "EOPNOTSUPP")])
def test_a_flipped_case_fails(paging: str, had: str) -> None:
    cases = [case for case in for_flavour(CASES, "4.17") if case.paging == paging]
    with EmbeddedSide("4.17", paging) as side, pytest.raises(DisagreementError, match=f"had {had}"):
        run(flipped(cases), side)


@pytest.mark.parametrize(("paging", "had"), [("hap", "EBUSY"), ("shadow", "EOPNOTSUPP")])
def test_a_flipped_case_fails_on_a_sim(sims: Sims, paging: str, had: str) -> None:
    cases = [case for case in for_flavour(CASES, "4.17") if case.paging == paging]
    with pytest.raises(DisagreementError, match=f"had {had}"):
        sims.run("4.17", flipped(cases))


def test_the_table_names_pagings_that_exist() -> None:
    assert {case.paging for case in CASES} == {"hap", "shadow"}
