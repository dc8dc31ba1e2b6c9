"""``xengt-dm mode``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli.client import ask_and_show, instance_options


@click.command("mode")
@click.argument("mode", type=click.Choice(["strict", "relaxed"]), required=False)
@instance_options
def command(mode: str | None, domid: int, base: Path, as_json: bool) -> None:
    """Show when the shadows follow the guest's tables, or switch that to MODE while the guest runs.

    strict: at each store. relaxed: leaf tables at each submission. Holds until the daemon ends or its configuration
    changes.
    """

    def show(answer: dict[str, Any]) -> None:
        click.echo(answer["mode"] if mode is None else f"the shadows of domain {domid} are {answer['mode']} now")

    ask_and_show(base, domid, "mode", as_json, show, **({} if mode is None else {"mode": mode}))
