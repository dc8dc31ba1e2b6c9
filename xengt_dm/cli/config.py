"""``xengt-dm config``: shows and checks the configuration without a daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import json_option
from xengt_dm.cli.options import check_name, config_dir_option, set_option, settings_of
from xengt_dm.config import example
from xengt_dm.config.files import Assignment, read_file
from xengt_dm.config.keys import show
from xengt_dm.config.merge import Config, domain_files, host_file, load
from xengt_dm.errors import ConfigError, ExitCode
from xengt_dm.printable import printable


@click.group("config")
def command() -> None:
    """Show and check the configuration: the host's file, the files of domains, and the values in effect."""


@command.command("show")
@click.option(
    "--name",
    metavar="NAME",
    help="Show the values for the domain of this name. Without it: for a domain that has no file.",
)
@config_dir_option
@set_option
@json_option
def show_command(name: str | None, config_dir: Path, sets: tuple[str, ...], as_json: bool) -> None:
    """Show the value of each key and where it comes from.

    These are the values that a daemon would have if it were started now. A running daemon may have others.
    """
    if name is not None:
        file = check_name(config_dir, name)
        if not os.path.lexists(file):
            click.echo(f"there is no {printable(str(file))}, so this is what any domain without a file gets", err=True)
    settings = load(config_dir, name, settings_of(sets)).settings
    if as_json:
        click.echo(json.dumps({each: {"value": s.value, "origin": s.origin} for each, s in settings.items()}))
        return
    rows = [(each, show(s.key, s.value), s.origin) for each, s in settings.items()]
    for line in formatting.table(("KEY", "VALUE", "FROM"), rows):
        click.echo(line)


@command.command("check")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@config_dir_option
@json_option
@click.pass_context
def check_command(context: click.Context, files: tuple[Path, ...], config_dir: Path, as_json: bool) -> None:
    """Check FILES, or the host's file and the files of all domains.

    Exit status: 0 if all files are good, 78 if not.
    """
    chosen = [*files] or [path for path in (host_file(config_dir), *domain_files(config_dir)) if os.path.lexists(path)]
    found = {path: _complaints(path, config_dir) for path in chosen}
    if as_json:
        click.echo(json.dumps([{"file": str(path), "complaints": said} for path, said in found.items()]))
    elif not found:
        click.echo(f"no files in {printable(str(config_dir))}; the defaults hold")
    else:
        for path, complaints in found.items():
            for line in complaints or [f"{path}: good"]:
                click.echo(printable(line))
    if any(found.values()):
        context.exit(ExitCode.CONFIG)


@command.command("example")
def example_command() -> None:
    """Print the host's file with every key, commented out, at its default."""
    click.echo(example.text(), nl=False)


def _complaints(path: Path, directory: Path) -> list[str]:
    """What is wrong with a file, by itself and, for a domain's, with the host's file beneath it."""
    of_domain = path in domain_files(directory)
    try:
        own = read_file(path, of_domain=of_domain)
        if own is None:
            return [f"{path}: there is no such file"]
        Config([*(_beneath(directory) if of_domain else []), *own])
    except ConfigError as error:
        return str(error).splitlines()
    return []


def _beneath(directory: Path) -> list[Assignment]:
    """What the host's file says; nothing if it is bad, which is its own complaint."""
    try:
        return read_file(host_file(directory)) or []
    except ConfigError:
        return []
