"""The counters as Python numbers."""

from __future__ import annotations

from xengt_dm._core import ffi
from xengt_dm.stats.counters import read_counters


def test_counters_by_name() -> None:
    counters = ffi.new("xd_counters *", {"store_traps": 3, "mmio_traps": 4, "audits": 9})
    named = read_counters(counters)
    assert (named["traps"], named["store_traps"], named["mmio_traps"], named["audits"]) == (7, 3, 4, 9)
    assert all(isinstance(value, int) for value in named.values())
