"""What an instance's unit tells it of how its domain was launched; :mod:`.instances` writes that."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

VARIABLE: Final = "XENGT_OPTIONS"
UUID_VARIABLE: Final = "XENGT_UUID"


def own_settings(sets: Sequence[str], uuid: str | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Returns the values of ``--set`` that are for the domain with this uuid.

    The unit puts what a domain was launched with at the end of the command line, and into the environment, with the
    uuid of that domain. It may have been another one with the same id.
    """
    words = environment.get(VARIABLE, "").split()
    launched_for = environment.get(UUID_VARIABLE)
    foreign = tuple(words[1::2])
    if uuid is None or launched_for in (None, uuid) or not foreign or tuple(sets[-len(foreign) :]) != foreign:
        return tuple(sets)
    return tuple(sets[: -len(foreign)])
