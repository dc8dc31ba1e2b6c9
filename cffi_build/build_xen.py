"""Builds ``xengt_dm._xen``: the binding to Xen's stable libraries.

Only libraries with a stable ABI are linked, never libxenctrl, whose soname changes with each Xen release: a build
against Xen 4.15's libraries runs on every later Xen. As in ``build_core``, one text serves the C compiler and cffi.
"""

import os
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
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
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
#: What cffi's generated wrapper does is not ours to warn about; the sources are also compiled alone, see tests/lint.
GENERATED = ["-Wno-conversion", "-Wno-sign-conversion", "-Wno-unused-parameter", "-Wno-shadow", "-Wno-sign-compare"]


def declarations(header: Path) -> str:
    """The header without its preprocessor lines."""
    return "".join(line for line in header.read_text().splitlines(keepends=True) if not line.startswith("#"))


def make_ffi() -> FFI:
    ffi = FFI()
    for name in HEADERS:
        ffi.cdef(declarations(XEN / name))
    ffi.cdef("".join(f"#define {name} ...\n" for name in CONSTANTS))
    sources = sorted(path.relative_to(HERE.parent).as_posix() for path in XEN.glob("*.c"))
    ffi.set_source_pkgconfig(
        "xengt_dm._xen",
        LIBRARIES,
        "".join(f'#include "{name}"\n' for name in HEADERS) + PRELUDE,
        sources=sources,
        include_dirs=[XEN.relative_to(HERE.parent).as_posix()],
        depends=[path.relative_to(HERE.parent).as_posix() for path in XEN.glob("*.h")],
        # Without __XEN_TOOLS__ Xen's headers hide all that is for device models.
        define_macros=[("__XEN_TOOLS__", "1")],
        extra_compile_args=[*FLAGS, *WARNINGS, *GENERATED, *os.environ.get("XENGT_CFLAGS", "").split()],
        extra_link_args=os.environ.get("XENGT_LDFLAGS", "").split(),
    )
    return ffi
