"""``xengt-dm audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options, sync_option
from xengt_dm.errors import ExitCode


@click.command("audit")
@sync_option
@instance_options
@click.pass_context
def command(context: click.Context, sync: bool, domid: int, base: Path, as_json: bool) -> None:
    """Compare every shadow table with the guest's own, entry by entry.

    Tables that may be out of sync are left out, and UNSYNCED counts them: leaf tables that are unsynced (relaxed mode),
    and tables that must be checked again because the guest gave frames back. --sync compares them, too. OVERDUE, which
    only --sync finds, are directory entries that map nothing although their frame is RAM, the quota has room, and Xen
    refused nothing.

    Exit status: 0 if they agree and none is overdue, 1 if not.
    """
    audit = ask_and_show(base, domid, "audit", as_json, _show, sync=sync)
    if audit["audit_mismatches"] or audit["audit_overdue"]:
        context.exit(ExitCode.DIFFERS)


def _show(audit: dict[str, Any]) -> None:
    spaces = audit["spaces"]
    if not spaces:
        click.echo("no address space is live")
        return
    counts = ("mismatches", "overdue", "unsynced")
    rows = [
        (space["mode"], formatting.root(space["root"]), *(f"{space.get(name, 0):,}" for name in counts))
        for space in spaces
    ]
    for line in formatting.table(("MODE", "ROOT", *(f"{name.upper()}>" for name in counts)), rows):
        click.echo(line)
    mismatches, overdue = audit["audit_mismatches"], audit["audit_overdue"]
    unsynced = audit.get("audit_unsynced", 0)  # a daemon of an earlier version leaves it out
    if mismatches:
        click.echo(f"{formatting.count(mismatches, 'entry', 'entries')} of the shadow and the guest's tables differ")
    if overdue:
        click.echo(f"{formatting.count(overdue, 'entry', 'entries')} of the shadow should map something by now")
    if unsynced:
        click.echo(f"{formatting.count(unsynced, 'table')} left out that may be out of sync; --sync compares them, too")
    if not mismatches and not overdue:
        click.echo(f"{formatting.count(len(spaces), 'space')}: the shadow says what the guest's tables say")
