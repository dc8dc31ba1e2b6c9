"""``xengt-dm walk``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options, parse_root, parse_va, sync_option


@click.command("walk")
@click.argument("va", callback=parse_va)
@click.option("--mode", type=click.Choice(["l4", "l3"]), help="In spaces of this mode only.")
@click.option(
    "--root",
    callback=parse_root,
    metavar="ADDRESS",
    help="In the space with this root only; for l3, the four with commas between.",
)
@sync_option
@instance_options
def command(
    va: int, mode: str | None, root: int | list[int] | None, sync: bool, domid: int, base: Path, as_json: bool
) -> None:
    """Resolve the GPU address VA in each address space, as the GPU would.

    VA is decimal, or hexadecimal with 0x. CACHE is 4*PAT + 2*PCD + PWT of the entry that maps it. The answer is that of
    the shadows as they are: as of the last submission where the guest has changed its tables since (relaxed mode).
    """
    arguments = {name: value for name, value in (("mode", mode), ("root", root)) if value is not None}
    ask_and_show(base, domid, "walk", as_json, _show, va=va, sync=sync, **arguments)


def _show(answer: dict[str, Any]) -> None:
    if not answer["spaces"]:
        click.echo("no address space is live")
        return
    rows = [(space["mode"], formatting.root(space["root"]), *_page(space["page"])) for space in answer["spaces"]]
    click.echo(f"va {answer['va']:#x}")
    for line in formatting.table(("MODE", "ROOT", "GPA>", "ACCESS", "CACHE>"), rows):
        click.echo(line)


def _page(page: dict[str, int] | None) -> tuple[str, str, str]:
    if page is None:
        return "not mapped", "", ""
    return f"{page['gpa']:#x}", formatting.access(page["writable"]), str(page["cache"])
