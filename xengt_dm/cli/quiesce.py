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
    """Unprotect all pages and free all shadows, so that the domain can be saved or migrated. `resume` ends this.

    The guest continues, and stores to its page tables do not trap. The device still answers, and the address spaces
    that the driver announces and destroys meanwhile are remembered. There are no shadows until `resume`.
    """

    def show(answer: dict[str, Any]) -> None:
        spaces = formatting.count(answer["spaces"], "address space")
        click.echo(f"domain {domid} is quiesced, with {spaces}; go on with: xengt-dm resume --domid {domid}")

    ask_and_show(base, domid, "quiesce", as_json, show)
