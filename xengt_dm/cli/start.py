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

    As a unit of systemd where that runs, with the log in the journal; elsewhere as a process with a log of its own in
    /var/log/xengt-dm. There is nothing to do if one serves.
    """
    from xengt_dm.service import instances

    try:
        ask(base, domid, "status")
    except NotRunningError:
        instances.starter().start(domid)
    click.echo(f"domain {domid} is served")
