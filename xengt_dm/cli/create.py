"""``xengt-dm create``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from xengt_dm.cli.client import json_option
from xengt_dm.printable import printable


@click.command("create")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--paused", is_flag=True, help="Leave the domain paused; `xl unpause` lets it run.")
@json_option
def command(config: Path, paused: bool, as_json: bool) -> None:
    """Create a domain as `xl create CONFIG` does, and start its instance before the domain runs.

    The domain stays paused until the instance serves it. If a step fails or is interrupted, the steps before it are
    undone: the domain is destroyed. After a first Ctrl-C, `xl create` is still waited for; after a second one, not. The
    keys in `xengt = [ "KEY=VALUE", ... ]` of CONFIG, and XenGT's old keys vgt_low_gm_sz, vgt_high_gm_sz and
    vgt_fence_sz, apply to every start of this domain's instance.
    """
    from xengt_dm.service import instances, toolstack
    from xengt_dm.service.interruptions import interruptions_raised

    starter = instances.starter()
    with interruptions_raised():
        domid, domain = toolstack.create(
            config,
            toolstack.Xl(),
            starter,
            paused=paused,
            complain=lambda text: click.echo(f"xengt-dm: {text}", err=True),
        )
    if as_json:
        click.echo(json.dumps({"domid": domid, "name": domain.name, "served": domain.wanted, "paused": paused}))
        return
    served = "is served" if domain.wanted else "has no GPU, as its file says,"
    click.echo(f"domain {domid} ({printable(domain.name)}) {served} and {'is paused' if paused else 'runs'}")
