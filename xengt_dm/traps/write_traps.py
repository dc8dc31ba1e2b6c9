"""Having Xen trap the stores to frames: what the two ways to do it have in common.

:class:`~xengt_dm.traps.claim.ClaimTraps` is the way of every Xen since 4.9, :class:`~xengt_dm.traps.ranges.RangeTraps`
that of the 2014 series. Why a frame may become RAM only with care is in :mod:`xengt_dm.traps.state`.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import Protocol

from xengt_dm._core import ffi
from xengt_dm.errors import HostError
from xengt_dm.units import CData


class WriteTraps(Protocol):
    """The write-protected frames of one ioreq server.

    Serves the shadows as their :class:`~xengt_dm.ppgtt.ports.Protector` and
    :class:`~xengt_dm.ppgtt.ports.FrameMapper`; those methods are described there. It knows exactly which frames trap,
    whatever became of who asked for it, so it can take everything down alone.

    Methods raise DomainGoneError, and nothing else unless they say so.
    """

    @property
    def gaps(self) -> int: ...

    def protect(self, gfns: CData, count: int, errors: CData) -> int: ...

    def unprotect(self, gfns: CData, count: int) -> int: ...

    def unsync(self, gfn: int) -> bool: ...

    def resync(self, gfns: CData, count: int, errors: CData) -> int: ...

    def verify(self, gfns: CData, count: int) -> None:
        """Raises HostError if a frame that the guest replaced cannot be protected again."""

    def frames_changed(self) -> None: ...

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        """Raises HostError, too."""

    def unmap_frames(self, address: int, count: int) -> None:
        """Raises HostError, too."""

    # What the serve loop asks for, when no store is being handled.

    def take_retries(self) -> list[int]:
        """The frames to unsync again, now that the stores to them are answered. The caller asks the engine to."""

    def unprotect_deferred(self) -> bool:
        """Try again to unprotect what could not be. Returns False if any of that still traps."""

    # What a successor asks for.

    def adopt_guard_ranges(self, gfns: Collection[int]) -> None:
        """A predecessor left guard ranges over these frames, or was about to claim them."""

    def guard_pending(self) -> None:
        """See to it that what remains of a store that waits in a slot comes to us, even if its frame is RAM by then.

        Raises HostError.
        """

    def protect_pending(self) -> None:
        """Give the frames of stores that are not over the trapping type, so that they may be answered.

        Those frames trap until :meth:`unprotect_deferred` succeeds.
        """

    # The end, in this order.

    def refuse_new(self) -> None:
        """Protect nothing from here on; what is protected can still be unprotected."""

    def unprotect_all(self) -> bool:
        """Unprotect every frame to which no store is under way. Returns False if any still traps."""

    def unprotect_by_force(self) -> None:
        """Unprotect every frame, whatever is under way. Raises HostError if any still traps."""

    def drop_guard_ranges(self) -> bool:
        """Remove the guard ranges of frames that no late store can reach. Returns False if any is left."""

    # For tests, and for whoever looks.

    @property
    def protected(self) -> frozenset[int]:
        """The frames that have the trapping type."""

    @property
    def vanished(self) -> int:
        """How many frames could not be unprotected because the guest had given them back or replaced them."""

    def check(self) -> None:
        """Raises AssertionError if what is known of the frames contradicts itself."""


def refuse(count: int, errors: CData) -> int:
    """Tell the caller of ``protect`` that nothing is protected any more."""
    ffi.memmove(errors, ffi.new("int[]", [errno.ESHUTDOWN] * count), count * ffi.sizeof("int"))
    return count


def not_verified(domid: int, error: int) -> HostError:
    """A table does not trap, and its shadow would become wrong without anybody's knowing."""
    name = errno.errorcode.get(error, error)
    return HostError(
        "xendevicemodel_set_mem_type", domid, error, f"{name} on protecting a page that the guest replaced"
    )


def still_trapping(domid: int, count: int) -> HostError:
    """So many frames cannot be unprotected."""
    return HostError("xendevicemodel_set_mem_type", domid, errno.EBUSY, f"{count} stay protected")
