"""``xengt-dm replay``: runs a trace on the embedded hypervisor."""

from __future__ import annotations

from pathlib import Path

import click

from xengt_dm.cli.types import Integer
from xengt_dm.control.json_stream import LazyList, json_pieces
from xengt_dm.errors import DataError, ExitCode
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS
from xengt_dm.instance import DEFAULT_MAX_TABLES
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.sim.replay import replay
from xengt_dm.trace.read import read_trace


@click.command(name="replay", short_help="Run a trace on the embedded hypervisor.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--mode",
    type=click.Choice([sync.value for sync in Sync]),
    default="strict",
    show_default=True,
    help="Mode of the shadows.",
)
@click.option("--dump", "dump_path", type=click.Path(path_type=Path), help="Write dumps and counters here, as JSON.")
@click.option(
    "--max-tables",
    type=Integer(min=1, max=1 << 24),
    default=DEFAULT_MAX_TABLES,
    show_default=True,
    help="The quota of shadow tables.",
)
@click.option("--xen", "flavour", type=click.Choice(list(FLAVOURS)), default="4.17", hidden=True)
@click.pass_context
def command(ctx: click.Context, file: Path, mode: str, dump_path: Path | None, max_tables: int, flavour: str) -> None:
    """Run the trace FILE through the whole path, from a guest's store to the shadow, and audit at every dump.

    Exit status: 65 if FILE is not a trace, 1 if an audit found a shadow table that differs from the guest's table.
    """
    header, events = read_trace(file)
    outcome = replay(header, events, sync=Sync(mode), max_tables=max_tables, flavour=flavour)
    if dump_path is not None:
        try:
            with dump_path.open("wb") as out:
                dumps = ({**dump, "spaces": LazyList(iter(dump["spaces"]))} for dump in outcome.dumps)
                out.writelines(json_pieces({"dumps": LazyList(dumps), "counters": outcome.counters}))
                out.write(b"\n")
        except OSError as error:
            raise DataError(f"{dump_path}: cannot be written: {error.strerror}") from error
    counters = outcome.counters
    click.echo(
        f"{len(events)} events, {counters['traps']} traps ({counters['store_traps']} stores, "
        f"{counters['mmio_traps']} registers), {len(outcome.dumps)} dumps, "
        f"{counters['audit_mismatches']} audit mismatches"
    )
    if counters["audit_mismatches"]:
        ctx.exit(ExitCode.DIFFERS)
