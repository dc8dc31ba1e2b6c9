"""``reference.c``, compiled and loaded."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any, cast

import cffi

FFI = cffi.FFI()
FFI.cdef("""
uint64_t sync_pages(char *copies, const char *pages, uint64_t count);
void touch_pages(uint64_t *words, uint64_t count, uint64_t step, uint64_t bits);
void copy_pages(char *memory, const uint32_t *to, const uint32_t *from, uint64_t count);
void serve_stores(void *slot, char *memory, uint64_t stores, int (*notify)(void *, int), void *events, int port);
""")


def load() -> Any:
    """The library; needs the C compiler that the project was built with ($CC, else cc)."""
    source = Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "reference.so"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, "-O3", "-std=gnu11", "-shared", "-fPIC", source, "-o", library], check=True)
        return cast(Any, FFI.dlopen(str(library)))
