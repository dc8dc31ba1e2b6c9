"""``xengt-dm upgrade``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from xengt_dm.cli.client import json_option
from xengt_dm.cli.notice import notice, waiting
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.cli.start import starter_of
from xengt_dm.cli.types import Domid
from xengt_dm.control import client as control_client
from xengt_dm.control.answers import check_status
from xengt_dm.control.client import NotRunningError
from xengt_dm.control.protocol import ControlError, ErrorCode, RefusedError
from xengt_dm.errors import UsageError, XengtError
from xengt_dm.printable import printable

#: How long a daemon may take to end: it writes what is left of a recording before it does.
END_SECONDS: Final = 30.0
#: How long to ask for the next one, and how often.
START_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.05


class Upgraded(NamedTuple):
    """What became of one domain. ``unserved``: for how many seconds nobody served it; None if that is not known."""

    domid: int
    before: str
    after: str
    pid: int
    unserved: float | None

    def line(self) -> str:
        """For people."""
        versions = f"from {self.before} to {self.after}" if self.before != self.after else f"still {self.after}"
        pause = "" if self.unserved is None else f"; its vCPUs were not served for {self.unserved:.2f} s"
        return f"domain {self.domid}: {versions}, process {self.pid}{pause}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "domid": self.domid,
            "from": self.before,
            "to": self.after,
            "pid": self.pid,
            "unserved_seconds": self.unserved,
        }


@click.command("upgrade")
@click.argument("domids", metavar="[DOMID]...", type=Domid(), nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every domain that is served on this host.")
@click.option(
    "--sim",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="The domains are those of `xengt-dm sim --dir DIR`.",
)
@run_dir_option
@json_option
def command(domids: tuple[int, ...], every: bool, sim: Path | None, base: Path, as_json: bool) -> None:
    """Replace the daemons of domains by those of the installed version.

    The old daemon leaves its domain as it is, with the write-protected pages and the waiting requests, and ends. Then a
    new one is started, as by `start`, and continues with the same device. The guest keeps its address spaces; a vCPU
    that needs the device meanwhile waits. Domains are handled one after the other. A recording ends.

    A daemon of a version that cannot do this continues. The package's own upgrade runs this command with --all.
    """
    if bool(domids) == every:
        raise UsageError("name the domains, or --all; `xengt-dm list` shows those that are served")
    done: list[Upgraded] = []
    failed: list[XengtError] = []
    for domid in dict.fromkeys(domids) if domids else _served(base):
        try:
            with notice(f"replacing the daemon of domain {domid}"):
                upgraded = _upgrade(base, domid, sim)
        except XengtError as error:
            failed.append(error)
            continue
        done.append(upgraded)
        if not as_json:
            click.echo(upgraded.line())
    if as_json:
        click.echo(json.dumps([each.as_json() for each in done]))
    elif not done and not failed:
        click.echo(f"no daemon runs (nothing in {printable(str(base))})")
    if failed:
        raise ExceptionGroup("not upgraded", failed)


def _served(base: Path) -> list[int]:
    """The domains that somebody serves, as far as an answer can be believed."""
    from xengt_dm.cli.list import instances

    return [each["domid"] for each in instances(base, (), ()) if each["state"] != "dead"]


def _upgrade(base: Path, domid: int, sim: Path | None) -> Upgraded:
    """Raises ControlError, InstanceError or HostError."""
    before = _status(base, domid)
    try:
        ended = control_client.hand_over(base, domid, END_SECONDS)
    except RefusedError as error:
        if error.code != ErrorCode.UNKNOWN_COMMAND:
            raise
        raise ControlError(
            f"the daemon of domain {domid} continues: it has version {before['version']}, which cannot leave a domain "
            f"to another daemon. To replace it all the same: systemctl kill -s KILL xengt-dm@{domid}; the guest then "
            "finds its device as after a reset"
        ) from error
    if not ended:
        raise ControlError(
            f"the daemon of domain {domid} is about to leave it to another, but has not ended within {END_SECONDS:g} s;"
            f" if it is stuck: systemctl kill -s KILL xengt-dm@{domid}"
        )
    after = _successor(base, domid, sim)
    unserved = after.get("handover_seconds")
    known = isinstance(unserved, (int, float)) and not isinstance(unserved, bool) and unserved >= 0
    return Upgraded(domid, before["version"], after["version"], after["pid"], unserved if known else None)


def _successor(base: Path, domid: int, sim: Path | None) -> dict[str, Any]:
    """The status of the next daemon, once it serves. Raises InstanceError, HostError or ControlError.

    A service manager starts it by itself, and is asked to all the same: that waits. While the manager does not know yet
    that the old one has ended, it says that all is well, so it is asked again.
    """
    starter = starter_of(sim, base)
    deadline = time.monotonic() + START_SECONDS
    while True:
        starter.start(domid)
        try:
            return _status(base, domid)
        except NotRunningError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(LOOK_SECONDS)


def _status(base: Path, domid: int) -> dict[str, Any]:
    with waiting(domid, control_client.patience("status")):
        return check_status(control_client.ask(base, domid, "status"), domid, ("pid", "version"))
