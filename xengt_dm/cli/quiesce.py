"""``xengt-dm quiesce``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options


@click.command("quiesce")
@instance_options
def command(domid: int, base: Path, as_json: bool) -> None:
    """Let go of everything, so that the domain can be saved or migrated; `resume` ends it.

    The guest goes on with its page tables untrapped. Its device still answers, and the address spaces that its driver
    announces and takes back meanwhile are remembered. There are no shadows until `resume`.
    """

    def show(answer: dict[str, Any]) -> None:
        spaces = formatting.count(answer["spaces"], "address space")
        click.echo(f"domain {domid} is quiesced, with {spaces}; go on with: xengt-dm resume --domid {domid}")

    ask_and_show(base, domid, "quiesce", as_json, show)
