"""The fake Xen, as tests see it: what it was asked, and what goes wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import cffi

from xengt_dm.hypervisor.port import MemType
from xengt_dm.hypervisor.xen.port import XenPort

CONTROL = cffi.FFI()
CONTROL.cdef((Path(__file__).parent / "control.h").read_text())


class Fake:
    """tests/fakexen/control.h."""

    def __init__(self) -> None:
        self.ffi = CONTROL
        self.lib = cast(Any, CONTROL.dlopen("libfakexen.so"))
        self.lib.fake_reset()

    def fail(self, call: str, error: int, nth: int = 1, times: int = 1) -> None:
        self.lib.fake_fail(call.encode(), nth, times, error)

    def calls(self) -> list[str]:
        """The calls since the last time, without the device-model library's prefix."""
        text = cast(bytes, self.ffi.string(self.lib.fake_calls())).decode()
        self.lib.fake_forget()
        return [line.removeprefix("xendevicemodel_") for line in text.splitlines()]

    def types(self, *gfns: int) -> list[int]:
        return [self.lib.fake_type(gfn) for gfn in gfns]

    def slot_port(self, page: int, vcpu: int) -> int:
        """vp_eport of a slot of a mapped page."""
        return int(self.ffi.cast("unsigned int *", page + 32 * vcpu + 24)[0])

    def gfns_of(self, *gfns: int) -> tuple[Any, Any]:
        """The arrays that a port's call for many frames takes: gfns, errors."""
        return self.ffi.new("uint64_t[]", list(gfns)), self.ffi.new("int[]", len(gfns))

    def set_types(self, port: XenPort, kind: MemType, *gfns: int) -> tuple[int, list[int]]:
        """How many frames failed, and each one's errno."""
        array, errors = self.gfns_of(*gfns)
        failed = port.set_mem_types(kind, array, len(gfns), errors)
        return failed, list(errors)
