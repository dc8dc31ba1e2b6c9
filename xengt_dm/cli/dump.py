"""``xengt-dm dump``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options, sync_option


@click.command("dump")
@sync_option
@instance_options
def command(sync: bool, domid: int, base: Path, as_json: bool) -> None:
    """Show everything that a domain's GPU has mapped, by address space.

    CACHE is 4*PAT + 2*PCD + PWT of the entry. The shadows are shown as they are, or with --sync as if just submitted.
    Each space is audited as well, but only the exit status of `audit` depends on that.
    """
    dump = ask_and_show(base, domid, "dump", as_json, _show, sync=sync)
    if dump["audit_mismatches"]:
        mismatches = formatting.count(dump["audit_mismatches"], "entry", "entries")
        click.echo(f"xengt-dm: the audit found {mismatches} that differ from the guest's tables", err=True)


def _show(dump: dict[str, Any]) -> None:
    if not dump["spaces"]:
        click.echo("no address space is live")
    for number, space in enumerate(dump["spaces"]):
        if number:
            click.echo()
        _show_space(space)


def _show_space(space: dict[str, Any]) -> None:
    name = f"{space['mode']} {formatting.root(space['root'])}"
    mappings = space["mappings"]
    if mappings is None:
        click.echo(f"{name}: too many mappings to list")
        return
    mapped = formatting.size(sum(length for _, length, _, _, _ in mappings))
    click.echo(f"{name}: {formatting.count(len(mappings), 'mapping')}, {mapped}")
    if mappings:
        rows = (
            (f"{va:#x}", formatting.size(length), f"{gpa:#x}", formatting.access(writable), str(cache))
            for va, length, gpa, writable, cache in mappings
        )
        for line in formatting.table(("VA>", "LENGTH>", "GPA>", "ACCESS", "CACHE>"), rows):
            click.echo(line)
