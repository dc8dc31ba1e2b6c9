"""The tests with the fixture ``fake`` run in a process that has fakes of Xen's libraries (tests/fakexen/cases.py)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.fakexen import cases
from tests.fakexen.fake import Fake
from xengt_dm.hypervisor.xen.port import XenPort


@pytest.hookimpl(hookwrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, None]:
    made = yield
    found = made.get_result()
    made.force_result([cases.replace(item) for item in found] if isinstance(found, list) else cases.replace(found))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    cases.keep_those_with_fakes(items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    cases.write_down(report)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def port(fake: Fake) -> Iterator[XenPort]:
    with XenPort(7, frame_limit=1 << 20) as opened:
        fake.calls()
        yield opened
