"""What the commands that ask a daemon have in common: their options, and the asking."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from xengt_dm.cli.notice import waiting
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.cli.types import Domid
from xengt_dm.control.client import LONG, SILENCE_SECONDS, ask, patience
from xengt_dm.control.protocol import ControlError

F = TypeVar("F", bound=Callable[..., Any])


def domid_option(function: F) -> F:
    """Adds ``--domid``, which is required. Returns the function."""
    return click.option("-d", "--domid", type=Domid(), required=True, help="The domain that the daemon serves.")(
        function
    )


def json_option(function: F) -> F:
    """Adds ``--json``, the parameter ``as_json``. Returns the function."""
    return click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(function)


def sync_option(function: F) -> F:
    """--sync, for commands that read shadows."""
    return click.option(
        "--sync", is_flag=True, help="Sync the shadows first, as a submission would; without it nothing is changed."
    )(function)


def instance_options(function: F) -> F:
    """--domid, --run-dir and --json."""
    return domid_option(run_dir_option(json_option(function)))


def ask_and_show(
    base: Path, domid: int, command: str, as_json: bool, show: Callable[[Any], None], **arguments: Any
) -> Any:
    """Asks a daemon, and shows the result as JSON or through ``show``. Returns the result.

    Raises as :func:`xengt_dm.control.client.ask`, and ControlError for an answer that cannot be shown.
    """
    long = command in LONG
    with waiting(domid, patience(command), *(("ended its answer", SILENCE_SECONDS) if long else ())):
        result = ask(base, domid, command, **arguments)
    if as_json:
        click.echo(json.dumps(result))
        return result
    try:
        show(result)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ControlError(
            f"the daemon of domain {domid} answers in a way that this command does not understand: {error}"
        ) from error
    return result


def parse_va(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """The value of an argument that is a GPU address."""
    return _address(value, 48)


def parse_root(context: click.Context, parameter: click.Parameter, value: str | None) -> int | list[int] | None:
    """The value of an option that names an address space: one root address, or four with commas between."""
    if value is None:
        return None
    roots = [_address(each.strip(), 64) for each in value.split(",")]
    if len(roots) not in (1, 4):
        raise click.BadParameter(f"{len(roots)} addresses: an l4 space has one root, an l3 space has four")
    return roots[0] if len(roots) == 1 else roots


def _address(text: str, bits: int) -> int:
    try:
        address = int(text, 0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no address: decimal, or hexadecimal with 0x") from None
    if not 0 <= address < 1 << bits:
        raise click.BadParameter(f"{text} is no address of {bits} bits")
    return address
