"""The hypervisor port on a sim: see :mod:`xengt_dm.hypervisor.sim`."""

from __future__ import annotations

import errno
import os
import uuid
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from xengt_dm._core import ffi
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.port import MemType, WriteTrap
from xengt_dm.hypervisor.sim import mapping
from xengt_dm.hypervisor.sim.connection import Connection
from xengt_dm.hypervisor.sim.events import SimEventPort
from xengt_dm.hypervisor.sim.frames import MappedFrames
from xengt_dm.hypervisor.sim.messages import ERRNO_BITS, MOST_ELEMENTS, VERSION, Call
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE, CData

#: XEN_DMOP_IOREQ_MEM_ACCESS_WRITE, xen/include/public/hvm/dm_op.h.
_ACCESS_WRITE: Final = 2
_ERRNO_MASK: Final = (1 << ERRNO_BITS) - 1


class SimPort:
    """The domain ``domid`` of the sim in ``directory``. Implements DomainPort.

    ``frame_limit`` overrides the domain's own. Raises DomainGoneError if no sim has the domain, and HostError.
    """

    def __init__(self, directory: Path, domid: int, *, frame_limit: int | None = None) -> None:
        self._connection = Connection(directory, domid)
        self._frames = MappedFrames()
        self._slots: dict[int, int] = {}
        self._closed = False
        try:
            words, descriptors = self._connection.call_for(Call.HELLO, VERSION, name="connect", descriptors=3)
        except BaseException:
            self._connection.close()
            raise
        _, _, frames, self._fatal, high, low = words
        self._ram, eventfd, counters = descriptors
        #: Beyond the end of a file a page is SIGBUS, as one that Xen could not map.
        self._void = os.memfd_create("xengt-dm void")
        self._frame_limit = frame_limit or frames
        self._trap: WriteTrap | None = None
        #: Of the domain; no other domain ever has the same.
        self.uuid = str(uuid.UUID(int=high << 64 | low))
        try:
            self._events = SimEventPort(self._connection, eventfd, counters)
        except BaseException:
            self._close_descriptors()
            raise

    @property
    def domid(self) -> int:
        return self._connection.domid

    @property
    def events(self) -> SimEventPort:
        return self._events

    @property
    def write_trap(self) -> WriteTrap:
        if self._trap is None:
            (ranges,) = self._call(Call.WRITE_TRAP, name="xendevicemodel_set_mem_type")
            self._trap = WriteTrap.RANGES if ranges else WriteTrap.CLAIM
        return self._trap

    @property
    def retype_in_flight_is_fatal(self) -> bool:
        return bool(self._fatal)

    @property
    def frame_limit(self) -> int:
        return self._frame_limit

    def vcpu_count(self) -> int:
        return self._call(Call.VCPU_COUNT, name="xendevicemodel_nr_vcpus")[0]

    def create_server(self) -> int:
        return self._call(Call.CREATE_SERVER, name="xendevicemodel_create_ioreq_server")[0]

    def destroy_server(self, server: int) -> None:
        self._call(Call.DESTROY_SERVER, server, name="xendevicemodel_destroy_ioreq_server")

    def server_exists(self, server: int) -> bool:
        try:
            return bool(self._call(Call.SERVER_EXISTS, server, name="xendevicemodel_get_ioreq_server_info")[0])
        except DomainGoneError:
            return False

    def map_slots(self, server: int) -> int:
        _, (page,) = self._connection.call_for(
            Call.MAP_SLOTS, server, name="xenforeignmemory_map_resource", descriptors=1
        )
        try:
            address = mapping.map_file(page, 0, PAGE_SIZE)
        finally:
            os.close(page)
        self._unmap_slots_here(server)
        self._slots[server] = address
        return address

    def unmap_slots(self, server: int) -> None:
        if self._unmap_slots_here(server):
            with suppress(DomainGoneError):
                self._call(Call.UNMAP_SLOTS, server, name="xenforeignmemory_unmap_resource")

    def _unmap_slots_here(self, server: int) -> bool:
        address = self._slots.pop(server, None)
        if address is not None:
            mapping.unmap(address, PAGE_SIZE)
        return address is not None

    def set_server_state(self, server: int, enabled: bool) -> None:
        self._call(Call.SET_SERVER_STATE, server, int(enabled), name="xendevicemodel_set_ioreq_server_state")

    def map_mmio(self, server: int, first: int, last: int) -> None:
        self._call(Call.MAP_MMIO, server, first, last, name="xendevicemodel_map_io_range_to_ioreq_server")

    def unmap_mmio(self, server: int, first: int, last: int) -> None:
        self._call(Call.UNMAP_MMIO, server, first, last, name="xendevicemodel_unmap_io_range_from_ioreq_server")

    def map_ports(self, server: int, first: int, last: int) -> None:
        self._call(Call.MAP_PORTS, server, first, last, name="xendevicemodel_map_io_range_to_ioreq_server")

    def unmap_ports(self, server: int, first: int, last: int) -> None:
        self._call(Call.UNMAP_PORTS, server, first, last, name="xendevicemodel_unmap_io_range_from_ioreq_server")

    def map_pci(self, server: int, sbdf: int) -> None:
        self._call(Call.MAP_PCI, server, sbdf, name="xendevicemodel_map_pcidev_to_ioreq_server")

    def unmap_pci(self, server: int, sbdf: int) -> None:
        self._call(Call.UNMAP_PCI, server, sbdf, name="xendevicemodel_unmap_pcidev_from_ioreq_server")

    def claim_writes(self, server: int) -> None:
        self.map_mem_type(server, MemType.IOREQ_SERVER, _ACCESS_WRITE)

    def release_writes(self, server: int) -> None:
        self.map_mem_type(server, MemType.IOREQ_SERVER, 0)

    def map_mem_type(self, server: int, mem_type: int, flags: int) -> None:
        """The hypercall behind :meth:`claim_writes` and :meth:`release_writes`, with any arguments."""
        self._call(Call.CLAIM, server, mem_type, flags, name="xendevicemodel_map_mem_type_to_ioreq_server")

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        failed = 0
        for first in range(0, count, MOST_ELEMENTS):
            some = ffi.unpack(gfns + first, min(MOST_ELEMENTS, count - first))
            for i, error in enumerate(
                self._call(Call.SET_MEM_TYPES, mem_type, *some, name="xendevicemodel_set_mem_type"), first
            ):
                errors[i] = error
                failed += error != 0
        return failed

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        if count <= 0:
            raise HostError("xenforeignmemory_map2", self.domid, errno.EINVAL, f"{count} frames")
        words = array("Q")
        try:
            for first in range(first_gfn, first_gfn + count, MOST_ELEMENTS):
                some = min(MOST_ELEMENTS, first_gfn + count - first)
                words.extend(self._call(Call.GET_FRAMES, first, some, name="xenforeignmemory_map2"))
            at = self._map_here(words, address)
        except BaseException:
            self._put_frames(words)
            raise
        numbers = array("i", [word & _ERRNO_MASK for word in words])
        ffi.buffer(errors, count * numbers.itemsize)[:] = numbers.tobytes()
        replaced = self._frames.take(at >> PAGE_SHIFT, count) if address else array("Q")
        self._frames.add(at >> PAGE_SHIFT, words)
        self._put_frames(replaced)
        return at

    def _map_here(self, words: array[int], address: int) -> int:
        """Maps what the words say, at ``address`` or anywhere if that is 0; returns where."""
        if address and self._frames.at(address >> PAGE_SHIFT, len(words)) == words:
            return address  # it is there already
        at = address or mapping.reserve(len(words) << PAGE_SHIFT)
        try:
            for i, count, frame in _runs(words):
                fd, offset = (self._void, 0) if frame is None else (self._ram, frame << PAGE_SHIFT)
                mapping.map_file(fd, offset, count << PAGE_SHIFT, at + (i << PAGE_SHIFT))
        except BaseException:
            if not address:
                mapping.unmap(at, len(words) << PAGE_SHIFT)
            raise
        return at

    def unmap_frames(self, address: int, count: int) -> None:
        mapping.unmap(address, count << PAGE_SHIFT)
        self._put_frames(self._frames.take(address >> PAGE_SHIFT, count))

    def _put_frames(self, words: array[int]) -> None:
        """Drops the references that these words are. Their frames must not be mapped any more."""
        with suppress(DomainGoneError):
            for first in range(0, len(words), MOST_ELEMENTS):
                self._call(Call.PUT_FRAMES, *words[first : first + MOST_ELEMENTS], name="xenforeignmemory_unmap")

    def inject_msi(self, address: int, data: int) -> bool:
        return bool(self._call(Call.INJECT_MSI, address, data, name="xendevicemodel_inject_msi")[0])

    def set_intx(self, sbdf: int, pin: int, asserted: bool) -> None:
        self._call(Call.SET_INTX, sbdf, pin, int(asserted), name="xendevicemodel_set_pci_intx_level")

    def close(self) -> None:
        """Closes every handle. The caller must unmap guest frames before. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for server in list(self._slots):
            self._unmap_slots_here(server)
        self._events.close()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        """With the connection go the bindings, and the references to frames."""
        self._connection.close()
        os.close(self._ram)
        os.close(self._void)

    def _call(self, call: Call, *arguments: int, name: str) -> tuple[int, ...]:
        return self._connection.call(call, *arguments, name=name)


def _runs(words: array[int]) -> Iterator[tuple[int, int, int | None]]:
    """Returns (index, count, first frame) of each run of consecutive frames, or of words that are an errno (None)."""
    start = 0
    while start < len(words):
        end = start + 1
        if words[start] & _ERRNO_MASK:
            while end < len(words) and words[end] & _ERRNO_MASK:
                end += 1
            yield start, end - start, None
        else:
            while end < len(words) and words[end] == words[end - 1] + (1 << ERRNO_BITS):
                end += 1
            yield start, end - start, words[start] >> ERRNO_BITS
        start = end
