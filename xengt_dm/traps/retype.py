"""Changes of types, and the second try after Xen has refused one.

Facts (xen/arch/x86/hvm/dm.c set_mem_type): EBUSY means that the page's type changed between Xen's look and its change.
ENOMEM means that Xen had no memory to split a superpage. EAGAIN means that the page is paged out or shared; on real Xen
the port has retried that already, for up to 51 ms (``set_type_retrying_eagain`` in cffi_build/xen/devicemodel.c).
EINVAL means that the frame's present type does not allow the change.

What follows: after EBUSY, ENOMEM and EAGAIN a second try can succeed. To the trapping type, EINVAL is the usual answer
for a frame that is no RAM or has the type already, and a guest decides how often it comes. To RAM, EINVAL is rare, and
the frame is taken for lost after it.

What we do: each type change in this package goes through :func:`set_types_in_place` or :func:`set_types`. A frame that
fails is tried a second time at once, except after EINVAL to the trapping type. Then the caller gets the errno: a frame
that cannot be protected fails alone, and one that cannot be unprotected stays protected: its unprotecting is deferred,
or it stays a candidate.

Cost: one more hypercall for each frame that fails. With pages that stay paged out, a change takes up to 102 ms.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from xengt_dm._core import ffi
from xengt_dm.hypervisor.port import DomainPort, MemType
from xengt_dm.units import CData


def set_types_in_place(port: DomainPort, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
    """Changes the types of frames, with a second try. Parameters and result are those of DomainPort.set_mem_types."""
    failures = port.set_mem_types(mem_type, gfns, count, errors)
    failed = [i for i in range(count) if _may_succeed_later(mem_type, errors[i])] if failures else []
    if failed:
        second = ffi.new("int[]", len(failed))
        port.set_mem_types(mem_type, ffi.new("uint64_t[]", [gfns[i] for i in failed]), len(failed), second)
        for i, error in zip(failed, second, strict=True):
            errors[i] = error
            if not error:
                failures -= 1
    return failures


def set_types(port: DomainPort, mem_type: MemType, gfns: Sequence[int]) -> list[int]:
    """Changes the types of frames, with a second try. Returns an errno or 0 for each. Raises DomainGoneError."""
    if not gfns:
        return []
    errors = ffi.new("int[]", len(gfns))
    set_types_in_place(port, mem_type, ffi.new("uint64_t[]", gfns), len(gfns), errors)
    return [*errors]


def _may_succeed_later(mem_type: MemType, error: int) -> bool:
    return error != 0 and (error != errno.EINVAL or mem_type is MemType.RAM_RW)
