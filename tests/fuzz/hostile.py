"""``hostile.c``, compiled and loaded."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import cffi

from xengt_dm._core import ffi as core
from xengt_dm._embedded import ffi as embedded

_HEADER: Final = Path(__file__).with_name("hostile.h")
FFI: Final = cffi.FFI()
FFI.cdef(_HEADER.read_text())
#: Whether the guest owns a frame.
LOST, OWNED = 0, 1


@cache
def load() -> Any:
    """The library; needs the C compiler that the project was built with ($CC, else cc)."""
    assert FFI.sizeof("hostile_op") == embedded.sizeof("xd_emb_op")
    assert FFI.sizeof("hostile_slot") == core.sizeof("xd_ioreq")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "hostile.so"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        source = _HEADER.with_suffix(".c")
        subprocess.run([*compiler, "-O2", "-g", "-std=gnu11", "-shared", "-fPIC", source, "-o", library], check=True)
        return cast(Any, FFI.dlopen(str(library)))
