"""``xengt-dm list``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import click

from xengt_dm import __version__
from xengt_dm.cli import formatting
from xengt_dm.cli.client import json_option
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.control.answers import check_status
from xengt_dm.control.client import ForbiddenError, NotRunningError, SilentError, ask
from xengt_dm.control.protocol import ControlError
from xengt_dm.printable import printable
from xengt_dm.run_dir.directory import instance_domids
from xengt_dm.run_dir.server_id import ServerIdFile

#: Seconds to wait for an answer. A daemon that serves answers within milliseconds.
SILENCE_SECONDS: Final = 3.0
ASKED_AT_ONCE: Final = 32
#: What is shown of a status.
FIELDS: Final = ("pid", "mode", "vcpus", "uptime_seconds", "version")
COUNTERS: Final = ("spaces", "traps")


@click.command("list")
@run_dir_option
@json_option
def command(base: Path, as_json: bool) -> None:
    """List the daemons of this host by domain.

    STATE is `serving`, or `quiesced` between `quiesce` and `resume`. `dead` is a daemon that died (start it again with
    `xengt-dm start`), `silent` one that does not answer, `untrusted` one whose answer cannot be believed, and
    `forbidden` one that belongs to another user. A daemon whose version is not the installed one is marked `outdated`;
    `xengt-dm upgrade` replaces it.
    """
    found = instances(base, FIELDS, COUNTERS)
    if as_json:
        click.echo(json.dumps(found))
    elif not found:
        click.echo(f"no daemon runs (nothing in {printable(str(base))})")
    else:
        headings = ("DOMID>", "STATE", "PID>", "MODE", "VCPUS>", "SPACES>", "TRAPS>", "UP>", "VERSION")
        for line in formatting.table(headings, map(_row, found)):
            click.echo(line)


def instances(base: Path, fields: Iterable[str], counters: Iterable[str]) -> list[dict[str, Any]]:
    """Returns the state and the status of each instance, by domain id. A status has these ``fields`` and ``counters``.

    All are asked at once, so that one which is silent holds up no other. Raises ForbiddenError or ControlError.
    """
    try:
        domids = instance_domids(base)
    except PermissionError as error:
        raise ForbiddenError(f"not permitted to read {base}; run as root or as the daemons' user") from error
    except OSError as error:
        raise ControlError(f"cannot read {base}: {error.strerror}") from error
    with ThreadPoolExecutor(max_workers=ASKED_AT_ONCE) as executor:
        found = executor.map(lambda domid: _instance(base, domid, ("state", *fields), counters), domids)
        return [each for each in found if each is not None]


def _instance(base: Path, domid: int, fields: Iterable[str], counters: Iterable[str]) -> dict[str, Any] | None:
    state, status = "untrusted", None
    try:
        answer = ask(base, domid, "status", silence=SILENCE_SECONDS)
        status = check_status(answer, domid, fields, counters)
        state = status["state"]
    except NotRunningError as error:
        if not error.stale and ServerIdFile(base / str(domid)).read() is None:
            return None
        state = "dead"
    except ForbiddenError:
        state = "forbidden"
    except SilentError:
        state = "silent"
    except ControlError:
        pass
    version = None if status is None else status.get("version")
    return {
        "domid": domid,
        "state": state,
        "status": status,
        "outdated": None if version is None else version != __version__,
    }


def _row(instance: dict[str, Any]) -> tuple[str, ...]:
    status = instance["status"]
    if status is None:
        return (str(instance["domid"]), instance["state"], *[""] * 7)
    counters = status["counters"]
    return (
        str(instance["domid"]),
        instance["state"],
        str(status["pid"]),
        status["mode"],
        str(status["vcpus"]),
        f"{counters['spaces']:,}",
        f"{counters['traps']:,}",
        formatting.duration(status["uptime_seconds"]),
        f"{status['version']} outdated" if instance["outdated"] else status["version"],
    )
