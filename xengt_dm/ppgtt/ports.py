"""What the engine asks of the world: mapping guest frames, having their stores trapped, and somebody to watch it.

The engine is sans-io: it decides, and these Protocols carry the decisions out. In the daemon
:class:`xengt_dm.traps.protection.Protection` and the hypervisor port do; in tests a recorder does.
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
    """Told what the engine does on its own and nobody sees from outside; for recording. Each is told before its effect.

    ``page`` is ``uint64_t[512]``, good for the call only; ``errors`` is as in :class:`FrameMapper`.
    """

    def frames_learnt(self, first_gfn: int, count: int, errors: CData) -> None:
        """Which of these frames are RAM has just been asked; 0 in ``errors`` for those that are."""

    def table_read(self, gfn: int, page: CData) -> None:
        """A table's shadow is about to follow this content of its frame, which is protected or gone."""

    def submitted(self, mode: Mode, roots: tuple[int, ...]) -> None: ...

    def gpu_stored(self, mode: Mode, roots: tuple[int, ...], va: int, value: int, gpa: int) -> None: ...


class Protector(Protocol):
    """Has stores to guest frames trapped, or lets them through.

    ``gfns`` is ``uint64_t *``, ``errors`` is ``int *`` and receives 0 or a positive errno for each frame.
    """

    def protect(self, gfns: CData, count: int, errors: CData) -> int:
        """From the return on, every store to these frames is trapped. Returns how many frames failed."""

    @property
    def gaps(self) -> int:
        """How often stores to protected frames may have gone unseen since the beginning.

        Whoever finds that it has grown cannot trust what it knows of any protected frame, and must read them all again.
        """

    def unprotect(self, gfns: CData, count: int) -> int:
        """These frames are plain memory again; the last ioreq that touched them is not answered yet.

        Returns how many of them were protected until now, not unsynced.
        """

    def unsync(self, gfn: int) -> bool:
        """Let the guest store to a protected frame unseen until :meth:`resync`. Returns False if it stays protected.

        A store that is under way when the frame becomes writable must still reach us. A hypervisor may not allow the
        change while a store to the frame is under way; then the protector remembers the frame, and says when
        :meth:`xengt_dm.ppgtt.engine.Engine.unsync` is worth another try.
        """

    def resync(self, gfns: CData, count: int, errors: CData) -> int:
        """Protect unsynced frames again. Returns how many failed."""

    def verify(self, gfns: CData, count: int) -> None:
        """Some of these protected frames may have been given back by the guest and replaced: protect those again."""

    def frames_changed(self) -> None:
        """The guest gave frames back, nobody knows which. Stores to protected frames may go unseen until the return."""
