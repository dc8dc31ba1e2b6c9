"""The options with which a domain was launched, as its unit passes them. :mod:`.instances` writes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

VARIABLE: Final = "XENGT_OPTIONS"
UUID_VARIABLE: Final = "XENGT_UUID"


def own_settings(sets: Sequence[str], uuid: str | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Returns the values of ``--set`` that are for the domain with this uuid.

    The unit appends the options of the launch to the command line, and puts them into the environment together with the
    uuid of the domain that was launched. If that was an earlier domain with the same id, its options are left out.
    """
    words = environment.get(VARIABLE, "").split()
    launched_for = environment.get(UUID_VARIABLE)
    foreign = tuple(words[1::2])
    if uuid is None or launched_for in (None, uuid) or not foreign or tuple(sets[-len(foreign) :]) != foreign:
        return tuple(sets)
    return tuple(sets[: -len(foreign)])
