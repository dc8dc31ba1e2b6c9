"""How often a daemon looks at its domain."""

from __future__ import annotations

import pytest

from xengt_dm.daemon.pace import IDLE_SECONDS, Pace


class Loop:
    activity = 0


@pytest.mark.parametrize(("interval", "idle"), [(0.05, 0.2), (0.5, 2.0), (1.0, 2.0), (2.0, 2.0), (60.0, 60.0)])
def test_an_idle_guest_is_looked_at_less_often(interval: float, idle: float) -> None:
    loop = Loop()
    pace = Pace(loop)
    assert pace.pause(interval, unfinished=False) == idle
    loop.activity = 7
    assert pace.pause(interval, unfinished=False) == interval
    assert pace.pause(interval, unfinished=False) == idle
    assert idle == max(interval, min(4 * interval, IDLE_SECONDS))


def test_what_is_unfinished_is_looked_at_soon() -> None:
    pace = Pace(Loop())
    assert [pace.pause(0.05, unfinished=True) for _ in range(5)] == [0.01, 0.02, 0.04, 0.05, 0.05]
    assert pace.pause(0.5, unfinished=False) == 2.0
    assert pace.pause(0.5, unfinished=True) == 0.01
