"""``xengt-dm resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options


@click.command("resume")
@instance_options
def command(domid: int, base: Path, as_json: bool) -> None:
    """Protect the page tables of a quiesced domain and shadow them again.

    Exit status: 69 if Xen does not allow it now, for example during a migration. Nothing has changed then.
    """

    def show(answer: dict[str, Any]) -> None:
        click.echo(f"domain {domid} is served again, with {formatting.count(answer['spaces'], 'address space')}")

    ask_and_show(base, domid, "resume", as_json, show)
