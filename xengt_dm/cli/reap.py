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
    """Clear up after a daemon that has ended, and that no other is going to follow.

    What its guest waits for is answered, what it had protected is released, and its server is taken out of Xen: the
    guest goes on, untrapped. Of a domain that is gone, what was remembered for its instance is forgotten. There is
    nothing to do after an orderly end. A daemon that still serves is an error.
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
    from xengt_dm.daemon.main import Settings, open_instance
    from xengt_dm.hypervisor.xen.port import XenPort
    from xengt_dm.run_dir.directory import open_directory
    from xengt_dm.service import sandbox

    with closing(XenPort(domid, restrict=True)) as port:
        directory = open_directory(base, domid)
        sandbox.enter(domid, directory)
        with open_instance(port, Settings.from_config(Config([])), record=ServerIdFile(directory), directory=directory):
            pass
