"""What the build scripts of the three extension modules have in common.

Each header is plain declarations, so that one text serves the C compiler and cffi. Lines that start with ``#`` are for
the compiler alone, and so is all that stands between ``#ifndef XD_CFFI`` and its ``#endif``: what C files of one
extension need of each other and Python does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
#: What cffi's generated wrapper does is not ours to warn about; the sources are also compiled alone, see tests/lint.
GENERATED = ["-Wno-conversion", "-Wno-sign-conversion", "-Wno-unused-parameter", "-Wno-shadow", "-Wno-sign-compare"]


def declarations(header: Path) -> str:
    """The part of a header that is for cffi."""
    return "".join(_for_cffi(header.read_text().splitlines(keepends=True)))


def _for_cffi(lines: Iterable[str]) -> Iterator[str]:
    compiler_only = False
    for line in lines:
        if line.startswith("#ifndef XD_CFFI"):
            compiler_only = True
        elif compiler_only:
            compiler_only = not line.startswith("#endif")
        elif not line.startswith("#"):
            yield line


def relative(path: Path) -> str:
    """A path as setuptools wants it: relative to the project's root."""
    return path.relative_to(HERE.parent).as_posix()


def sources(folders: Iterable[Path]) -> list[str]:
    """Every C file of the folders."""
    return sorted(relative(path) for folder in folders for path in folder.glob("*.c"))


def headers(folders: Iterable[Path]) -> list[str]:
    """Every header of the folders: a change to one of them compiles the extension anew."""
    return sorted(relative(path) for folder in folders for path in folder.glob("*.h"))


def includes(names: Iterable[str]) -> str:
    """C text that includes the headers."""
    return "".join(f'#include "{name}"\n' for name in names)


def from_environment(name: str) -> list[str]:
    """Flags of whoever builds, after ours: XENGT_CFLAGS, XENGT_LDFLAGS."""
    return os.environ.get(f"XENGT_{name}", "").split()
