"""``xengt-dm start``."""

from __future__ import annotations

from pathlib import Path

import click

from xengt_dm.cli.client import domid_option, run_dir_option
from xengt_dm.control.client import NotRunningError, ask


@click.command("start")
@domid_option
@run_dir_option
def command(domid: int, base: Path) -> None:
    """Start the instance of a domain in the background and wait until it serves.

    Where systemd runs, the instance is a unit and its log is in the journal. Elsewhere it is a process whose log is in
    /var/log/xengt-dm. If an instance already serves the domain, the command does nothing.
    """
    from xengt_dm.service import instances

    try:
        ask(base, domid, "status")
    except NotRunningError:
        instances.starter().start(domid)
    click.echo(f"domain {domid} is served")
