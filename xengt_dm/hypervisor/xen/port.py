"""The hypervisor port on a real Xen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from errno import EINVAL, ENOENT, ERANGE, ESRCH
from typing import Final, Self

from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.port import MemType, WriteTrap
from xengt_dm.hypervisor.xen import library
from xengt_dm.hypervisor.xen.devicemodel import DeviceModel
from xengt_dm.hypervisor.xen.errors import failure
from xengt_dm.hypervisor.xen.events import XenEvents
from xengt_dm.hypervisor.xen.memory import ForeignMemory, Resource
from xengt_dm.units import PAGE_SIZE, CData
from xengt_dm.xenstore import XenStore

FRAMES_BELOW_4G = (4 << 30) // PAGE_SIZE
#: What Xen says of an MSI because of what the guest wrote as its address and data: no such delivery mode, no vector, no
#: local APIC that takes it (xen/arch/x86/hvm/irq.c hvm_inject_msi, vmsi.c vmsi_deliver).
MSI_REFUSED: Final = frozenset({EINVAL, ERANGE, ESRCH})


def frame_limit_of(store: XenStore, domid: int) -> int:
    """No frame at or above this number is RAM of the domain.

    Facts: a stable interface that tells a domain's highest frame does not exist; the toolstack writes the most memory
    that the domain can ever have into the store, in KiB (libxl, xenopsd). RAM fills the addresses from 0, and what the
    MMIO hole below 4 GiB displaces continues at 4 GiB. So the highest frame lies below that memory plus the whole of
    the first 4 GiB. Cost: the bound is loose by up to 4 GiB of frames, for each of which Xen itself refuses a mapping.

    Raises DomainGoneError when the store has no such domain, HostError when it does not tell.
    """
    path = f"/local/domain/{domid}/memory/static-max"
    try:
        text = store.read(path)
    except HostError as error:
        if error.errno != ENOENT:
            raise
        if not store.exists(f"/local/domain/{domid}"):
            raise DomainGoneError("xenstore read", domid, ENOENT, "there is no such domain") from error
        raise HostError("xenstore read", domid, ENOENT, f"no {path}: give the frame limit by hand") from error
    if not text.isdigit() or int(text) > 1 << 54:
        raise HostError("xenstore read", domid, EINVAL, f"{path} is {text[:40]!r}, not a number of KiB")
    return int(text) * 1024 // PAGE_SIZE + FRAMES_BELOW_4G


class XenPort:
    """One domain of a real Xen. Implements DomainPort.

    ``frame_limit`` overrides what the store says, and then the store is not needed. With ``restrict`` the process ends
    up confined to this domain before the constructor returns; see :meth:`restrict`.

    Raises HostError when this host cannot serve the domain, with the reason; DomainGoneError when there is no such
    domain.
    """

    def __init__(self, domid: int, *, frame_limit: int | None = None, restrict: bool = False) -> None:
        binding = library.load()
        if not 0 <= domid < binding.lib.DOMID_FIRST_RESERVED:
            raise HostError("open", domid, EINVAL, "no domain can have this number")
        library.require_version()
        self._binding = binding
        self._domid = domid
        self._slots: dict[int, Resource] = {}
        with ExitStack() as stack:
            if frame_limit is None:
                with XenStore() as store:
                    frame_limit = frame_limit_of(store, domid)
            self._frame_limit = frame_limit
            self.device_model = DeviceModel(binding, domid)
            stack.callback(self.device_model.close)
            self.memory = ForeignMemory(binding, domid)
            stack.callback(self.memory.close)
            self._events = XenEvents(binding, domid)
            stack.callback(self._events.close)
            # The first question to the domain: it fails here, and not midway, when there is none.
            self._vcpu_count = self.device_model.vcpu_count()
            if restrict:
                self.restrict()
            stack.callback(self._unmap_all_slots)
            self._stack = stack.pop_all()

    def restrict(self) -> None:
        """Confine every handle that Xen's libraries hold in this process, of other ports too, to this domain.

        For good, and not for handles opened later. A connection to the store that was made by libxenstore is dead
        afterwards; our own client is not, and should be closed by then. Raises HostError; some handles may then be
        confined and others not, so that all that is left is to close.
        """
        if self._binding.lib.xentoolcore_restrict_all(self._domid) != 0:
            raise failure("xentoolcore_restrict_all", self._domid, self._binding.ffi.errno)

    @property
    def domid(self) -> int:
        return self._domid

    @property
    def events(self) -> XenEvents:
        return self._events

    @property
    def write_trap(self) -> WriteTrap:
        return WriteTrap.CLAIM

    @property
    def stores_must_end(self) -> bool:
        """Because of ``rep stos``, and on newer Xen of every store; see :mod:`xengt_dm.traps.protection`."""
        return True

    @property
    def frame_limit(self) -> int:
        return self._frame_limit

    def vcpu_count(self) -> int:
        return self._vcpu_count

    def create_server(self) -> int:
        return self.device_model.create_server()

    def destroy_server(self, server: int) -> None:
        self.device_model.destroy_server(server)

    def server_exists(self, server: int) -> bool:
        return self.device_model.server_exists(server)

    def map_slots(self, server: int) -> int:
        assert server not in self._slots, f"the slots of server {server} are mapped already"
        resource = self.memory.map_ioreq_page(server)
        self._slots[server] = resource
        return resource.address

    def unmap_slots(self, server: int) -> None:
        self.memory.unmap_resource(self._slots.pop(server))

    def _unmap_all_slots(self) -> None:
        for server in list(self._slots):
            self.unmap_slots(server)

    def set_server_state(self, server: int, enabled: bool) -> None:
        self.device_model.set_server_state(server, enabled)

    def map_mmio(self, server: int, first: int, last: int) -> None:
        self.device_model.map_range(server, first, last)

    def unmap_mmio(self, server: int, first: int, last: int) -> None:
        with self._asking_whether_gone(server):
            self.device_model.unmap_range(server, first, last)

    def map_ports(self, server: int, first: int, last: int) -> None:
        self.device_model.map_range(server, first, last, ports=True)

    def unmap_ports(self, server: int, first: int, last: int) -> None:
        with self._asking_whether_gone(server):
            self.device_model.unmap_range(server, first, last, ports=True)

    def map_pci(self, server: int, sbdf: int) -> None:
        self.device_model.map_pci(server, sbdf)

    def unmap_pci(self, server: int, sbdf: int) -> None:
        with self._asking_whether_gone(server):
            self.device_model.unmap_pci(server, sbdf)

    @contextmanager
    def _asking_whether_gone(self, server: int) -> Iterator[None]:
        """ENOENT is a range that the server does not have, or no server: only asking tells which."""
        try:
            yield
        except HostError as error:
            if error.errno == ENOENT and not self.server_exists(server):
                raise DomainGoneError(error.call, self._domid, ENOENT, "the ioreq server is gone") from error
            raise

    def claim_writes(self, server: int) -> None:
        self.device_model.claim_writes(server)

    def release_writes(self, server: int) -> None:
        self.device_model.release_writes(server)

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        failed = self.device_model.set_mem_types(mem_type, gfns, count, errors)
        # A dying domain has no frames, and each is EINVAL: only the end of its servers tells that from a mistake.
        if failed and self._slots and not any(map(self.server_exists, self._slots)):
            raise DomainGoneError("xendevicemodel_set_mem_type", self._domid, ENOENT, "the ioreq server is gone")
        return failed

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        return self.memory.map_frames(first_gfn, count, errors, address)

    def unmap_frames(self, address: int, count: int) -> None:
        self.memory.unmap_frames(address, count)

    def inject_msi(self, address: int, data: int) -> bool:
        try:
            self.device_model.inject_msi(address, data)
        except (HostError, DomainGoneError) as error:
            if error.errno not in MSI_REFUSED:
                raise
            # ESRCH is also what Xen says of a domain that is gone. Then this raises that, too.
            if error.errno == ESRCH:
                self.device_model.vcpu_count()
            return False
        return True

    def set_intx(self, sbdf: int, pin: int, asserted: bool) -> None:
        self.device_model.set_intx(sbdf, pin, asserted)

    def close(self) -> None:
        """Unmap the slots and close every handle. Mappings of guest frames are their maker's to undo, before this."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
