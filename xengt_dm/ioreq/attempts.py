"""What to do when a call to the hypervisor fails on the way out: try again, and go on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from xengt_dm.errors import DomainGoneError, HostError


def twice(call: Callable[..., object], *arguments: object) -> None:
    """A call whose failure would leave something behind: once more if it fails. Raises what the second one does."""
    try:
        call(*arguments)
    except DomainGoneError:
        raise
    except HostError:
        call(*arguments)


def released(call: Callable[..., object], *arguments: object) -> None:
    """A step of a teardown: tried twice; a domain that is gone took everything of ours with it."""
    with suppress(DomainGoneError):
        twice(call, *arguments)
