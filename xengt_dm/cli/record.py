"""``xengt-dm record``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options
from xengt_dm.cli.errors import cannot_write
from xengt_dm.errors import UsageError


@click.command("record")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--stop", is_flag=True, help="End the recording.")
@instance_options
def command(file: Path | None, stop: bool, domid: int, base: Path, as_json: bool) -> None:
    """Record to FILE what a guest does to its GPU's page tables, from now on, for `replay`.

    FILE is replaced if it exists. It is compressed with gzip if its name ends in .gz. You need permission to write it;
    the daemon does not. Without FILE and --stop the command shows what is being recorded.
    """
    if stop and file is not None:
        raise UsageError("--stop takes no FILE; the daemon knows it")
    if file is None:
        ask_and_show(base, domid, "record", as_json, _show, **({"stop": True} if stop else {}))
        return
    try:
        there = file.exists()
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cannot_write(file, error) from error
    try:
        ask_and_show(base, domid, "record", as_json, _show, descriptor=descriptor, file=str(file.absolute()))
    except BaseException:
        if not there:
            with suppress(OSError):
                file.unlink()
        raise
    finally:
        os.close(descriptor)


def _show(answer: dict[str, Any]) -> None:
    events = formatting.count(answer["events"], "event")
    if answer["recording"] is not None:
        click.echo(f"recording to {answer['recording']}, {events} so far")
    elif "file" in answer:
        click.echo(f"recorded {events} to {answer['file']}")
    else:
        click.echo("nothing is being recorded")
