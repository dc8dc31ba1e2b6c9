"""``xengt-dm registers``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, json_option
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.cli.types import Domid


@click.command("registers")
@click.argument("domid", type=Domid(), metavar="DOMAIN")
@click.argument("pattern", required=False)
@run_dir_option
@json_option
def command(domid: int, pattern: str | None, base: Path, as_json: bool) -> None:
    """Show the registers of a domain's GPU by name, with their fields.

    PATTERN is a part of a name, a name with `*` and `?` in it, or an offset, such as 0x2030; without it all registers
    are shown. Names of the registers of an engine begin with the engine's, such as rcs0.RING_TAIL, and those of PCI
    configuration space with pci. Of the fields, those that are zero are left out. Nothing that the guest could see
    changes.
    """
    arguments = {} if pattern is None else {"pattern": pattern}
    ask_and_show(base, domid, "registers", as_json, _show, **arguments)


def _show(registers: list[dict[str, Any]]) -> None:
    rows = [
        (
            f"{register['offset']:#x}",
            register["name"],
            f"{register['value']:#0{2 * register['size'] + 2}x}",
            " ".join(filter(None, map(_field, register["fields"]))),
        )
        for register in registers
    ]
    for line in formatting.table(("OFFSET>", "NAME", "VALUE>", "FIELDS"), rows):
        click.echo(line)


def _field(field: dict[str, Any]) -> str:
    """``NAME`` of a bit that is set, ``NAME=VALUE`` of more, with what the value means; nothing of zero."""
    value, meaning = field["value"], field["meaning"]
    if meaning is not None:
        return f"{field['name']}={value:#x} ({meaning})"
    if not value:
        return ""
    return str(field["name"]) if field["high"] == field["low"] else f"{field['name']}={value:#x}"
