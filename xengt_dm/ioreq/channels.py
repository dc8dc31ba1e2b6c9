"""The event channels by which Xen tells us about a request in a vCPU's slot, and we tell Xen about the answer."""

from __future__ import annotations

from collections.abc import Iterable

from xengt_dm._core import ffi, lib
from xengt_dm.hypervisor.best_effort import BestEffort
from xengt_dm.hypervisor.port import EventPort
from xengt_dm.ioreq.slots import Slots
from xengt_dm.units import CData


class Channels:
    """Our ends of the event channels, one for each vCPU. Methods raise CallError.

    Facts: Xen writes the port of its end into a vCPU's slot when the server is enabled. What follows: the caller must
    bind channels after that, and keep them bound until it has notified the last answer.
    """

    def __init__(self, events: EventPort, slots: Slots) -> None:
        self.events = events
        self._slots = slots
        #: The ports of our ends by vCPU, of the channels that are bound.
        self.bound: dict[int, int] = {}
        #: The same for C: by vCPU, 0 if its channel is not bound.
        self.ports: CData = ffi.new("uint32_t[]", lib.XD_SLOTS_PER_PAGE)

    def bind(self, vcpus: Iterable[int]) -> None:
        """Binds the channels of these vCPUs that are not bound yet."""
        for vcpu in vcpus:
            if vcpu not in self.bound:
                self.bound[vcpu] = self.ports[vcpu] = self.events.bind(self._slots.port_of(vcpu))

    def notify(self, vcpu: int) -> None:
        """Tells Xen that a vCPU's answer is in its slot. Does nothing if the channel is not bound."""
        port = self.bound.get(vcpu)
        if port is not None:
            self.events.notify(port)

    def unbind(self) -> None:
        """Unbinds every channel that is bound, the others also if one fails. Raises the first error."""
        attempt = BestEffort()
        for vcpu in list(self.bound):
            attempt(self._unbind_one, vcpu)
        attempt.finish()

    def _unbind_one(self, vcpu: int) -> None:
        self.events.unbind(self.bound[vcpu])
        del self.bound[vcpu]
        self.ports[vcpu] = 0
