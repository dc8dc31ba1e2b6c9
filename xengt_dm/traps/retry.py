"""What to do when a call to the hypervisor fails on the way out: try again, and go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from xengt_dm._core import ffi
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.port import DomainPort, MemType


def twice(call: Callable[..., object], *arguments: object) -> None:
    """A call whose failure would leave something behind: once more if it fails. Raises what the second one does."""
    try:
        call(*arguments)
    except HostError:
        call(*arguments)


def released(call: Callable[..., object], *arguments: object) -> None:
    """A step of a teardown: tried twice; a domain that is gone took everything of ours with it."""
    with suppress(DomainGoneError):
        twice(call, *arguments)


def set_types(port: DomainPort, mem_type: MemType, gfns: Sequence[int]) -> list[int]:
    """Change frames' types; an errno or 0 for each. One that fails is tried once more."""
    if not gfns:
        return []
    errors = ffi.new("int[]", len(gfns))
    if not port.set_mem_types(mem_type, ffi.new("uint64_t[]", gfns), len(gfns), errors):
        return [0] * len(gfns)
    failed = [i for i in range(len(gfns)) if errors[i]]
    again = ffi.new("int[]", len(failed))
    port.set_mem_types(mem_type, ffi.new("uint64_t[]", [gfns[i] for i in failed]), len(failed), again)
    for i, error in zip(failed, again, strict=True):
        errors[i] = error
    return [*errors]
