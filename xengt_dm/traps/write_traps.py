"""Write-protecting frames, so that Xen sends us the stores to them: what both implementations have in common.

:class:`~xengt_dm.traps.claim.ClaimTraps` is for every Xen since 4.9, :class:`~xengt_dm.traps.ranges.RangeTraps` for the
2014 series. :mod:`xengt_dm.traps.unprotect` decides when a frame may change its type, :mod:`xengt_dm.traps.retype` what
is tried a second time, and :mod:`xengt_dm.traps.state` explains why.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Container, Sequence
from typing import Protocol

from xengt_dm._core import ffi
from xengt_dm.errors import HostError
from xengt_dm.steps import Steps
from xengt_dm.units import CData


class WriteTraps(Protocol):
    """The write-protected frames of one ioreq server.

    The shadow engine uses it as its :class:`~xengt_dm.ppgtt.ports.Protector` and
    :class:`~xengt_dm.ppgtt.ports.FrameMapper`; those methods are described there. It keeps its own record of the frames
    that trap, so it can unprotect all of them without the engine.

    Methods raise DomainGoneError, and nothing else unless they say so.
    """

    @property
    def gaps(self) -> int: ...

    def protect(self, gfns: CData, count: int, errors: CData) -> int: ...

    def still_trapping(self, gfns: CData, count: int, errors: CData) -> int: ...

    def unprotect(self, gfns: CData, count: int) -> None: ...

    @property
    def deferred(self) -> int: ...

    def unsync(self, gfns: CData, count: int, errors: CData) -> int: ...

    def resync(self, gfns: CData, count: int, errors: CData, *, forced: bool = False) -> int: ...

    @property
    def holding(self) -> bool: ...

    def held(self, gfn: int) -> int | None: ...

    def release(self, gfn: int) -> bool: ...

    @property
    def late_stores_trap(self) -> bool: ...

    def trap_late(self, gfn: int) -> None: ...

    def verify(self, gfns: CData, count: int) -> None:
        """Raises HostError if a frame that the guest replaced cannot be protected again."""

    def frames_changed(self) -> None: ...

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        """Raises HostError, too."""

    def unmap_frames(self, address: int, count: int) -> None:
        """Raises HostError, too."""

    def unprotect_deferred(self) -> bool:
        """Tries :data:`~.unprotect.BATCH` frames, those first that were tried longest ago."""

    # For a successor.

    def adopt_guard_ranges(self, gfns: Collection[int]) -> None:
        """Takes over the guard ranges that a predecessor left over these frames, or was about to claim."""

    def adopt_protected(self, gfns: Sequence[int]) -> None:
        """Takes over the frames that a predecessor may have left with the trapping type.

        They trap until they are protected again, or until :meth:`unprotect_adopted`. Ranges are adopted before.
        """

    def unprotect_adopted(self) -> Steps[None]:
        """Unprotects what was adopted and not protected again, :data:`~.unprotect.BATCH` frames a slice.

        Those that still trap at the end, because a store to them is in flight, are left to :meth:`unprotect_deferred`.
        """

    def guard_in_flight(self) -> None:
        """Gives guard ranges to the frames of the stores in flight, so that their remaining parts come to us as well.

        Raises HostError.
        """

    def protect_in_flight(self) -> None:
        """Gives the trapping type to the frames of the stores in flight, so that these may be answered.

        The frames are adopted: they trap until :meth:`unprotect_adopted`.
        """

    # For the end, in this order.

    def refuse_new(self) -> None:
        """Refuses to protect any frame from here on. Protected frames can still be unprotected."""

    def unprotect_all(self) -> Steps[bool]:
        """Unprotects every frame to which no store is in flight. The steps end with False if any frame still traps."""

    def unprotect_by_force(self) -> None:
        """Unprotects every frame, even if a store to it is in flight. Raises HostError if any frame still traps."""

    def claim_released(self) -> None:
        """The claim was released, so that every frame with the trapping type became RAM."""

    def drop_guard_ranges(self) -> bool:
        """Removes the guard ranges that no late store can need. Returns False if any guard range is left."""

    # For tests and reports.

    @property
    def protected(self) -> frozenset[int]:
        """The frames that have the trapping type, or may have it from a predecessor."""

    @property
    def vanished(self) -> int:
        """How many frames could not be unprotected because the guest had given them back or replaced them."""

    def check(self) -> None:
        """Raises AssertionError if the records about the frames contradict each other."""


def refuse(count: int, errors: CData) -> int:
    """Fills ``errors`` for a caller of ``protect`` after :meth:`WriteTraps.refuse_new`. Returns ``count``."""
    ffi.memmove(errors, ffi.new("int[]", [errno.ESHUTDOWN] * count), count * ffi.sizeof("int"))
    return count


def report_busy(gfns: Sequence[int], busy: Container[int], errors: CData) -> int:
    """Stores EBUSY in ``errors`` for each frame that is ``busy``, and 0 for the others. Returns how many are busy."""
    failures = 0
    for i, gfn in enumerate(gfns):
        is_busy = gfn in busy
        errors[i] = errno.EBUSY if is_busy else 0
        failures += is_busy
    return failures


def not_verified(domid: int, error: int) -> HostError:
    """The error for a table that does not trap although it must: its shadow would become wrong unnoticed."""
    name = errno.errorcode.get(error, error)
    return HostError(
        "xendevicemodel_set_mem_type", domid, error, f"{name} on protecting a page that the guest replaced"
    )


def still_trapping(domid: int, count: int) -> HostError:
    """The error for frames that cannot be unprotected; ``count`` is how many."""
    return HostError("xendevicemodel_set_mem_type", domid, errno.EBUSY, f"{count} stay protected")
