"""``xengt-dm reap``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from xengt_dm.cli.client import domid_option, run_dir_option
from xengt_dm.control.client import NotRunningError, ask
from xengt_dm.errors import ConfigError
from xengt_dm.run_dir.directory import instance_directory
from xengt_dm.run_dir.server_id import ServerIdFile


@click.command("reap")
@domid_option
@run_dir_option
def command(domid: int, base: Path) -> None:
    """Clean up after a daemon that died and will not be restarted.

    The requests that wait are answered, the protected pages are unprotected, and the ioreq server is destroyed: the
    guest continues without traps. If the domain is gone, the options that were remembered for its instance are removed.
    After an orderly end there is nothing to do. If a daemon still serves the domain, the command fails.
    """
    from xengt_dm.service import instances
    from xengt_dm.xenstore import XenStore

    try:
        ask(base, domid, "status")
        raise ConfigError(f"domain {domid} is served: stop that first: xengt-dm stop --domid {domid}")
    except NotRunningError:
        pass
    with XenStore() as store:
        gone = not store.exists(f"/local/domain/{domid}")
    directory = instance_directory(base, domid)
    if gone:
        instances.forget(domid)
        click.echo(f"domain {domid} is gone; nothing of it is left")
    elif ServerIdFile(directory).read() is None:
        click.echo(f"nothing of a daemon is left in domain {domid}")
    else:
        _release(domid, base)
        click.echo(f"released domain {domid} from what a daemon had left")


def _release(domid: int, base: Path) -> None:
    """Follow the dead daemon, and end in order at once."""
    from xengt_dm.config.merge import Config
    from xengt_dm.hypervisor.xen.port import XenPort
    from xengt_dm.instance import Settings, open_instance
    from xengt_dm.run_dir.directory import open_directory
    from xengt_dm.run_dir.ranges import RangesFile
    from xengt_dm.service import sandbox

    with closing(XenPort(domid, restrict=True)) as port:
        directory = open_directory(base, domid)
        sandbox.enter(domid, directory)
        settings, record, ranges = Settings.from_config(Config([])), ServerIdFile(directory), RangesFile(directory)
        with open_instance(port, settings, record=record, ranges=ranges, directory=directory):
            pass
