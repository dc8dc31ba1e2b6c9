"""``xengt-dm top``: the daemons of this host, live."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import json_option
from xengt_dm.cli.list import instances
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.cli.screen import BOLD, PLAIN, REVERSE, Screen
from xengt_dm.cli.types import Domid, Integer, Seconds
from xengt_dm.printable import printable

#: Column: what each shows of (counters, rate of each counter a second).
COLUMNS: Final[dict[str, Callable[[dict[str, int], dict[str, float]], str]]] = {
    "SPACES>": lambda now, rate: f"{now['spaces']:,}",
    "TABLES>": lambda now, rate: f"{now['tables']:,}",
    "PROT>": lambda now, rate: f"{now['protected_pages']:,}",
    "STORES/S>": lambda now, rate: _rate(rate, "store_traps"),
    "MMIO/S>": lambda now, rate: _rate(rate, "mmio_traps"),
    "SUBMITS/S>": lambda now, rate: _rate(rate, "submissions"),
    "OPENS/S>": lambda now, rate: _rate(rate, "opened_pages"),
    "SYNCS/S>": lambda now, rate: _rate(rate, "syncs"),
    "DROPPED>": lambda now, rate: f"{now['dropped_stores']:,}",
    "BAD>": lambda now, rate: f"{now['audit_mismatches']:,}",
}
#: The columns that are left out on a narrow terminal, in this order. Those that show a guest's faults always stay.
SPARED: Final = ("OPENS/S>", "SYNCS/S>", "PROT>", "SUBMITS/S>", "SPACES>", "MMIO/S>", "TABLES>", "STORES/S>")
#: The column that is left out after all of these.
LAST_SPARED: Final = "MODE"
#: The fields and counters of a status that are shown.
FIELDS: Final = ("pid", "mode")
COUNTERS: Final = ("spaces", "tables", "protected_pages", "dropped_stores", "audit_mismatches")


@dataclass(frozen=True)
class Sample:
    """The instances as they were at ``seconds``, on a monotonic clock."""

    seconds: float
    instances: list[dict[str, Any]]

    def counters(self, domid: int, pid: int) -> dict[str, int] | None:
        """Returns the counters of the instance of this domain; None if it is not there, or is another process."""
        for each in self.instances:
            if each["domid"] == domid and each["status"] is not None and each["status"]["pid"] == pid:
                found: dict[str, int] = each["status"]["counters"]
                return found
        return None


@click.command("top")
@click.option(
    "--interval",
    type=Seconds(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two updates.",
)
@click.option("--count", "times", type=Integer(min=1), help="End after this number of updates.")
@click.option(
    "-d", "--domid", type=Domid(), multiple=True, help="Show only the daemon of this domain; may be repeated."
)
@run_dir_option
@json_option
def command(interval: float, times: int | None, domid: tuple[int, ...], base: Path, as_json: bool) -> None:
    """Show the daemons of this host, and update the display regularly. `q` or Ctrl-C ends.

    PROT is the number of protected frames. OPENS counts the unsyncs of leaf tables after stores to them, SYNCS the
    unsynced ones that submissions read, DROPPED the stores that were dropped, and BAD the entries that audits found
    wrong. The busiest daemon comes first. Rates are over the time since the previous update. A narrow terminal shows
    fewer columns.

    If standard output is not a terminal, each update is a table, or with --json a line, and there is only one unless
    --count says otherwise.
    """

    def look() -> Sample:
        found = [each for each in instances(base, FIELDS, COUNTERS) if not domid or each["domid"] in domid]
        return Sample(time.monotonic(), found)

    live = sys.stdout.isatty() and not as_json
    rounds: Iterable[int] = count() if live and times is None else range(times or 1)
    with ExitStack() as stack:
        before = look()
        screen = stack.enter_context(Screen()) if live else None
        if screen is not None:
            screen.draw(_page(base, before, before))
        for _ in rounds:
            if screen is None:
                time.sleep(interval)
            elif screen.wait(interval):
                return
            now = look()
            if screen is not None:
                screen.draw(_page(base, before, now))
            elif as_json:
                click.echo(json.dumps([_as_json(before, now, each) for each in now.instances]))
            else:
                for line in _lines(base, before, now):
                    click.echo(line)
            before = now


def _page(base: Path, before: Sample, now: Sample) -> list[str]:
    """The lines that fit the terminal."""
    size = shutil.get_terminal_size()
    table, spared = _fitting(base, before, now, size.columns)
    head = f"xengt-dm top  {time.strftime('%H:%M:%S')}  {formatting.count(len(now.instances), 'daemon')}   q: quit"
    if spared:
        head += f"   if wider: {' '.join(column.rstrip('>') for column in spared)}"
    lines = [BOLD + head[: size.columns] + PLAIN, ""]
    table = [line[: size.columns] for line in table]
    lines += [REVERSE + table[0].ljust(size.columns) + PLAIN, *table[1:]] if now.instances else table
    return lines[: size.lines - 1]


def _fitting(base: Path, before: Sample, now: Sample, width: int) -> tuple[list[str], Sequence[str]]:
    """Returns the lines of the table with as many columns as fit into ``width``, and the columns that were left out."""
    every = (*SPARED, LAST_SPARED)
    for count_spared in range(len(every)):
        table = _lines(base, before, now, every[:count_spared])
        if max(map(len, table)) <= width or not now.instances:
            return table, every[:count_spared]
    return _lines(base, before, now, every), every


def _lines(base: Path, before: Sample, now: Sample, spared: Sequence[str] = ()) -> list[str]:
    """The busiest first; without the columns ``spared``."""
    if not now.instances:
        return [f"no daemon runs (nothing in {printable(str(base))})"]
    rated = [(each, _rates(before, now, each)) for each in now.instances]
    rated.sort(key=lambda pair: (-pair[1].get("traps", 0.0), pair[0]["domid"]))
    columns = [column for column in COLUMNS if column not in spared]
    modes = [] if LAST_SPARED in spared else [LAST_SPARED]
    rows = [
        (
            str(each["domid"]),
            each["state"],
            *[each["status"]["mode"] if each["status"] else "" for _ in modes],
            *(_cells(each, rates, columns) if each["status"] else [""] * len(columns)),
        )
        for each, rates in rated
    ]
    return list(formatting.table(("DOMID>", "STATE", *modes, *columns), rows))


def _cells(instance: dict[str, Any], rates: dict[str, float], columns: Iterable[str]) -> Iterator[str]:
    return (COLUMNS[column](instance["status"]["counters"], rates) for column in columns)


def _rates(before: Sample, now: Sample, instance: dict[str, Any]) -> dict[str, float]:
    """Returns by how much each counter grew per second; nothing for an instance that was not there before."""
    if instance["status"] is None:
        return {}
    old = before.counters(instance["domid"], instance["status"]["pid"])
    seconds = now.seconds - before.seconds
    if old is None or seconds <= 0:
        return {}
    return {name: (value - old.get(name, 0)) / seconds for name, value in instance["status"]["counters"].items()}


def _rate(rates: dict[str, float], name: str) -> str:
    return f"{rates[name]:,.0f}" if name in rates else "-"


def _as_json(before: Sample, now: Sample, instance: dict[str, Any]) -> dict[str, Any]:
    rates = {name: round(rate, 3) for name, rate in _rates(before, now, instance).items()}
    return {**instance, "rates": rates}
