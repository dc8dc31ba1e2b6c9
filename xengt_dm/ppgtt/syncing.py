"""Syncing a space, as a submission does: afterwards its shadow says what the guest's tables say.

Most submissions find nothing but unsynced leaf tables to read, or nothing at all. C finds out, and reads them
(``core/ppgtt/sync.h``). Any other sync walks the tables from the roots down, in slices (:mod:`xengt_dm.steps`), until a
walk finds nothing left and no table was moved to where the walk was already.

A submission also decides which leaf tables are protected and which are not, in relaxed mode. Tables that have settled
are protected as they are read. Tables to which stores have trapped are unsynced at the end, after the sync and before
the submission is answered: the vCPU that submits waits, so no instruction of its own is in the way.

One sync is made at a time, because the marks of the walk are in the tables. Another one waits for its turn.
"""

from __future__ import annotations

from typing import NamedTuple

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import GuestFrames
from xengt_dm.ppgtt.leaves import LEVEL_MASK
from xengt_dm.ppgtt.ports import Protector
from xengt_dm.ppgtt.space import LiveSpaces, Space
from xengt_dm.ppgtt.tree import Change, ShadowTree
from xengt_dm.steps import Steps, begin, begun
from xengt_dm.units import CData

# What came of a slice in C (core/ppgtt/sync.h).
FULL: int = lib.XD_SYNC_FULL
DONE: int = lib.XD_SYNC_DONE
MORE: int = lib.XD_SYNC_MORE


class Synced(NamedTuple):
    """What a sync came to. ``refused``: frames of tables that could not be write-protected."""

    refused: frozenset[int] = frozenset()


class Syncer:
    """Syncs the spaces of one domain. Raises as :class:`~xengt_dm.ppgtt.tree.ShadowTree` does."""

    def __init__(
        self, tree: ShadowTree, frames: GuestFrames, protector: Protector, spaces: LiveSpaces, counters: CData
    ) -> None:
        self._tree = tree
        self._shadow: CData = tree.pointer
        self._frames = frames
        self._protector = protector
        self._spaces = spaces
        self._counters = counters
        self._times: CData = ffi.addressof(counters, "timing", "syncs")
        self._work: CData = ffi.new("xd_sync_work *")
        self._work.settled = tree.leaves.settled
        #: For C, which makes some submissions by itself (``core/ppgtt/submit.h``); an ``xd_submit *``.
        self.pointer: CData = ffi.new(
            "xd_submit *", {"shadow": self._shadow, "spaces": spaces.pointer, "work": self._work}
        )
        #: The protector's gaps up to which every table was read again, or is of an earlier epoch.
        self._gaps = protector.gaps

    @property
    def has_gap(self) -> bool:
        """Whether there was a trap gap since the last sync: stores may have gone unseen."""
        return self._protector.gaps != self._gaps

    @property
    def _syncing(self) -> bool:
        """Whether a sync is under way, and has the marks in the tables and ``_work`` for itself."""
        return bool(self.pointer.syncing)

    @_syncing.setter
    def _syncing(self, syncing: bool) -> None:
        self.pointer.syncing = syncing

    def update(self) -> None:
        """Tell C whether it may make submissions from here on; none of this changes while it serves."""
        protector = self._protector
        self.pointer.blocked = (
            protector.deferred > 0 or protector.gaps != self._gaps or self._tree.leaves.observer is not None
        )

    def submit(self, space: Space) -> Steps[object] | None:
        """Sync a live space. Returns None if that is done, or steps that do the rest."""
        if self._syncing:
            return self.sync_counted(space)
        result = self._begin(space)
        if result == FULL:
            return self.sync_counted(space)
        leaves = self._tree.leaves
        if result == DONE and not (leaves.settled.count or self._protector.deferred):
            return leaves.unsync_stored()
        rest = begin(self._rest(space, result))  # its first slice claims the work before another sync does
        return None if rest is None else begun(rest)

    def sync(self, space: Space) -> Steps[Synced]:
        """Sync a space now, as a submission does, and count it as one.

        Does nothing for a space that is not live any more.
        """
        if self._spaces.get(space.roots) is not space:
            return Synced()
        self._spaces.submitted(space)
        result = FULL if self._syncing else self._begin(space)
        return (yield from self.sync_counted(space) if result == FULL else self._rest(space, result))

    def _begin(self, space: Space) -> int:
        """The first slice of a sync, in C. Returns an XD_SYNC_* of ``core/ppgtt/sync.h``."""
        if self.has_gap:
            self._notice_gaps()
        watched = self._tree.leaves.observer is not None
        result: int = lib.xd_sync_begin(self._shadow, space.gpas, space.numbers, space.count, self._work, watched)
        return result

    def _rest(self, space: Space, result: int) -> Steps[Synced]:
        """What is left of a sync whose first slice came to ``result``, which is not FULL."""
        shadow, work, leaves = self._shadow, self._work, self._tree.leaves
        self._syncing = True
        try:
            while result == MORE:
                leaves.settle()
                if work.leaf_count:  # left to us, because somebody watches
                    yield from leaves.sync(work.leaves, work.leaf_count)
                yield
                if self.has_gap:
                    self._notice_gaps()
                result = lib.xd_sync_more(shadow, work, leaves.observer is not None)
            types_changed = leaves.settled.count > 0
            leaves.settle()
        finally:
            self._syncing = False
        if result == FULL or shadow.stale_tables:
            return (yield from self.sync_counted(space))
        if types_changed:
            yield
        yield from self._end()
        return Synced()

    def _end(self) -> Steps[None]:
        """The end of a submission: unprotect what need not be protected."""
        if self._protector.deferred:
            self._protector.unprotect_deferred()
            yield
        rest = self._tree.leaves.unsync_stored()
        if rest is not None:
            yield from rest

    def sync_counted(self, space: Space) -> Steps[Synced]:
        """Sync a space as :meth:`sync_uncounted`, count it as a submission, and do what the end of one does."""
        self._counters.submissions += 1
        started = lib.xd_now()
        synced = yield from self.sync_uncounted(space)
        lib.xd_observe(self._times, started)
        yield from self._end()
        return synced

    def sync_uncounted(self, space: Space) -> Steps[Synced]:
        """Sync every table that a space reaches, once no other sync is under way."""
        while self._syncing:
            yield
        shadow = self._shadow
        self._syncing = True
        try:
            yield from self._frames.drop_stale_mappings()
            if shadow.has_64k != shadow.wants_64k:
                shadow.has_64k = shadow.wants_64k
                lib.xd_new_epoch(shadow)
            self._frames.invalidate_holes()
            change = Change(space)
            yield from self._sync_pass(space, change)
            # The pass may use up the quota before it comes to a table that it frees. One more pass is enough: the first
            # one has freed every table that it could, so a table that finds no room in the second one gets none.
            if change.out_of_room and self._tree.room:
                yield from self._sync_pass(space, change)
            return Synced(frozenset(change.refused))
        finally:
            self._syncing = False

    def _sync_pass(self, space: Space, change: Change) -> Steps[None]:
        """Shadow the roots, then sync what they reach until a walk finds nothing, and nothing was moved meanwhile."""
        shadow, work, tree = self._shadow, self._work, self._tree
        shadow.submission += 1
        yield from tree.shadow(space, change)
        while True:
            if self.has_gap:
                self._notice_gaps()
            lib.xd_sync_walk(shadow, space.numbers, space.count, work)
            while True:
                ended = lib.xd_sync_collect(shadow, work)
                if work.directory_count or work.leaf_count:
                    yield from self._sync_collected(change)
                if ended:
                    break
                yield
            if not work.collected and work.relinks == shadow.relinks:
                return

    def _sync_collected(self, change: Change) -> Steps[None]:
        """Sync the tables that the walk collected."""
        shadow, work, tree = self._shadow, self._work, self._tree
        directories = ffi.unpack(work.directories, work.directory_count)
        if shadow.stale_tables:
            yield from tree.leaves.verify([*directories, *ffi.unpack(work.leaves, work.leaf_count)])
        for number in directories:
            level = shadow.tables[number].kind & LEVEL_MASK
            if level > 1:  # else it was freed since it was collected
                yield from tree.update_directory(number, level, change)
                yield
        yield from tree.leaves.sync(work.leaves, work.leaf_count)

    def _notice_gaps(self) -> None:
        """There was a trap gap: have every table read again."""
        self._gaps = self._protector.gaps
        lib.xd_new_epoch(self._shadow)
