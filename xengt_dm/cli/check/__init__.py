"""``xengt-dm check``: what this host has, what it lacks, and what to do about it.

Each check looks at one thing and yields findings; none of them changes anything or raises.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

from xengt_dm.cli.check.finding import DEFAULT_RUN_DIR, Finding, Host, State
from xengt_dm.cli.check.install import check_extensions, check_python, check_run_dir
from xengt_dm.cli.check.xen import (
    check_devices,
    check_modules,
    check_paging,
    check_version,
    check_xen,
    check_xenstore,
)
from xengt_dm.cli.types import Domid
from xengt_dm.errors import ExitCode

CHECKS: Final[tuple[Callable[[Host], Iterator[Finding]], ...]] = (
    check_xen,
    check_version,
    check_paging,
    check_devices,
    check_modules,
    check_extensions,
    check_xenstore,
    check_python,
    check_run_dir,
)


def examine(host: Host) -> list[Finding]:
    """Every finding about the host, in the order of CHECKS."""
    return [finding for check in CHECKS for finding in check(host)]


COLOURS: Final = {State.OK: "green", State.WARNING: "yellow", State.MISSING: "red"}


def report(findings: list[Finding]) -> Iterator[str]:
    """The lines a person reads."""
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        state = click.style(f"{finding.state:<7}", fg=COLOURS[finding.state])
        yield f"{state}  {finding.name:<{width}}  {finding.text}"
        if finding.remedy and finding.state is not State.OK:
            yield f"{'':7}  {'':<{width}}  -> {finding.remedy}"
    missing = sum(finding.state is State.MISSING for finding in findings)
    yield ""
    if missing:
        yield f"`xengt-dm run` cannot work here: {missing} missing. `xengt-dm demo` needs no Xen."
    else:
        yield "`xengt-dm run` can work here."


@click.command("check")
@click.option("-d", "--domid", type=Domid(), help="Also look at this domain.")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default=DEFAULT_RUN_DIR,
    show_default=True,
    help="The run directory that `run` would use.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.pass_context
def command(context: click.Context, domid: int | None, run_dir: Path, as_json: bool) -> None:
    """Report what this host has and lacks for `run`, and what to do about it.

    Exit status: 0 if `run` could work, 69 if not.
    """
    findings = examine(Host(run_dir=run_dir, domid=domid))
    fit = all(finding.state is not State.MISSING for finding in findings)
    if as_json:
        rows = [
            {"name": found.name, "state": found.state.value, "text": found.text, "remedy": found.remedy}
            for found in findings
        ]
        click.echo(json.dumps({"v": 1, "ok": fit, "findings": rows}))
    else:
        for line in report(findings):
            click.echo(line)
    context.exit(ExitCode.OK if fit else ExitCode.UNAVAILABLE)
