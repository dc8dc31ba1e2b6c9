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
        """Write-protect frames: from the return on, every store to them traps. Returns how many failed."""

    def unprotect(self, gfns: CData, count: int) -> int:
        """Make frames plain memory again; the last request that touched them is not answered yet.

        Returns how many of them were protected until now, not unsynced.
        """

    def unsync(self, gfn: int) -> bool:
        """Let the guest store to a protected frame unseen until :meth:`resync`. Returns False if it stays protected.

        A store that is under way when the frame becomes writable must still reach us. A hypervisor may not allow the
        change while a store to the frame is under way; then the protector remembers the frame, and says when
        :meth:`xengt_dm.ppgtt.engine.Engine.unsync` is worth another try.
        """

    def resync(self, gfns: CData, count: int, errors: CData) -> int:
        """Write-protect unsynced frames again. Returns how many failed."""

    def verify(self, gfns: CData, count: int) -> None:
        """Write-protect those of these protected frames again that the guest gave back and replaced."""

    def frames_changed(self) -> None:
        """The guest gave frames back, nobody knows which. Stores to protected frames may go unseen until the return."""
