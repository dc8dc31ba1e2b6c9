"""What the engine asks of the world: guest frames mapped, guest frames write-protected, and an observer.

The engine is sans-io: it decides, and implementations of these Protocols act. In the daemon these are the traps
(``xengt_dm/traps``) and the hypervisor port; in tests a fake guest.
"""

from __future__ import annotations

from typing import Protocol

from xengt_dm.ppgtt.space import Mode
from xengt_dm.units import CData


class FrameMapper(Protocol):
    """Maps guest frames into this process; see :class:`xengt_dm.hypervisor.port.DomainPort`."""

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int: ...

    def unmap_frames(self, address: int, count: int) -> None: ...


class Observer(Protocol):
    """Receives the engine's internal events, for recording. Each method is called before the event takes effect.

    ``page`` is ``uint64_t[512]``, valid during the call only. ``errors`` is as in :class:`FrameMapper`.
    """

    def frames_queried(self, first_gfn: int, count: int, errors: CData) -> None:
        """The hypervisor was asked which of these frames are RAM: those with 0 in ``errors`` are."""

    def table_read(self, gfn: int, page: CData) -> None:
        """The shadow of a table is about to be updated from this content of its frame."""

    def submitted(self, mode: Mode, roots: tuple[int, ...]) -> None:
        """The GPU is about to execute with a space."""

    def gpu_stored(self, mode: Mode, roots: tuple[int, ...], va: int, value: int, gpa: int) -> None:
        """The GPU is about to store 8 bytes at ``va``, which the shadow resolves to ``gpa``."""


class Protector(Protocol):
    """Write-protects guest frames, so that stores to them trap.

    ``gfns`` is ``uint64_t *`` with ``count`` frames; ``errors`` is ``int *`` and receives 0 or a positive errno for
    each.
    """

    @property
    def gaps(self) -> int:
        """How many trap gaps there were: moments in which stores to protected frames may have gone unseen.

        Whoever finds that the number has grown must read every protected table again.
        """

    def protect(self, gfns: CData, count: int, errors: CData) -> int:
        """Write-protect frames that are no tables yet: from the return on, every store to them traps.

        Returns how many failed. The error of a frame is EINPROGRESS if it must wait, as in :meth:`resync`.
        """

    def still_trapping(self, gfns: CData, count: int, errors: CData) -> int:
        """Tell of frames that are not protected as far as the engine knows whether they trap all the same.

        Those that do, because their unprotecting waits, have an error. Returns how many.
        """

    def unprotect(self, gfns: CData, count: int) -> None:
        """Make protected frames plain memory again; the last request that touched them is not answered yet."""

    @property
    def deferred(self) -> int:
        """How many frames still trap because it was too early to unprotect them."""

    def unprotect_deferred(self) -> bool:
        """Try again to unprotect these. Returns False if a deferred unprotect is left."""

    # Leaf tables that the guest may store to unseen (relaxed mode)

    def unsync(self, gfns: CData, count: int, errors: CData) -> int:
        """Make protected frames plain memory, which stay tables. Returns how many stay protected for now.

        A store that is under way when a frame becomes plain must still reach us, and a hypervisor may not allow the
        change while one is; such a frame stays protected, with an error.
        """

    def resync(self, gfns: CData, count: int, errors: CData, *, forced: bool = False) -> int:
        """Write-protect unsynced frames. Returns how many failed.

        The error of a frame is EINPROGRESS if it must wait for the end of a store that lies in it and the next frame.
        ``forced``: somebody waits for the change, so all is done that brings this end about.
        """

    @property
    def holding(self) -> bool:
        """Whether :meth:`held` may name a frame. It changes in protect, unsync, resync and release alone."""

    def held(self, gfn: int) -> int | None:
        """Whether a store to a frame must not be answered yet: the frame that must be plain memory before, or None."""

    def release(self, gfn: int) -> bool:
        """Try to make a frame that :meth:`held` named plain memory. Returns whether that is done.

        If it is a table, it is unsynced afterwards.
        """

    @property
    def late_stores_trap(self) -> bool:
        """Whether the frame of a late store must trap when the store is answered.

        If so, the engine protects it before if it is an unsynced table, and calls :meth:`trap_late` if it is no table.
        """

    def trap_late(self, gfn: int) -> None:
        """Protect a frame that is no table until the late store to it, which is about to be answered, is over.

        Does nothing if late stores need not trap.
        """

    def verify(self, gfns: CData, count: int) -> None:
        """Write-protect those of these protected frames again that the guest gave back and replaced."""

    def frames_changed(self) -> None:
        """The guest gave frames back; Xen does not say which.

        Stores to protected frames may go unseen until the return.
        """
