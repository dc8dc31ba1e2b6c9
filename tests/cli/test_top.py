"""`xengt-dm top`, on a terminal and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.control import with_server
from tests.support.terminal import PATIENCE, Terminal
from xengt_dm.cli.top import SPARED, Sample, _fitting, _lines
from xengt_dm.control.protocol import SOCKET_NAME


def instance(domid: int, pid: int = 1, **counters: int) -> dict[str, Any]:
    names = "traps store_traps mmio_traps submissions opened_pages syncs spaces tables protected_pages dropped_stores"
    zeros = dict.fromkeys([*names.split(), "audit_mismatches"], 0)
    status = {"pid": pid, "mode": "strict", "state": "serving", "counters": {**zeros, **counters}}
    return {"domid": domid, "state": "serving", "status": status}


def test_rates_are_of_the_time_between_and_the_busiest_comes_first() -> None:
    before = Sample(10.0, [instance(1, store_traps=100, traps=100), instance(2, store_traps=50, traps=50)])
    now = Sample(
        12.0, [instance(1, store_traps=110, traps=110), instance(2, store_traps=1050, traps=1050, tables=1234)]
    )
    head, *rows = _lines(Path("/none"), before, now)
    assert head.split()[:7] == ["DOMID", "STATE", "MODE", "SPACES", "TABLES", "PROT", "STORES/S"]
    assert [row.split()[:7] for row in rows] == [
        ["2", "serving", "strict", "0", "1,234", "0", "500"],
        ["1", "serving", "strict", "0", "0", "0", "5"],
    ]


def test_a_daemon_that_is_new_or_does_not_answer_has_no_rates() -> None:
    before = Sample(10.0, [instance(1, pid=5, store_traps=100)])
    now = Sample(12.0, [instance(1, pid=6, store_traps=3), {"domid": 2, "state": "dead", "status": None}])
    _, first, second = _lines(Path("/none"), before, now)
    assert first.split()[6] == "-"
    assert second.split() == ["2", "dead"]


def test_a_narrow_terminal_has_whole_columns_and_what_is_wrong() -> None:
    sample = Sample(10.0, [instance(1, audit_mismatches=7, dropped_stores=12345)])
    widths = {}
    for width in (120, 80, 40, 30):
        table, spared = _fitting(Path("/none"), sample, sample, width)
        assert table[0].split()[-2:] == ["DROPPED", "BAD"]
        assert table[1].split()[-2:] == ["12,345", "7"]
        assert not {column.rstrip(">") for column in spared} & set(table[0].split())
        widths[width] = (len(table[0]), len(spared))
    assert widths[120][1] == 0
    assert widths[80][0] <= 80
    assert 0 < widths[80][1] < widths[40][1] == len(SPARED)
    assert widths[40][0] <= 40
    assert widths[30] == (28, len(SPARED) + 1), "without the mode, too"


def top(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "xengt_dm", "top", *arguments]


def test_without_a_terminal_it_is_a_table_once(tmp_path: Path) -> None:
    words = top("--run-dir", str(tmp_path), "--interval", "0.1")
    found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert found.stdout == f"no daemon runs (nothing in {tmp_path})\n"
    words += ["--json", "--count", "2"]
    found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert found.stdout == "[]\n[]\n"


@pytest.mark.parametrize("keys", [b"q", b"xQ", b"\x03"], ids=["q", "Q", "ctrl-C"])
def test_on_a_terminal_it_is_live_until_somebody_quits(tmp_path: Path, keys: bytes) -> None:
    (tmp_path / "7").mkdir()
    status = {"status": lambda arguments: instance(7, pid=os.getpid(), tables=4321)["status"]}
    found: list[tuple[int, bytes]] = []

    def watch() -> None:
        terminal = Terminal(*top("--run-dir", str(tmp_path), "--interval", "0.1"))
        terminal.read_until(b"4,321")
        terminal.type(keys)
        found.append((terminal.end(), terminal.output))

    async def body(path: Path) -> None:
        await trio.to_thread.run_sync(watch)

    with_server(tmp_path / "7" / SOCKET_NAME, body, status)
    ((code, output),) = found
    assert code == (130 if keys == b"\x03" else 0)
    assert output.startswith(b"\x1b[?1049h\x1b[?25l")
    assert output.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")
    assert json.dumps("1 daemon   q: quit")[1:-1].encode() in output
