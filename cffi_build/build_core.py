"""Builds ``xengt_dm._core``: the C that needs no hypervisor. See ``shared.py`` for how headers are read."""

from cffi import FFI
from owned import checks
from shared import GENERATED, HERE, WARNINGS, declarations, from_environment, headers, includes, relative, sources

CORE = HERE / "core"
#: Folders of the sources; a header is included by its name alone.
FOLDERS = (CORE / "base", CORE / "ioreq", CORE / "ppgtt", CORE / "serve", CORE / "trace", CORE / "traps")
#: In the order in which they build on each other.
HEADERS = (
    "guard.h",
    "sandbox.h",
    "stats.h",
    "ioreq.h",
    "journal.h",
    "slots.h",
    "entry_bits.h",
    "frames.h",
    "shadow.h",
    "need.h",
    "leaf.h",
    "directory.h",
    "update.h",
    "guest_store.h",
    "unsync.h",
    "sync.h",
    "walk.h",
    "runs_json.h",
    "audit.h",
    "page_lines.h",
    "protected_bits.h",
    "quick.h",
    "burst.h",
    "eventfd_channels.h",
)


def make_ffi() -> FFI:
    ffi = FFI()
    paths = [next(folder / name for folder in FOLDERS if (folder / name).exists()) for name in HEADERS]
    for path in paths:
        ffi.cdef(declarations(path))
    ffi.set_source(
        "xengt_dm._core",
        includes(HEADERS) + checks(paths),
        sources=sources(FOLDERS),
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
