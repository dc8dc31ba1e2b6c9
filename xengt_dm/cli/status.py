"""``xengt-dm status``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import ask_and_show, instance_options
from xengt_dm.control.answers import check_status

#: What is shown besides the counters.
FIELDS: Final = ("state", "uptime_seconds", "version", "pid", "mode", "generation", "vcpus", "server")
#: What a driver that works well does not cause.
ODD: Final = {
    "ignored": "lists ignored",
    "faults": "accesses to what is not mapped",
    "denied": "accesses without privilege",
    "errors": "commands that nobody can decode",
}


@click.command("status")
@instance_options
def command(domid: int, base: Path, as_json: bool) -> None:
    """Show the state of a domain's daemon, and its counters."""
    ask_and_show(base, domid, "status", as_json, lambda status: _show(check_status(status, domid, FIELDS)))


def _show(status: dict[str, Any]) -> None:
    click.echo(
        f"domain {status['domid']}: served for {formatting.duration(status['uptime_seconds'])} "
        f"by xengt-dm {status['version']}, process {status['pid']}"
    )
    if status["state"] == "quiesced":
        click.echo(f"QUIESCED, nothing is shadowed; go on with: xengt-dm resume --domid {status['domid']}")
    click.echo(
        f"{status['mode']} shadows, generation {status['generation']}, {formatting.count(status['vcpus'], 'vCPU')}, "
        f"ioreq server {status['server']}"
    )
    if status.get("state_refused") is not None:
        click.echo(f"the device started anew, without the state that a dead daemon left: {status['state_refused']}")
    if status.get("recording") is not None:
        click.echo(f"recording to {status['recording']}")
    elif (cut := status.get("recording_cut")) is not None:
        click.echo(f"the recording to {cut['file']} ended by itself: {cut['reason']}")
    if (served := status.get("served")) is not None:
        click.echo(
            f"{served['in_c']:,} requests served in C and {served['in_python']:,} in Python, "
            f"in {formatting.count(served['bursts'], 'burst')}"
        )
    if (gpu := status.get("gpu")) is not None:
        click.echo(
            f"GPU: {formatting.count(gpu['lists'], 'list')} submitted, {formatting.count(gpu['contexts'], 'context')} "
            f"loaded, {formatting.count(gpu['commands'], 'command')} executed, {gpu['events']:,} events and "
            f"{formatting.count(gpu['interrupts'], 'interrupt')}"
        )
        odd = [f"{gpu[name]:,} {text}" for name, text in ODD.items() if gpu[name]]
        if odd:
            click.echo(f"GPU: {', '.join(odd)}")
    click.echo()
    counters: dict[str, int] = status["counters"]
    rows = [(name, f"{value:,}") for name, value in counters.items() if value]
    for line in formatting.table(("COUNTER", "VALUE>"), rows):
        click.echo(line)
    zeros = len(counters) - len(rows)
    if zeros:
        click.echo(f"{formatting.count(zeros, 'more counter')} at 0")
