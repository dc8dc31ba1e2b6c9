"""``xengt-dm replay``: runs a trace on the embedded hypervisor."""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
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
STDOUT: Final = 1
#: More than the kernel follows, path_resolution(7).
MOST_LINKS: Final = 40


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
    help="Write dumps and counters here, as JSON; `-` is standard output. A file is replaced when all is written.",
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
    descriptor = None if dump_path is None or dump_path == STANDARD else _descriptor_of(dump_path)
    if descriptor == STDOUT:
        dump_path = STANDARD
    if as_json and dump_path == STANDARD:
        raise UsageError("--json and `--dump -` both write to standard output; give --dump a file")
    with _output(dump_path, descriptor) as out:
        header, events = read_trace(STANDARD_INPUT if file == STANDARD else file)
        with notice(f"replaying {count(len(events), 'event')}"):
            outcome = replay(header, events, sync=Sync(mode), max_tables=max_tables, flavour=flavour)
        if out is not None:
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
def _output(path: Path | None, descriptor: int | None) -> Iterator[BinaryIO | None]:
    """The file for the dumps, opened before the work is done. ``descriptor``: the one of ours that ``path`` names.

    Facts: the disk may be full, or the work may fail or be interrupted; the old content must then be there. A path may
    be a link, or name a terminal, a pipe or a device, which can only be written to.
    What we do: a regular file, or one that is not there, is written beside the place that links lead to and renamed
    when it is complete. It keeps the mode of the old file. Anything else is written directly.
    Cost: the directory must be writable, and the file gets another inode and the caller's owner, so other names (hard
    links) keep the old content.
    Raises DataError or NotPermittedError if it cannot be written.
    """
    if path is None or path == STANDARD:
        yield None if path is None else sys.stdout.buffer
        return
    try:
        if descriptor is not None:
            with open(os.dup(descriptor), "wb") as out:  # so that what others write to it comes before and after
                yield out
            return
        there = _status_of(path)
        if there is not None and not stat.S_ISREG(there.st_mode):
            with path.open("wb") as out:
                yield out
            return
        with _beside(path.resolve(), there) as out:
            yield out
    except OSError as error:
        raise cannot_write(path, error) from error


def _descriptor_of(path: Path) -> int | None:
    """The descriptor of this process that a path like /dev/stdout or /dev/fd/3 names; None for every other path."""
    for _ in range(MOST_LINKS):
        real = Path(os.path.realpath(path.parent)) / path.name
        if real.parent == Path(f"/proc/{os.getpid()}/fd") and path.name.isdecimal():
            return int(path.name)
        try:
            path = real.parent / os.readlink(real)
        except (OSError, ValueError):
            return None
    return None


def _status_of(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def _beside(target: Path, there: os.stat_result | None) -> Iterator[BinaryIO]:
    """A new file that replaces ``target`` at the end. It is removed if the body fails. Raises OSError."""
    if there is not None:
        os.close(os.open(target, os.O_WRONLY | os.O_CLOEXEC))  # a file that may not be written is not replaced, either
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:200]}.", dir=target.parent)
    new = Path(name)
    try:
        with open(descriptor, "wb") as out:
            os.fchmod(descriptor, stat.S_IMODE(there.st_mode) if there is not None else 0o666 & ~_umask())
            yield out
        new.replace(target)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
