"""Tells whether the server whose id is on record belongs to another device model."""

from __future__ import annotations

import errno
import time
from typing import Final

from xengt_dm._core import ffi
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.port import DomainPort, EventPort
from xengt_dm.ioreq.ranges import Range
from xengt_dm.ioreq.slots import Slots

#: How long the channels of a process that was killed may stay bound.
ENDED_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.001


def is_foreign(port: DomainPort, server: int, bar0: Range) -> bool:
    """Whether the server on record is that of another device model. ``bar0``: the range that a predecessor had.

    Facts: a record may be left of an earlier domain with this id; the server's id may now be that of a
    server of QEMU. A predecessor that died has no channel bound, and its server has the range of its BAR0. QEMU binds
    its channels when it starts. What follows: a server whose channels are bound for longer than a process takes to
    end, or that has not the range, is not ours. Adopting it would take QEMU's devices from the guest.
    Cost: for a moment a server without bound channels has our range. Raises CallError.
    """
    slots = Slots(port.map_slots(server), port.vcpu_count(), ffi.NULL, ffi.NULL)
    try:
        remote_ports = [slots.port_of(vcpu) for vcpu in range(slots.vcpus)]
    finally:
        port.unmap_slots(server)
    deadline = time.monotonic() + ENDED_SECONDS
    while not all(_can_bind(port.events, each) for each in remote_ports):
        if time.monotonic() >= deadline:
            return True
        time.sleep(_LOOK_SECONDS)
    try:
        port.map_mmio(server, bar0.first, bar0.last)
    except HostError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    port.unmap_mmio(server, bar0.first, bar0.last)
    return True


def _can_bind(events: EventPort, remote_port: int) -> bool:
    try:
        events.unbind(events.bind(remote_port))
    except HostError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True
