"""``xengt-dm run``: serve a domain of this host's Xen."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from xengt_dm.daemon import DEFAULT_BAR0, DEFAULT_MAX_TABLES, Settings, run
from xengt_dm.errors import ConfigError
from xengt_dm.observe.log import configure
from xengt_dm.observe.rundir import DEFAULT_BASE
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.vgpu.registers import BAR0_SIZE


class Address(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A number in decimal or, with 0x, in hexadecimal."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is no address; give it like 0xf0000000", param, ctx)


@click.command(name="run", short_help="Serve a domain.")
@click.option("--domid", type=click.IntRange(min=0), required=True, help="The domain to serve.")
@click.option("--bar0", type=Address(), default=hex(DEFAULT_BAR0), show_default=True, help="Guest address of BAR0.")
@click.option(
    "--generation", type=click.Choice(["8", "9"]), default="8", show_default=True, help="Graphics generation."
)
@click.option(
    "--mode",
    type=click.Choice([sync.value for sync in Sync]),
    default="strict",
    show_default=True,
    help="Shadowing mode.",
)
@click.option(
    "--max-tables",
    type=click.IntRange(min=1, max=1 << 24),
    default=DEFAULT_MAX_TABLES,
    show_default=True,
    help="Shadow tables at most; each takes about 4.2 KiB.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_BASE,
    show_default=True,
    help="Where the instance keeps its state.",
)
@click.option("--frame-limit", type=click.IntRange(min=1), help="Frames of the domain, where xenstore cannot tell.")
def command(
    domid: int, bar0: int, generation: str, mode: str, max_tables: int, run_dir: Path, frame_limit: int | None
) -> None:
    """Be the graphics device model of domain DOMID until SIGTERM, or until the domain ends.

    The domain goes on either way. Needs to run in the control domain, as root.
    """
    if bar0 % BAR0_SIZE or not 0 <= bar0 < 1 << 52:
        raise ConfigError(f"--bar0 {bar0:#x}: not a multiple of {BAR0_SIZE:#x} below 2^52, which a 16 MiB BAR must be")
    configure(domid=domid)
    # Imported here, because the Xen libraries may be missing and then the error is about that.
    from xengt_dm.hypervisor.xen import XenPort

    settings = Settings(bar0=bar0, generation=int(generation), sync=Sync(mode), max_tables=max_tables)
    with closing(XenPort(domid, frame_limit=frame_limit)) as port:
        run(port, settings, run_dir)
