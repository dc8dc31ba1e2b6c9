"""The table on the embedded hypervisor; on real Xen it is tests/lab/scenarios/conformance.py."""

from __future__ import annotations

import pytest

from tests.conformance.embedded import EmbeddedSide
from tests.conformance.runner import DisagreementError, run
from tests.conformance.table import Case, flipped, for_flavour, load
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS

CASES = load()
RUNS = [(flavour, case) for flavour in FLAVOURS for case in for_flavour(CASES, flavour)]


@pytest.mark.parametrize(("flavour", "case"), RUNS, ids=[f"{flavour}-{case.name}" for flavour, case in RUNS])
def test_case(flavour: str, case: Case) -> None:
    with EmbeddedSide(flavour, case.paging) as side:
        try:
            run(case, side)
        finally:
            side.domain.destroy()


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


def test_the_table_names_pagings_that_exist() -> None:
    assert {case.paging for case in CASES} == {"hap", "shadow"}
