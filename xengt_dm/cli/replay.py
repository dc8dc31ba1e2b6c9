"""``xengt-dm replay``: runs a trace on the embedded hypervisor."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import click

from xengt_dm.cli.client import json_option
from xengt_dm.cli.errors import cannot_write
from xengt_dm.cli.formatting import count
from xengt_dm.cli.notice import notice
from xengt_dm.cli.types import Integer
from xengt_dm.control.json_stream import LazyList, json_pieces
from xengt_dm.errors import ExitCode, UsageError
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import DEFAULT_MAX_TABLES
from xengt_dm.sim.replay import replay
from xengt_dm.trace.read import read_trace

#: What a path of `-` stands for.
STANDARD: Final = Path("-")
STANDARD_INPUT: Final = Path("/dev/stdin")


@click.command(name="replay", short_help="Run a trace on the embedded hypervisor.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--mode",
    type=click.Choice([sync.value for sync in Sync]),
    default="strict",
    show_default=True,
    help="Mode of the shadows.",
)
@click.option(
    "--dump",
    "dump_path",
    type=click.Path(path_type=Path),
    help="Write dumps and counters here, as JSON; `-` is standard output.",
)
@click.option(
    "--max-tables",
    type=Integer(min=1, max=1 << 24),
    default=DEFAULT_MAX_TABLES,
    show_default=True,
    help="The quota of shadow tables.",
)
@click.option("--xen", "flavour", type=click.Choice(list(FLAVOURS)), default="4.17", hidden=True)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    mode: str,
    dump_path: Path | None,
    max_tables: int,
    flavour: str,
    as_json: bool,
) -> None:
    """Run the trace FILE through the whole path, from a guest's store to the shadow, and audit at every dump.

    FILE may be `-`, which is standard input. Exit status: 65 if FILE is not a trace, 1 if an audit found a shadow table
    that differs from the guest's table.
    """
    if as_json and dump_path == STANDARD:
        raise UsageError("--json and `--dump -` both write to standard output; give --dump a file")
    with _output(dump_path) as out:
        header, events = read_trace(STANDARD_INPUT if file == STANDARD else file)
        with notice(f"replaying {count(len(events), 'event')}"):
            outcome = replay(header, events, sync=Sync(mode), max_tables=max_tables, flavour=flavour)
        if out is not None:
            if dump_path != STANDARD and stat.S_ISREG(os.fstat(out.fileno()).st_mode):
                out.truncate(0)
            dumps = ({**dump, "spaces": LazyList(iter(dump["spaces"]))} for dump in outcome.dumps)
            out.writelines(json_pieces({"dumps": LazyList(dumps), "counters": outcome.counters}))
            out.write(b"\n")
            out.flush()
    counters = outcome.counters
    if as_json:
        told = {"mode": mode, "events": len(events), "dumps": len(outcome.dumps), "counters": counters}
        click.echo(json.dumps(told))
    else:
        _show(len(events), len(outcome.dumps), counters, to_stderr=dump_path == STANDARD)
    if counters["audit_mismatches"]:
        ctx.exit(ExitCode.DIFFERS)


def _show(events: int, dumps: int, counters: dict[str, int], *, to_stderr: bool) -> None:
    mismatches = count(counters["audit_mismatches"], "audit mismatch", "audit mismatches")
    click.echo(
        f"{count(events, 'event')}, {count(counters['traps'], 'trap')} "
        f"({count(counters['store_traps'], 'store')}, {count(counters['mmio_traps'], 'register')}), "
        f"{count(dumps, 'dump')}, {mismatches}",
        err=to_stderr,
    )


@contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO | None]:
    """The file for the dumps, opened before the work is done, and replaced only when it is.

    A file that was not there is removed if the work fails. Raises DataError or NotPermittedError if it cannot be
    written.
    """
    if path is None or path == STANDARD:
        yield None if path is None else sys.stdout.buffer
        return
    there = os.path.lexists(path)
    try:
        with path.open("ab") as out:
            yield out
    except OSError as error:
        _remove_new(path, there)
        raise cannot_write(path, error) from error
    except BaseException:
        _remove_new(path, there)
        raise


def _remove_new(path: Path, there: bool) -> None:
    if not there:
        with suppress(OSError):
            path.unlink()
