"""What the sim keeps for one device model in another process, and the calls that it makes.

A session is what a process is to Xen: its event channels, its mappings. Both go with it. Servers, claims and the types
of frames belong to the domain and stay.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from xengt_dm._embedded import ffi, lib
from xengt_dm.errors import CallError, HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.errors import check
from xengt_dm.hypervisor.port import WriteTrap
from xengt_dm.hypervisor.sim.messages import (
    MOST_ELEMENTS,
    VERSION,
    Call,
    MessageError,
    pack,
    pack_failure,
    parse_request,
)


class Answer(NamedTuple):
    """The results of a call, and the descriptors that go with them. The session, or the domain, owns those."""

    words: Sequence[int] = ()
    descriptors: Sequence[int] = ()


class Session:
    """One device model of a domain that is shared. One thread uses it. Raises HostError if it cannot be opened."""

    def __init__(self, domain: EmbeddedDomain, identity: uuid.UUID) -> None:
        self._domain = domain
        self._identity = identity
        self._port = domain.port()
        self._counters = int(lib.xd_emb_events_share(self._port.events.handle))
        if self._counters < 0:
            self._port.close()
            raise HostError("memfd_create", domain.domid, -self._counters)
        self._mappings = lib.xd_emb_mappings_new(domain.handle)
        if self._mappings == ffi.NULL:
            self._port.close()
            raise MemoryError("a device model's mappings")
        self._calls: dict[Call, Callable[..., Answer]] = {
            Call.HELLO: self._hello,
            Call.WRITE_TRAP: self._write_trap,
            Call.VCPU_COUNT: lambda: Answer([self._port.vcpu_count()]),
            Call.CREATE_SERVER: lambda: Answer([self._port.create_server()]),
            Call.DESTROY_SERVER: _nothing(self._port.destroy_server),
            Call.SERVER_EXISTS: lambda server: Answer([int(self._port.server_exists(server))]),
            Call.SET_SERVER_STATE: lambda server, on: _nothing(self._port.set_server_state)(server, bool(on)),
            Call.MAP_SLOTS: self._map_slots,
            Call.UNMAP_SLOTS: _nothing(self._port.unmap_slots),
            Call.MAP_MMIO: _nothing(self._port.map_mmio),
            Call.UNMAP_MMIO: _nothing(self._port.unmap_mmio),
            Call.MAP_PORTS: _nothing(self._port.map_ports),
            Call.UNMAP_PORTS: _nothing(self._port.unmap_ports),
            Call.MAP_PCI: _nothing(self._port.map_pci),
            Call.UNMAP_PCI: _nothing(self._port.unmap_pci),
            Call.CLAIM: _nothing(self._port.map_mem_type),
            Call.SET_MEM_TYPES: self._set_mem_types,
            Call.GET_FRAMES: self._get_frames,
            Call.PUT_FRAMES: self._put_frames,
            Call.BIND: self._bind,
            Call.UNBIND: _nothing(self._port.events.unbind),
            Call.INJECT_MSI: lambda address, data: Answer([int(self._port.inject_msi(address, data))]),
            Call.SET_INTX: lambda sbdf, pin, on: _nothing(self._port.set_intx)(sbdf, pin, bool(on)),
        }

    def handle(self, message: bytes) -> tuple[bytes, Sequence[int]]:
        """Make the call of a message, and return the answer with its descriptors. Raises only for a bug of ours."""
        try:
            call, arguments = parse_request(message)
        except MessageError as error:
            return pack_failure(errno.EPROTO, "message", str(error)), ()
        try:
            answer = self._calls[call](*arguments)
        except CallError as error:
            return pack_failure(error.errno, error.call, error.meaning), ()
        except OverflowError as error:  # more than the hypercall's parameter has bits for
            return pack_failure(errno.EINVAL, call.name, str(error)), ()
        return pack([0, *answer.words]), answer.descriptors

    def close(self) -> None:
        """The device model's process has ended."""
        self._port.close()
        lib.xd_emb_mappings_free(self._mappings)

    def _hello(self, version: int) -> Answer:
        if version != VERSION:
            raise HostError("connect", self._domain.domid, errno.EPROTO, f"the sim speaks version {VERSION}")
        identity = self._identity.int
        words = [VERSION, self._domain.domid, self._domain.ram_frames, int(self._port.retype_in_flight_is_fatal)]
        words += [identity >> 64, identity & ((1 << 64) - 1)]
        return Answer(words, [lib.xd_emb_ram_fd(self._domain.handle), self._port.events.fd, self._counters])

    def _write_trap(self) -> Answer:
        return Answer([int(self._port.write_trap is WriteTrap.RANGES)])

    def _map_slots(self, server: int) -> Answer:
        page = ffi.cast("char *", self._port.map_slots(server))
        return Answer((), [self._check("map_slots", lib.xd_emb_slots_fd(self._domain.handle, page))])

    def _set_mem_types(self, mem_type: int, *gfns: int) -> Answer:
        errors = ffi.new("int[]", len(gfns))
        rc = lib.xd_emb_set_mem_types(self._domain.handle, mem_type, list(gfns), len(gfns), errors)
        self._check("xendevicemodel_set_mem_type", rc)
        return Answer(ffi.unpack(errors, len(gfns)))

    def _get_frames(self, first: int, count: int) -> Answer:
        call = "xenforeignmemory_map2"
        if not 1 <= count <= MOST_ELEMENTS:
            raise HostError(call, self._domain.domid, errno.EINVAL, f"{count} frames in one message")
        words = ffi.new("uint64_t[]", count)
        self._check(call, lib.xd_emb_frames_get(self._mappings, first, count, words))
        return Answer(ffi.unpack(words, count))

    def _put_frames(self, *words: int) -> Answer:
        self._check("xenforeignmemory_unmap", lib.xd_emb_frames_put(self._mappings, words, len(words)))
        return Answer()

    def _bind(self, remote_port: int) -> Answer:
        events = self._port.events
        port = events.bind(remote_port)
        return Answer([port], [self._check("bind", lib.xd_emb_events_wake_fd(events.handle, port))])

    def _check(self, call: str, rc: int) -> int:
        return check(call, self._domain.domid, rc)


def _nothing(method: Callable[..., None]) -> Callable[..., Answer]:
    """The method as a call without results."""

    def call(*arguments: int) -> Answer:
        method(*arguments)
        return Answer()

    return call
