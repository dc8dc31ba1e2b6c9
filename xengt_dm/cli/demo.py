"""``xengt-dm demo``: the whole path on this machine, without Xen."""

from __future__ import annotations

import json
import sys

import click

from xengt_dm.cli.guest_options import xen_options
from xengt_dm.cli.types import Integer, Seconds
from xengt_dm.errors import ExitCode
from xengt_dm.hypervisor.embedded.shadow_paging import Paging
from xengt_dm.sim.demo import GuestFault, Result, demo


@click.command(name="demo", short_help="Run a guest on the embedded hypervisor, without Xen.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option(
    "--seconds", type=Seconds(min=0, max=3600), default=2.0, show_default=True, help="How long the guest runs."
)
@xen_options
@click.option("--seed", type=Integer(min=0), default=1, show_default=True, help="Seed of the guest's random choices.")
@click.pass_context
def command(ctx: click.Context, as_json: bool, seconds: float, flavour: str, paging: str, seed: int) -> None:
    """Run a guest with two vCPUs, each the driver of a GPU address space, and shadow its page tables.

    The guest announces its spaces, links and unlinks tables, inserts entries and clears ranges, as the i915 driver of
    Linux does. Each store to a page table traps, is performed and shadowed. At the end the shadows are audited.

    Exit status: 1 if the audit or the guest itself finds anything wrong.
    """
    terminal = not as_json and sys.stderr.isatty()

    def progress(traps: int, gone: float) -> None:
        if terminal:
            click.echo(f"\r{gone:5.1f} s  {traps:,} stores trapped", nl=False, err=True)

    try:
        result = demo(seconds, flavour, seed, progress, paging=Paging(paging))
    except GuestFault as fault:
        click.echo(f"xengt-dm demo: the guest found its memory wrong: {fault} (seed {seed})", err=True)
        ctx.exit(ExitCode.DIFFERS)
    if terminal:
        click.echo("\r", nl=False, err=True)
    click.echo(_as_json(result) if as_json else _as_text(result))
    if result.mismatches or result.wrong:
        ctx.exit(ExitCode.DIFFERS)


def _as_json(result: Result) -> str:
    return json.dumps(
        {
            "xen": result.flavour,
            "paging": result.paging,
            "seed": result.seed,
            "seconds": round(result.seconds, 3),
            "spaces": result.spaces,
            "resolved": result.resolved,
            "wrong": result.wrong,
            "digest": result.digest,
            "counters": result.counters,
        }
    )


def _as_text(result: Result) -> str:
    counters = result.counters
    rate = counters["store_traps"] / result.seconds
    verdict = "every entry is what the guest's tables say" if not result.mismatches else "SHADOW AND GUEST DIFFER"
    rows = [
        ("stores trapped", counters["store_traps"], f"each emulated and shadowed; {rate:,.0f} a second"),
        ("register accesses", counters["mmio_traps"], "PVINFO handshake and notifications"),
        ("address spaces", result.spaces, "live at the audit"),
        ("shadow tables", result.tables, "live at the audit, shared ones once"),
        ("addresses resolved", result.resolved, f"by walking the shadow; {result.wrong} not where the guest meant"),
        ("audit mismatches", result.mismatches, verdict),
        ("still protected", counters["protected_pages"], "pages, after the guest destroyed its spaces"),
    ]
    paging = ", shadow paging" if result.paging is Paging.SHADOW else ""
    head = (
        f"A guest with two vCPUs on the embedded hypervisor (as Xen {result.flavour}{paging}), {result.seconds:.1f} s"
    )
    return "\n".join([head, "", *(f"  {name:<18} {value:>12,}  {text}" for name, value, text in rows)])
