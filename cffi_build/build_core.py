"""Builds ``xengt_dm._core``: the C that needs no Xen.

Each header in ``core/`` is plain declarations, so that one text serves the C compiler and cffi: the lines that start
with ``#`` are for the compiler alone.
"""

import os
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
CORE = HERE / "core"
#: Folders of the sources; a header is included by its name alone.
FOLDERS = (CORE / "base", CORE / "ioreq", CORE / "ppgtt", HERE / "embedded")
#: In the order in which they build on each other.
HEADERS = (
    "guard.h",
    "sandbox.h",
    "stats.h",
    "slots.h",
    "entry.h",
    "frames.h",
    "shadow.h",
    "need.h",
    "leaf.h",
    "directory.h",
    "store.h",
    "sync.h",
    "walk.h",
    "runs_json.h",
    "audit.h",
    "embedded.h",
)
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
#: What cffi's generated wrapper does is not ours to warn about; the sources are also compiled alone, see tests/lint.
GENERATED = ["-Wno-conversion", "-Wno-sign-conversion", "-Wno-unused-parameter", "-Wno-shadow", "-Wno-sign-compare"]


def declarations(header: Path) -> str:
    """The header without its preprocessor lines."""
    return "".join(line for line in header.read_text().splitlines(keepends=True) if not line.startswith("#"))


def find(header: str) -> Path:
    """The path of a header of this extension."""
    return next(folder / header for folder in FOLDERS if (folder / header).exists())


def from_environment(name: str) -> list[str]:
    """Flags of whoever builds, after ours: XENGT_CFLAGS, XENGT_LDFLAGS."""
    return os.environ.get(f"XENGT_{name}", "").split()


def make_ffi() -> FFI:
    ffi = FFI()
    for name in HEADERS:
        ffi.cdef(declarations(find(name)))
    sources = sorted(path.relative_to(HERE.parent).as_posix() for folder in FOLDERS for path in folder.glob("*.c"))
    ffi.set_source(
        "xengt_dm._core",
        "".join(f'#include "{name}"\n' for name in HEADERS),
        sources=sources,
        include_dirs=[folder.relative_to(HERE.parent).as_posix() for folder in FOLDERS],
        depends=[path.relative_to(HERE.parent).as_posix() for folder in FOLDERS for path in folder.glob("*.h")],
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
