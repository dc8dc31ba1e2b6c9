"""Calls that wait, in threads that a cancelled task need not wait for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

import trio

T = TypeVar("T")

#: The name of the parameter that has a cancellation leave the thread to itself: it is new in trio 0.23.
_ABANDON: Final = (
    "abandon_on_cancel"
    if "abandon_on_cancel" in inspect.signature(trio.to_thread.run_sync).parameters
    else "cancellable"
)


async def run_abandonable(
    function: Callable[..., T], *arguments: object, limiter: trio.CapacityLimiter | None = None
) -> T:
    """Returns what ``function`` returns in a thread. A cancellation does not wait for the thread, which goes on."""
    options: dict[str, Any] = {_ABANDON: True, "limiter": limiter}
    return await trio.to_thread.run_sync(function, *arguments, **options)
