"""``xengt-dm spaces``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options


@click.command("spaces")
@instance_options
def command(domid: int, base: Path, as_json: bool) -> None:
    """List the address spaces that the guest's driver has announced, by the addresses of their root tables.

    REFS is how often the driver has announced the space, minus how often it has destroyed it.
    """
    ask_and_show(base, domid, "spaces", as_json, _show)


def _show(spaces: list[dict[str, Any]]) -> None:
    if not spaces:
        click.echo("no address space is live")
        return
    rows = [(space["mode"], formatting.root(space["root"]), str(space["refs"])) for space in spaces]
    for line in formatting.table(("MODE", "ROOT", "REFS>"), rows):
        click.echo(line)
