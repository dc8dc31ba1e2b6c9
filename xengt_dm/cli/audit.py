"""``xengt-dm audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import words
from xengt_dm.cli.asking import ask_and_show, instance_options
from xengt_dm.errors import ExitCode


@click.command("audit")
@instance_options
@click.pass_context
def command(context: click.Context, domid: int, base: Path, as_json: bool) -> None:
    """Compare every shadow table with the guest's own, entry by entry.

    Exit status: 0 if they agree, 70 if not.
    """
    audit = ask_and_show(base, domid, "audit", as_json, _show)
    if audit["audit_mismatches"]:
        context.exit(ExitCode.INTERNAL)


def _show(audit: dict[str, Any]) -> None:
    spaces = audit["spaces"]
    if not spaces:
        click.echo("no address space is live")
        return
    rows = [(space["mode"], words.root(space["root"]), f"{space['mismatches']:,}") for space in spaces]
    for line in words.table(("MODE", "ROOT", "MISMATCHES>"), rows):
        click.echo(line)
    mismatches = audit["audit_mismatches"]
    if mismatches:
        click.echo(f"{words.count(mismatches, 'entry', 'entries')} of the shadow and the guest's tables differ")
    else:
        click.echo(f"{words.count(len(spaces), 'space')}: the shadow says what the guest's tables say")
