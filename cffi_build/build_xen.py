"""Builds ``xengt_dm._xen``: the binding to Xen's stable libraries.

Only libraries with a stable ABI are linked, never libxenctrl, whose soname changes with each Xen release: a build
against Xen 4.15's libraries runs on every later Xen. See ``shared.py`` for how headers are read.
"""

from cffi import FFI
from shared import GENERATED, HERE, WARNINGS, declarations, from_environment, headers, includes, relative, sources

XEN = HERE / "xen"
LIBRARIES = ["xendevicemodel", "xenforeignmemory", "xenevtchn", "xentoolcore"]
HEADERS = ("types.h", "devicemodel.h", "foreignmemory.h", "evtchn.h", "toolcore.h")
#: Integers whose values the compiler takes from Xen's headers.
CONSTANTS = (
    # xen/hvm/hvm_op.h
    "HVMMEM_ram_rw",
    "HVMMEM_ram_ro",
    "HVMMEM_mmio_dm",
    "HVMMEM_unused",
    "HVMMEM_ioreq_server",
    "HVM_IOREQSRV_BUFIOREQ_OFF",
    "HVM_IOREQSRV_BUFIOREQ_LEGACY",
    "HVM_IOREQSRV_BUFIOREQ_ATOMIC",
    # xen/hvm/dm_op.h
    "XEN_DMOP_IOREQ_MEM_ACCESS_READ",
    "XEN_DMOP_IOREQ_MEM_ACCESS_WRITE",
    "XEN_DMOP_MEM_CACHEATTR_UC",
    "XEN_DMOP_MEM_CACHEATTR_WC",
    "XEN_DMOP_MEM_CACHEATTR_WT",
    "XEN_DMOP_MEM_CACHEATTR_WP",
    "XEN_DMOP_MEM_CACHEATTR_WB",
    "XEN_DMOP_MEM_CACHEATTR_UCM",
    # xen/memory.h
    "XENMEM_resource_ioreq_server",
    "XENMEM_resource_grant_table",
    "XD_IOREQ_FRAME_BUFFERED",
    "XD_IOREQ_FRAME_FIRST",
    # xen/sched.h
    "SHUTDOWN_poweroff",
    "SHUTDOWN_reboot",
    "SHUTDOWN_suspend",
    "SHUTDOWN_crash",
    "SHUTDOWN_watchdog",
    "SHUTDOWN_soft_reset",
    # xen/xen.h, xenevtchn.h
    "DOMID_FIRST_RESERVED",
    "XENEVTCHN_NO_CLOEXEC",
)
PRELUDE = """
#include <xen/memory.h>
#include <xen/sched.h>
#define XD_IOREQ_FRAME_BUFFERED XENMEM_resource_ioreq_server_frame_bufioreq
#define XD_IOREQ_FRAME_FIRST XENMEM_resource_ioreq_server_frame_ioreq(0)
"""
FLAGS = ["-std=gnu11", "-O2", "-fvisibility=hidden"]


def make_ffi() -> FFI:
    ffi = FFI()
    for name in HEADERS:
        ffi.cdef(declarations(XEN / name))
    ffi.cdef("".join(f"#define {name} ...\n" for name in CONSTANTS))
    ffi.set_source_pkgconfig(
        "xengt_dm._xen",
        LIBRARIES,
        includes(HEADERS) + PRELUDE,
        sources=sources([XEN]),
        include_dirs=[relative(XEN)],
        depends=headers([XEN]),
        # Without __XEN_TOOLS__ Xen's headers hide all that is for device models.
        define_macros=[("__XEN_TOOLS__", "1")],
        extra_compile_args=[*FLAGS, *WARNINGS, *GENERATED, *from_environment("CFLAGS")],
        extra_link_args=from_environment("LDFLAGS"),
    )
    return ffi
