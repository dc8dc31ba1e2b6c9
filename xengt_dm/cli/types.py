"""Numbers on the command line, with errors that name what was wanted: click calls it `a valid integer range`."""

from __future__ import annotations

from typing import Any, Final

import click

#: DOMID_FIRST_RESERVED - 1, xen/include/public/xen.h.
DOMID_MAX: Final = 0x7FEF


class Integer(click.IntRange):
    name = "integer"


class Seconds(click.FloatRange):
    name = "number of seconds"


class Domid(Integer):
    """A domain's id."""

    def __init__(self) -> None:
        super().__init__(0, DOMID_MAX)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is no domain id: a number up to {DOMID_MAX}, as `xl list` shows it", param, ctx)
