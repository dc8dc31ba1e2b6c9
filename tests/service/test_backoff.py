"""How long a daemon waits that would otherwise be started again and again."""

from __future__ import annotations

import pytest

from xengt_dm.errors import BusyError, ConfigError, DomainGoneError, HostError
from xengt_dm.service.backoff import FAILURE_SECONDS, FREE, LONGEST, delay, waiting_after_failure
from xengt_dm.service.notify import Notifier


def test_deaths_in_a_row() -> None:
    assert [delay(deaths) for deaths in range(FREE + 1)] == [0.0] * (FREE + 1)
    later = [delay(FREE + more) for more in range(1, 8)]
    assert later == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST]
    assert delay((1 << 64) - 1) == LONGEST


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (HostError("xs_read", 3, 110), True),
        (BusyError("locked"), True),
        (ZeroDivisionError(), True),
        (ExceptionGroup("both", [HostError("a", 3, 5), HostError("b", 3, 5)]), True),
        (ConfigError("wrong"), False),
        (DomainGoneError("map", 3, 3), False),
        (HostError("open", 3, 13), False),  # not permitted
    ],
    ids=repr,
)
def test_an_error_that_a_restart_follows(error: Exception, waits: bool) -> None:
    slept: list[float] = []
    with pytest.raises(type(error)), waiting_after_failure(Notifier({}), slept.append):
        raise error
    assert slept == ([FAILURE_SECONDS] if waits else [])


def test_an_end_without_an_error() -> None:
    slept: list[float] = []
    with waiting_after_failure(Notifier({}), slept.append):
        pass
    assert slept == []
