"""``xengt-dm record``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options
from xengt_dm.cli.errors import cannot_write
from xengt_dm.cli.types import Integer
from xengt_dm.config.keys import KEYS
from xengt_dm.errors import UsageError

_MIB: Final = KEYS["record.max_mib"]
_MINUTES: Final = KEYS["record.max_minutes"]


@click.command("record")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--stop", is_flag=True, help="End the recording.")
@click.option(
    "--max-mib",
    type=Integer(_MIB.low, _MIB.high),
    metavar="MIB",
    help=f"End by itself when FILE has this size; the daemon's {_MIB.name} by default, which is {_MIB.default}.",
)
@click.option(
    "--max-minutes",
    type=Integer(_MINUTES.low, _MINUTES.high),
    metavar="MINUTES",
    help=f"End by itself after this time; the daemon's {_MINUTES.name} by default, which is {_MINUTES.default}.",
)
@instance_options
def command(
    file: Path | None,
    stop: bool,
    max_mib: int | None,
    max_minutes: int | None,
    domid: int,
    base: Path,
    as_json: bool,
) -> None:
    """Record to FILE what a guest does to its GPU's page tables, from now on, for `replay`.

    FILE is replaced if it exists. It must be a regular file, and is compressed with gzip if its name ends in .gz. You
    need permission to write it; the daemon does not. Without FILE and --stop the command shows what is being recorded.

    The recording never keeps the guest waiting. It ends by itself at its bounds, when FILE cannot be written, and when
    FILE cannot keep up with the guest. The log, `status` and --stop report that, and FILE is a valid trace that ends
    there.
    """
    if stop and file is not None:
        raise UsageError("--stop takes no FILE; the daemon knows it")
    bounds = {"max_mib": max_mib, "max_minutes": max_minutes}
    given = {name: value for name, value in bounds.items() if value is not None}
    if file is None:
        if given:
            raise UsageError("--max-mib and --max-minutes go with a FILE to record to")
        ask_and_show(base, domid, "record", as_json, _show, **({"stop": True} if stop else {}))
        return
    try:
        there = file.exists()
        # To open a FIFO would wait for its reader; the daemon refuses what is not a regular file.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise cannot_write(file, error) from error
    try:
        name = str(file.absolute())
        ask_and_show(base, domid, "record", as_json, _show, descriptor=descriptor, file=name, **given)
    except BaseException:
        if not there:
            with suppress(OSError):
                file.unlink()
        raise
    finally:
        os.close(descriptor)


def _show(answer: dict[str, Any]) -> None:
    if answer["events"] is None:  # who recorded is dead
        click.echo(f"the recording to {answer['file']} ended by itself: {answer['reason']}")
        return
    events = formatting.count(answer["events"], "event")
    if answer["recording"] is not None:
        click.echo(f"recording to {answer['recording']}, {events} so far")
    elif "file" in answer:
        click.echo(f"recorded {events} to {answer['file']}")
        if answer.get("reason"):
            click.echo(f"the recording ended by itself: {answer['reason']}")
        elif not answer.get("complete", True):
            click.echo("the file is still being written")
    else:
        click.echo("nothing is being recorded")
