"""``xengt-dm mode``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli.client import ask_and_show, instance_options


@click.command("mode")
@click.argument("mode", type=click.Choice(["strict", "relaxed"]), metavar="[MODE]", required=False)
@instance_options
def command(mode: str | None, domid: int, base: Path, as_json: bool) -> None:
    """Show the mode of the shadows, or switch to MODE while the guest runs.

    strict: a shadow is updated at each store to its guest table. relaxed: most leaf tables are unsynced, the guest
    stores to them without traps, and their shadows are updated at each submission. The mode lasts until the daemon is
    stopped, or a reload finds another value of shadow.mode. A successor of a daemon that died, or that `upgrade`
    replaced, keeps it.
    """

    def show(answer: dict[str, Any]) -> None:
        click.echo(answer["mode"] if mode is None else f"the shadows of domain {domid} are {answer['mode']} now")

    ask_and_show(base, domid, "mode", as_json, show, **({} if mode is None else {"mode": mode}))
