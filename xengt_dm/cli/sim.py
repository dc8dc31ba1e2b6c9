"""``xengt-dm sim``: a domain without Xen, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from xengt_dm.cli.guest_options import xen_options
from xengt_dm.cli.types import Domid, Integer
from xengt_dm.errors import ExitCode
from xengt_dm.hypervisor.embedded.shadow_paging import Paging
from xengt_dm.printable import printable
from xengt_dm.sim.process import SimSettings, open_sim
from xengt_dm.sim.programs import GUESTS

_ENDING = {signal.SIGTERM, signal.SIGINT}


def _default_directory() -> Path:
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/run") / "xengt-dm-sim"


@contextmanager
def _ending_blocked() -> Iterator[None]:
    """Threads that are made within never get the signals, so they wait for sigwait()."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@click.command(name="sim", short_help="Run a domain without Xen, for `run --sim`.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the sim has its sockets.  [default: xengt-dm-sim in $XDG_RUNTIME_DIR, or in /run]",
)
@click.option("-d", "--domid", type=Domid(), default=1, show_default=True, help="The domain's id.")
@click.option(
    "--guest",
    type=click.Choice(list(GUESTS)),
    default="idle",
    show_default=True,
    help="What the vCPUs do: nothing; build and change page tables until the end; or execute the instructions that a "
    "test sends to the console.",
)
@xen_options
@click.option(
    "--frames",
    type=Integer(1, 1 << 22),
    default=16384,
    show_default=True,
    help="The domain's memory, in frames of 4 KiB.",
)
@click.option("--vcpus", type=Integer(1, 128), default=2, show_default=True, help="The domain's vCPUs.")
@click.option("--seed", type=Integer(min=0), default=1, show_default=True, help="Seed of the guest's random choices.")
@click.option("--rep-stores", is_flag=True, help="Have every store be one of `rep stos`.")
@click.option("--no-apics", is_flag=True, help="Have the guest leave its local APICs off, so that no MSI reaches it.")
@click.pass_context
def command(
    ctx: click.Context,
    directory: Path | None,
    domid: int,
    guest: str,
    flavour: str,
    paging: str,
    frames: int,
    vcpus: int,
    seed: int,
    rep_stores: bool,
    no_apics: bool,
) -> None:
    """Run a domain of the embedded hypervisor until SIGTERM, for daemons of other processes to serve.

    `run --sim` serves it as it would serve a domain of Xen. The domain and its vCPUs go on when that
    daemon ends, and wait for the next one where they have to. Prints one line when the domain can be served.

    Exit status: 1 if the guest found its memory wrong.
    """
    directory = directory or _default_directory()
    settings = SimSettings(
        domid=domid,
        guest=guest,
        flavour=flavour,
        paging=Paging(paging),
        frames=frames,
        vcpus=vcpus,
        seed=seed,
        rep_stores=rep_stores,
        local_apics=not no_apics,
    )
    with _ending_blocked(), open_sim(directory, settings) as sim:
        click.echo(
            f"domain {domid} runs; serve it with: xengt-dm run --sim {printable(str(directory))} --domid {domid}"
        )
        sys.stdout.flush()
        signal.sigwait(_ENDING)
        fault = sim.guest.progress()["fault"]
    if fault is not None:
        ctx.exit(ExitCode.DIFFERS)
