"""``xengt-dm audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options
from xengt_dm.errors import ExitCode


@click.command("audit")
@instance_options
@click.pass_context
def command(context: click.Context, domid: int, base: Path, as_json: bool) -> None:
    """Compare every shadow table with the guest's own, entry by entry.

    OVERDUE are directory entries that map nothing yet though nothing stands in their way.

    Exit status: 0 if they agree and none is overdue, 1 if not.
    """
    audit = ask_and_show(base, domid, "audit", as_json, _show)
    if audit["audit_mismatches"] or audit["audit_overdue"]:
        context.exit(ExitCode.DIFFERS)


def _show(audit: dict[str, Any]) -> None:
    spaces = audit["spaces"]
    if not spaces:
        click.echo("no address space is live")
        return
    rows = [
        (space["mode"], formatting.root(space["root"]), f"{space['mismatches']:,}", f"{space['overdue']:,}")
        for space in spaces
    ]
    for line in formatting.table(("MODE", "ROOT", "MISMATCHES>", "OVERDUE>"), rows):
        click.echo(line)
    mismatches, overdue = audit["audit_mismatches"], audit["audit_overdue"]
    if mismatches:
        click.echo(f"{formatting.count(mismatches, 'entry', 'entries')} of the shadow and the guest's tables differ")
    if overdue:
        click.echo(f"{formatting.count(overdue, 'entry', 'entries')} of the shadow should map something by now")
    if not mismatches and not overdue:
        click.echo(f"{formatting.count(len(spaces), 'space')}: the shadow says what the guest's tables say")
