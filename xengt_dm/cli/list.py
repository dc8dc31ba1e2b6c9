"""``xengt-dm list``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from xengt_dm.cli import formatting
from xengt_dm.cli.client import json_option, run_dir_option
from xengt_dm.control.client import ForbiddenError, NotRunningError, ask
from xengt_dm.control.protocol import ControlError
from xengt_dm.run_dir.server_id import ServerIdFile

#: Seconds to wait for an answer. A daemon that serves answers within milliseconds.
SILENCE_SECONDS: Final = 3.0


@click.command("list")
@run_dir_option
@json_option
def command(base: Path, as_json: bool) -> None:
    """List the daemons of this host by domain.

    STATE is `serving`, or `quiesced` between `quiesce` and `resume`. `dead` is a daemon that died (start it again with
    `xengt-dm start`), `silent` one that does not answer, and `forbidden` one that belongs to another user.
    """
    found = list(instances(base))
    if as_json:
        click.echo(json.dumps(found))
    elif not found:
        click.echo(f"no daemon runs (nothing in {base})")
    else:
        headings = ("DOMID>", "STATE", "PID>", "MODE", "VCPUS>", "SPACES>", "TRAPS>", "UP>", "VERSION")
        for line in formatting.table(headings, map(_row, found)):
            click.echo(line)


def instances(base: Path) -> Iterator[dict[str, Any]]:
    """Yields the state and the status of each instance, by domain id. Raises ForbiddenError or ControlError."""
    try:
        domids = sorted(int(entry.name) for entry in base.iterdir() if entry.name.isdecimal())
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise ForbiddenError(f"not permitted to read {base}; run as root or as the daemons' user") from error
    except OSError as error:
        raise ControlError(f"cannot read {base}: {error.strerror}") from error
    for domid in domids:
        try:
            status = ask(base, domid, "status", silence=SILENCE_SECONDS)
            yield {"domid": domid, "state": status["state"], "status": status}
        except NotRunningError as error:
            if error.stale or ServerIdFile(base / str(domid)).read() is not None:
                yield {"domid": domid, "state": "dead", "status": None}
        except ForbiddenError:
            yield {"domid": domid, "state": "forbidden", "status": None}
        except ControlError:
            yield {"domid": domid, "state": "silent", "status": None}


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
        status["version"],
    )
