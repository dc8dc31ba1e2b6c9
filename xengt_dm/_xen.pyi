# Types of the extension module that cffi_build/build_xen.py makes. C pointers and arrays are Any, as cffi has them.

from typing import Any

from cffi import FFI

class _Lib:
    HVMMEM_ram_rw: int
    HVMMEM_ram_ro: int
    HVMMEM_mmio_dm: int
    HVMMEM_unused: int
    HVMMEM_ioreq_server: int
    HVM_IOREQSRV_BUFIOREQ_OFF: int
    HVM_IOREQSRV_BUFIOREQ_LEGACY: int
    HVM_IOREQSRV_BUFIOREQ_ATOMIC: int
    XEN_DMOP_IOREQ_MEM_ACCESS_READ: int
    XEN_DMOP_IOREQ_MEM_ACCESS_WRITE: int
    XEN_DMOP_MEM_CACHEATTR_UC: int
    XEN_DMOP_MEM_CACHEATTR_WC: int
    XEN_DMOP_MEM_CACHEATTR_WT: int
    XEN_DMOP_MEM_CACHEATTR_WP: int
    XEN_DMOP_MEM_CACHEATTR_WB: int
    XEN_DMOP_MEM_CACHEATTR_UCM: int
    XENMEM_resource_ioreq_server: int
    XENMEM_resource_grant_table: int
    XD_IOREQ_FRAME_BUFFERED: int
    XD_IOREQ_FRAME_FIRST: int
    XD_EVTCHN_BATCH: int
    SHUTDOWN_poweroff: int
    SHUTDOWN_reboot: int
    SHUTDOWN_suspend: int
    SHUTDOWN_crash: int
    SHUTDOWN_watchdog: int
    SHUTDOWN_soft_reset: int
    DOMID_FIRST_RESERVED: int
    XENEVTCHN_NO_CLOEXEC: int

    def xd_xen_quiet_logger(self) -> Any: ...
    def xd_xen_set_mem_types(
        self, dmod: Any, domid: int, mem_type: int, gfns: Any, count: int, errors: Any, /
    ) -> int: ...
    def xd_xen_map_frames(
        self, fmem: Any, domid: int, first_gfn: int, count: int, address: int, errors: Any, failure: Any, /
    ) -> int: ...
    def xd_xen_evtchn_take(self, fd: int, ports: Any, /) -> int: ...
    def xd_xen_evtchn_unmask(self, fd: int, ports: Any, count: int, /) -> int: ...
    def xd_xen_evtchn_drain(self, fd: int, bound: Any, nr_bound: int, /) -> int: ...
    def xendevicemodel_open(self, logger: Any, flags: int, /) -> Any: ...
    def xendevicemodel_close(self, dmod: Any, /) -> int: ...
    def xenforeignmemory_open(self, logger: Any, flags: int, /) -> Any: ...
    def xenforeignmemory_close(self, fmem: Any, /) -> int: ...
    def xenforeignmemory_unmap(self, fmem: Any, address: Any, pages: int, /) -> int: ...
    def xenforeignmemory_map_resource(
        self,
        fmem: Any,
        domid: int,
        resource: int,
        resource_id: int,
        frame: int,
        nr_frames: int,
        address: Any,
        prot: int,
        flags: int,
        /,
    ) -> Any: ...
    def xenforeignmemory_unmap_resource(self, fmem: Any, resource: Any, /) -> int: ...
    def xenforeignmemory_resource_size(
        self, fmem: Any, domid: int, resource: int, resource_id: int, size: Any, /
    ) -> int: ...
    def xenevtchn_open(self, logger: Any, flags: int, /) -> Any: ...
    def xenevtchn_close(self, xce: Any, /) -> int: ...
    def xenevtchn_fd(self, xce: Any, /) -> int: ...
    def xenevtchn_bind_interdomain(self, xce: Any, domid: int, remote_port: int, /) -> int: ...
    def xenevtchn_unbind(self, xce: Any, port: int, /) -> int: ...
    def xenevtchn_notify(self, xce: Any, port: int, /) -> int: ...
    def xentoolcore_restrict_all(self, domid: int, /) -> int: ...
    # The rest, xendevicemodel_* above all, is called by name through DeviceModel.
    def __getattr__(self, name: str) -> Any: ...

ffi: FFI
lib: _Lib
