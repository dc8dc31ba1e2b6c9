"""Builds ``xengt_dm._embedded``: the embedded hypervisor. ``xengt-dm run`` never loads it.

It shares the types of ``ioreq.h`` with ``_core``, so that a structure made with one module may be passed to the other.
It calls no C function of ``_core``. See ``shared.py`` for how headers are read.
"""

from cffi import FFI
from shared import GENERATED, HERE, WARNINGS, declarations, from_environment, headers, includes, relative, sources

IOREQ = HERE / "core" / "ioreq"
EMBEDDED = HERE / "embedded"
#: Folders in which a header is looked for. Sources are those of the first alone.
FOLDERS = (EMBEDDED, IOREQ)
#: What Python sees, in the order in which they build on each other. The other headers are for C alone.
HEADERS = (
    "slot_page.h",
    "rules.h",
    "domain.h",
    "calls.h",
    "phases.h",
    "memory.h",
    "p2m.h",
    "mapping.h",
    "servers.h",
    "ranges.h",
    "claim.h",
    "events.h",
    "vcpu_run.h",
    "sim_share.h",
)


def shared_with_core() -> FFI:
    """The declarations that are taken from ``_core`` when ``_embedded`` is loaded.

    cffi finds them there by name. So this needs no other declaration of ``_core``, and is never compiled.
    """
    ffi = FFI()
    ffi.cdef(declarations(IOREQ / "ioreq.h"))
    ffi.set_source("xengt_dm._core", "")
    return ffi


def make_ffi() -> FFI:
    ffi = FFI()
    ffi.include(shared_with_core())
    for name in HEADERS:
        ffi.cdef(declarations(EMBEDDED / name))
    ffi.set_source(
        "xengt_dm._embedded",
        includes(HEADERS),
        sources=sources([EMBEDDED]),
        include_dirs=[relative(folder) for folder in FOLDERS],
        depends=headers(FOLDERS),
        extra_compile_args=[
            "-std=gnu11",
            "-O3",
            "-fvisibility=hidden",
            *WARNINGS,
            *GENERATED,
            *from_environment("CFLAGS"),
        ],
        extra_link_args=["-pthread", *from_environment("LDFLAGS")],
    )
    return ffi
