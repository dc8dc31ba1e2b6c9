"""Numbers on the command line, with errors that name what was wanted: click calls it `a valid integer range`."""

from __future__ import annotations

import math
from typing import Any, Final

import click

from xengt_dm.units import DOMID_FIRST_RESERVED

DOMID_MAX: Final = DOMID_FIRST_RESERVED - 1


class Integer(click.IntRange):
    """An integer in a range."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does it, but no digits of other scripts, which int() takes."""
        if isinstance(value, str) and not value.isascii():
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A finite number of seconds in a range."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does it, but no NaN, which is in every range, and no infinity."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds) or (isinstance(value, str) and not value.isascii()):
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        return seconds


class Domid(Integer):
    """A domain's id."""

    def __init__(self) -> None:
        super().__init__(0, DOMID_MAX)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the id; reports a usage error for anything that is none."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is no domain id: a number up to {DOMID_MAX}, as `xl list` shows it", param, ctx)
