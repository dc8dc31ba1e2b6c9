"""``xengt-dm stop``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from xengt_dm.cli.client import instance_options
from xengt_dm.cli.notice import waiting
from xengt_dm.cli.types import Seconds
from xengt_dm.control import client as control_client
from xengt_dm.control.protocol import ControlError


@click.command("stop")
@click.option(
    "--timeout",
    type=Seconds(min=0, max=86400),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the daemon to end.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for the daemon to end.")
@instance_options
def command(timeout: float, no_wait: bool, domid: int, base: Path, as_json: bool) -> None:
    """Stop the daemon of a domain in order. The domain continues, and stores to its page tables do not trap."""
    longest, what = control_client.patience("stop"), "answered"
    if not no_wait:
        longest, what = longest + timeout, "ended"
    with waiting(domid, longest, what):
        ended = control_client.stop(base, domid, None if no_wait else timeout)
    if not ended:
        raise ControlError(
            f"the daemon of domain {domid} knows that it is to stop, but has not ended within {timeout:g} seconds"
        )
    if as_json:
        click.echo(json.dumps({"domid": domid, "ended": not no_wait}))
    else:
        click.echo(f"the daemon of domain {domid} {'is stopping' if no_wait else 'has stopped'}")
