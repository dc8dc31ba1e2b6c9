"""``xengt-dm start``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xengt_dm.cli.client import domid_option
from xengt_dm.cli.notice import waiting
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.control.client import NotRunningError, ask, patience
from xengt_dm.errors import HostError

if TYPE_CHECKING:
    from xengt_dm.service import instances


@click.command("start")
@domid_option
@run_dir_option
@click.option(
    "--sim",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Serve a domain of `xengt-dm sim --dir DIR`, by a process whose log is in DIR.",
)
def command(domid: int, base: Path, sim: Path | None) -> None:
    """Start the instance of a domain in the background and wait until it serves.

    Where systemd runs, the instance is a unit and its log is in the journal. Elsewhere it is a process whose log is in
    /var/log/xengt-dm. If an instance already serves the domain, the command does nothing.
    """
    try:
        with waiting(domid, patience("status")):
            ask(base, domid, "status")
    except NotRunningError:
        if sim is None:
            _check_launch(domid)
        starter_of(sim, base).start(domid)
    click.echo(f"domain {domid} is served")


def starter_of(sim: Path | None, base: Path) -> instances.Starter:
    """What starts the instances of this host, or those of a sim; the options of a launch on Xen are not for these."""
    from xengt_dm.service import instances

    if sim is None:
        return instances.starter()
    directory = sim.absolute()
    command = [sys.executable, "-m", "xengt_dm", "run", "--sim", str(directory), "--run-dir", str(base.absolute())]
    return instances.Spawner(command, launch=directory / "launch", logs=directory)


def _check_launch(domid: int) -> None:
    """See to it that the instance gets the options that this domain was launched with, and those of no other domain.

    `create` hands them down in the environment of xl, for a wrapper in QEMU's place to come here with.
    """
    from xengt_dm.service import domains, instances, launched
    from xengt_dm.xenstore import XenStore

    try:
        with XenStore() as store:
            uuid = domains.uuid_of(store, domid)
    except HostError:
        uuid = None
    words = os.environ.get(launched.VARIABLE, "").split()
    if words:
        instances.remember_words(domid, words, uuid=uuid)
    elif uuid is not None:
        instances.forget_others(domid, uuid)
