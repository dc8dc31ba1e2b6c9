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
    """Shadow a domain again that was quiesced.

    Exit status 69, and nothing changed, while Xen does not allow it, as during a migration.
    """

    def show(answer: dict[str, Any]) -> None:
        click.echo(f"domain {domid} is served again, with {formatting.count(answer['spaces'], 'address space')}")

    ask_and_show(base, domid, "resume", as_json, show)
