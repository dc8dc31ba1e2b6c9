"""What the runner needs of a hypervisor beyond the port: frames in every state, vCPUs that store, the domain's life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from xengt_dm.hypervisor.port import DomainPort

from .language import Op


@dataclass(frozen=True)
class Outcome:
    """How an operation ended: the value that came out, or a fault for the guest."""

    value: int = 0
    fault: bool = False


class Side(Protocol):
    """One domain with two vCPUs that execute what they are told. Methods that fail as Xen does return an errno."""

    @property
    def done_fd(self) -> int:
        """Readable after an operation ended."""

    def open(self) -> DomainPort:
        """A device model's handles, with nothing bound or mapped."""

    def give_back(self, port: DomainPort) -> None:
        """Take back handles that a device model holds nothing by any more."""

    def frames(self, count: int) -> int:
        """The first of so many consecutive frames of RAM that no case has touched, zero."""

    def put(self, gfn: int, state: str, do: Callable[[Op], None]) -> int:
        """Bring a frame into a state; returns the frame that is in it, which may be another.

        ``do`` has vCPU 0 do something, and answers whatever device models are asked meanwhile.
        """

    def reported(self, gfn: int) -> int:
        """HVMOP_get_mem_type: hvmmem_type_t."""

    def claim(self, port: DomainPort, server: int, mem_type: int, flags: int) -> int: ...

    def log_dirty(self, on: bool) -> int: ...

    def pause(self) -> None: ...

    def unpause(self) -> None: ...

    def shutdown(self) -> None:
        """vCPU 1 shuts the domain down in order."""

    def destroy(self) -> None: ...

    def condition(self, expected: str) -> str:
        """``running``, ``shut down``, ``crashed`` or ``gone``; may wait a while for what is expected."""

    def start(self, vcpu: int, op: Op) -> None: ...

    def take_done(self) -> None:
        """Take what made ``done_fd`` readable."""

    def outcome(self, vcpu: int) -> Outcome | None:
        """None while the operation goes on."""

    def settle(self, vcpu: int, phase: str) -> bool:
        """Wait until the vCPU ``waits`` for an answer, ``retries``, or ``stands`` still; False if it goes on."""
