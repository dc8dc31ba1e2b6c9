"""Builds ``xengt_dm._core``: the C that needs no hypervisor. See ``shared.py`` for how headers are read."""

from cffi import FFI
from owned import checks
from shared import GENERATED, HERE, WARNINGS, declarations, from_environment, headers, includes, relative, sources

CORE = HERE / "core"
#: Folders of the sources; a header is included by its name alone.
FOLDERS = (
    CORE / "base",
    CORE / "ioreq",
    CORE / "ppgtt",
    CORE / "serve",
    CORE / "trace",
    CORE / "traps",
    CORE / "vgpu",
)
#: In the order in which they build on each other. True: its functions that begin with a pointer belong to the thread
#: which serves the guest (``owned.py``).
HEADERS = {
    "guard.h": False,
    "sandbox.h": False,
    "stats.h": False,
    "ioreq.h": False,
    "journal.h": True,
    "slots.h": True,
    "entry_bits.h": False,
    "frames.h": True,
    "shadow.h": True,
    "need.h": True,
    "leaf.h": True,
    "directory.h": True,
    "update.h": True,
    "guest_store.h": True,
    "unsync.h": True,
    "sync.h": True,
    "submit.h": True,
    "walk.h": True,
    "runs_json.h": False,
    "audit.h": True,
    "page_lines.h": False,
    "protected_bits.h": False,
    "commands.h": False,
    "gpu_memory.h": True,
    "blit_surface.h": False,
    "blit_command.h": False,
    "blit_raster.h": False,
    "blit.h": True,
    "gpu.h": False,
    "interrupts.h": True,
    "execlists.h": True,
    "context_image.h": False,
    "streamer.h": True,
    "hot.h": True,
    "aperture.h": True,
    "quick.h": False,
    "burst.h": True,
    "eventfd_channels.h": False,
}


def make_ffi() -> FFI:
    ffi = FFI()
    paths = {name: next(folder / name for folder in FOLDERS if (folder / name).exists()) for name in HEADERS}
    for path in paths.values():
        ffi.cdef(declarations(path))
    ffi.set_source(
        "xengt_dm._core",
        includes(HEADERS) + checks([path for name, path in paths.items() if HEADERS[name]]),
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
