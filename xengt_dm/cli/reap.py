"""``xengt-dm reap``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from xengt_dm.cli import errors
from xengt_dm.cli.client import domid_option
from xengt_dm.cli.formatting import count
from xengt_dm.cli.notice import waiting
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.control.client import NotRunningError, SilentError, ask, patience
from xengt_dm.control.protocol import ControlError
from xengt_dm.errors import BusyError, ExitCode, HostError
from xengt_dm.printable import printable
from xengt_dm.run_dir.directory import instance_directory, remove_directory
from xengt_dm.run_dir.server_id import ServerIdFile

if TYPE_CHECKING:
    from xengt_dm.hypervisor.port import DomainPort

#: $SERVICE_RESULT of systemd.exec(5) after an end that no successor follows. A daemon that served has then released its
#: guest, unless it took too long; one that SIGTERM ended before it served has not.
FINAL = frozenset({"timeout", "success"})

#: Of the files in a run directory. A daemon has five.
NAMES_SHOWN: Final = 20


@click.command("reap")
@domid_option
@click.option(
    "--after",
    metavar="RESULT",
    help="How the service ended, as systemd reports it ($SERVICE_RESULT). While the domain exists, nothing is cleaned "
    "up unless this is `timeout` or `success`: a successor will adopt the server.",
)
@run_dir_option
def command(domid: int, after: str | None, base: Path) -> None:
    """Clean up after a daemon that died and will not be restarted.

    Its ioreq server is released: the requests that wait are answered, the protected pages are unprotected, and the
    server is destroyed, so the guest continues without traps. Then the files that the daemon left are removed and, if
    the domain is gone, the options that it was launched with. The command prints what it finds and what it removes. If
    a daemon still serves the domain, the command fails (75).
    """
    served = _serves(base, domid)
    if served:
        raise BusyError(f"domain {domid} is served; stop its daemon first: xengt-dm stop --domid {domid}")
    found = [*(_clean(base, domid) if after is None else _clean_after(base, domid, after))]
    for line in found or [f"domain {domid}: nothing of a daemon is left"]:
        click.echo(line)


def _serves(base: Path, domid: int) -> bool:
    """Whether a daemon serves the domain. One that is stopped, stuck or lies is one, too."""
    try:
        with waiting(domid, patience("status")):
            ask(base, domid, "status")
    except NotRunningError:
        return False
    except ControlError as error:
        what = f"domain {domid} has a daemon that does not answer" if isinstance(error, SilentError) else str(error)
        raise BusyError(f"{what}; if it is of no use, end it first: systemctl kill -s KILL xengt-dm@{domid}") from error
    return True


def _clean(base: Path, domid: int) -> Iterator[str]:
    """Cleans up. Yields a line about each thing that was found or removed. Raises HostError."""
    from xengt_dm.service import domains
    from xengt_dm.xenstore import XenStore

    with XenStore() as store:
        gone = not store.exists(f"{domains.DOMAINS}/{domid}")
        record = ServerIdFile(instance_directory(base, domid), None if gone else domains.uuid_of(store, domid))
    if gone:
        yield from _forget(domid)
    server = record.read()
    if not gone and server is not None:
        _release(domid, base)
        yield f"domain {domid}: released its ioreq server {server}, which a daemon had left"
    elif record.is_of_another_domain():
        yield f"domain {domid}: the ioreq server on record is that of an earlier domain with this id; left alone"
    names = remove_directory(base, domid)
    if names:
        more = len(names) - NAMES_SHOWN
        told = [*map(printable, names[:NAMES_SHOWN]), *([f"{more:,} more"] if more > 0 else [])]
        yield f"domain {domid}: removed {instance_directory(base, domid)} with {', '.join(told)}"
    if gone:
        yield f"domain {domid} is gone; nothing of it is left"


def _clean_after(base: Path, domid: int, result: str) -> Iterator[str]:
    """As :func:`_clean`, but does nothing if a successor of the daemon is expected."""
    from xengt_dm.service import domains
    from xengt_dm.xenstore import XenStore

    with XenStore() as store:
        gone = not store.exists(f"{domains.DOMAINS}/{domid}")
    if gone or result in FINAL:
        yield from _clean(base, domid)


def _forget(domid: int) -> Iterator[str]:
    from xengt_dm.service import instances

    launch = instances.launch_of(domid)
    try:
        instances.forget(domid)
    except OSError as error:
        raise HostError(f"remove {instances.LAUNCH / str(domid)}", domid, error.errno or 0) from error
    if launch is not None:
        yield f"domain {domid}: forgot the options that it was launched with: {' '.join(launch.words) or 'none'}"


def _release(domid: int, base: Path) -> None:
    """Release the server in a process of its own, which gives up being root before it looks at what the guest wrote."""
    child = os.fork()
    if child == 0:
        status: int = ExitCode.INTERNAL
        try:
            _release_confined(domid, base)
            status = ExitCode.OK
        except BaseException as error:
            status = errors.report(error)
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended != ExitCode.OK:
        raise SystemExit(ended if ended > 0 else 128 - ended)


def _release_confined(domid: int, base: Path) -> None:
    """Restricts this process to the domain, then adopts the dead daemon's server and stops in order at once."""
    from xengt_dm.hypervisor.xen.port import XenPort
    from xengt_dm.run_dir.directory import open_directory
    from xengt_dm.service import sandbox

    with closing(XenPort(domid, restrict=True)) as port:
        directory = open_directory(base, domid)
        sandbox.enter(domid, directory)
        for line in give_back(port, directory):
            click.echo(line)
        sys.stdout.flush()


def give_back(port: DomainPort, directory: Path) -> Iterator[str]:
    """Adopts the server of the dead daemon of a run directory, and stops in order at once.

    Yields a line about what was unprotected and removed.

    Raises CallError, BusyError if the daemon is not dead, and OSError.
    """
    from xengt_dm.instance import open_instance
    from xengt_dm.ioreq.ranges import RangeKind
    from xengt_dm.run_dir.ranges import RangesFile
    from xengt_dm.settings import Settings
    from xengt_dm.state.file import open_state

    record, older = ServerIdFile(directory, checked=True), RangesFile(directory)
    # Where a daemon without a state had its BAR0: at another address it could be in the way of a device of QEMU's.
    bars = [each.first for each in older.read() or [] if each.kind is RangeKind.MEMORY]
    settings = Settings(bar0=bars[0]) if bars else Settings()
    with open_state(directory, port.domid, {os.geteuid()}) as state:
        with open_instance(
            port, settings, record=record, store=state, left_ranges=older.read, directory=directory
        ) as instance:
            kept, problem = instance.found.kept, instance.found.problem
            pages = len(instance.traps.protected)
            ranges = instance.server.ranges.read() or []
            guards = sum(each.kind is RangeKind.GUARD for each in ranges)
        older.clear()
    if kept:
        yield (
            f"domain {port.domid}: unprotected {count(pages, 'page')}, and removed {count(guards, 'guard range')} and "
            f"{count(len(ranges) - guards, 'range')} of the device"
        )
    else:
        yield f"domain {port.domid}: unprotected whatever trapped; its state is of no use: {problem}"
