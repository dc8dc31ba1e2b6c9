"""The event channels over which a vCPU and we tell each other that there is something in its slot."""

from __future__ import annotations

from collections.abc import Iterable

from xengt_dm.hypervisor.port import EventPort
from xengt_dm.hypervisor.best_effort import BestEffort
from xengt_dm.ioreq.slots import Slots


class Channels:
    """Our ends of the vCPUs' channels, one for each. Methods raise CallError.

    Facts: Xen writes the number of its end into a vCPU's slot when the server is enabled. What follows: channels are
    bound after that; and they stay bound until the last answer is notified.
    """

    def __init__(self, events: EventPort, slots: Slots) -> None:
        self.events = events
        self._slots = slots
        #: Our ends, by vCPU; those of vCPUs that can be notified.
        self.bound: dict[int, int] = {}

    def bind(self, vcpus: Iterable[int]) -> None:
        """Bind the channels of these vCPUs, as far as they are not bound."""
        for vcpu in vcpus:
            if vcpu not in self.bound:
                self.bound[vcpu] = self.events.bind(self._slots.port_of(vcpu))

    def notify(self, vcpu: int) -> None:
        """Tell a vCPU that its answer is there. Does nothing if its channel is not bound."""
        local = self.bound.get(vcpu)
        if local is not None:
            self.events.notify(local)

    def unbind(self) -> None:
        """Unbind every channel that is bound; one that fails does not keep the others from it."""
        attempt = BestEffort()
        for vcpu in list(self.bound):
            attempt(self._unbind_one, vcpu)
        attempt.finish()

    def _unbind_one(self, vcpu: int) -> None:
        self.events.unbind(self.bound[vcpu])
        del self.bound[vcpu]
