"""The hypervisor port on real Xen."""

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
    """Returns a frame number such that no frame at or above it is RAM of the domain.

    Facts: no stable interface tells a domain's highest frame. The toolstack (libxl, xenopsd) writes to xenstore how
    much memory the domain can have at most, in KiB. RAM begins at address 0; the part that the MMIO hole below 4 GiB
    displaces continues at 4 GiB.
    What follows: the highest frame is below that memory plus the whole of the first 4 GiB.
    Cost: the limit is too high by up to 4 GiB of frames. Xen refuses to map those.

    Raises DomainGoneError if xenstore has no such domain, and HostError if it does not have the value.
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
    """One domain of real Xen. Implements DomainPort.

    ``frame_limit`` overrides the limit in xenstore; xenstore is then not needed. With ``restrict`` the constructor
    restricts the process to this domain before it returns; see :meth:`restrict`.

    Raises HostError, with the reason, if this host cannot serve the domain, and DomainGoneError if there is no such
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
            # The first call that names the domain: if there is no such domain it fails here.
            self._vcpu_count = self.device_model.vcpu_count()
            if restrict:
                self.restrict()
            stack.callback(self._unmap_all_slots)
            self._stack = stack.pop_all()

    def restrict(self) -> None:
        """Restricts all handles that Xen's libraries hold in this process, those of other ports too, to this domain.

        The restriction is permanent. It does not affect handles that are opened later. A connection to xenstore that
        libxenstore made is unusable afterwards; our own client's connection still works, but should be closed before.
        Raises HostError. Some handles may then be restricted and others not, so the caller must close the port.
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
    def retype_in_flight_is_fatal(self) -> bool:
        """True: for ``rep stos`` and ``rep movs`` on every Xen, and for every store on newer ones.

        See :mod:`xengt_dm.traps.state`.
        """
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
        # A dying domain has no frames, so each fails with EINVAL. Only the end of its servers tells this from an error.
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
        """Unmaps the slots and closes every handle. The caller must unmap guest frames before."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
