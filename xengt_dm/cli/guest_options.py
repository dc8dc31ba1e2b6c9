"""The options of commands that make a domain of the embedded hypervisor: which Xen it is, and how that pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from xengt_dm.hypervisor.embedded.p2m import FLAVOURS
from xengt_dm.hypervisor.embedded.shadow_paging import Paging

_Function = TypeVar("_Function", bound=Callable[..., Any])


def xen_options(function: _Function) -> _Function:
    """Adds ``--xen``, the parameter ``flavour``, and ``--paging``."""
    xen = click.option(
        "--xen",
        "flavour",
        type=click.Choice(list(FLAVOURS)),
        default="4.17",
        show_default=True,
        help="Behave like this Xen.",
    )
    paging = click.option(
        "--paging",
        type=click.Choice([each.value for each in Paging]),
        default=Paging.HAP.value,
        show_default=True,
        help="How Xen translates the guest's addresses: by HAP, or by shadow paging (hap=0). Since Xen 4.9 a device "
        "model cannot trap the stores of a guest on shadow paging.",
    )
    return xen(paging(function))
