"""``xengt-dm protected``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options


@click.command("protected")
@instance_options
def command(domid: int, base: Path, as_json: bool) -> None:
    """List the guest's page tables that are shadowed, by frame and level.

    LEVEL 1 is a leaf table, 2 to 4 are directories. REFS counts the entries and roots that name the table. STATE is
    `protected` if each store to the table traps, and `unsynced` if none does, and each submission reads the table
    (relaxed mode).
    """
    ask_and_show(base, domid, "protected", as_json, _show)


def _show(answer: dict[str, Any]) -> None:
    tables = sorted(answer["tables"], key=lambda table: (table["gfn"], -table["level"]))
    if not tables:
        click.echo("no page table is shadowed")
        return
    rows = [
        (
            f"{table['gfn']:#x}",
            str(table["level"]),
            f"{table['refs']:,}",
            "unsynced" if _is_unsynced(table) else "protected",
        )
        for table in tables
    ]
    for line in formatting.table(("GFN>", "LEVEL>", "REFS>", "STATE"), rows):
        click.echo(line)
    frames = {table["gfn"] for table in tables}
    unsynced = {table["gfn"] for table in tables if _is_unsynced(table)}
    click.echo(
        f"{formatting.count(len(tables), 'table')} in {formatting.count(len(frames), 'frame')}: "
        f"{len(frames) - len(unsynced):,} protected, {len(unsynced):,} unsynced"
    )


def _is_unsynced(table: dict[str, Any]) -> bool:
    """A daemon of an earlier version has the older name of the key only."""
    return bool(table.get("unsynced", table["open"]))
