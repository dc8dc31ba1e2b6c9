"""Syncing a space, as a submission does: afterwards its shadow says what the guest's tables say.

Most submissions find nothing but leaf tables to resync, or nothing at all, and C finds out (``core/ppgtt/sync.h``). Any
other sync walks the tables from the roots down, in slices (:mod:`xengt_dm.steps`), until a walk finds nothing left and
no table was moved to where the walk was already.

One sync is made at a time, because the marks of the walk are in the tables. Another one waits for its turn.
"""

from __future__ import annotations

from typing import NamedTuple

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import GuestFrames
from xengt_dm.ppgtt.leaves import LEVEL_MASK, SLICE
from xengt_dm.ppgtt.ports import Protector
from xengt_dm.ppgtt.space import LiveSpaces, Space
from xengt_dm.ppgtt.tree import Change, ShadowTree
from xengt_dm.steps import Steps
from xengt_dm.units import CData


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
        #: A sync is under way, and has the marks in the tables and ``_work`` for itself.
        self._syncing = False
        #: The protector's gaps up to which every table was read again, or is of an earlier epoch.
        self._gaps = protector.gaps

    @property
    def has_gap(self) -> bool:
        """Whether there was a trap gap since the last sync: stores may have gone unseen."""
        return self._protector.gaps != self._gaps

    def submit(self, space: Space) -> Steps[Synced] | None:
        """Sync a live space. Returns None if that is done, or steps that do the rest.

        It is done at once if the space has nothing to sync but a few leaf tables, or nothing at all.
        """
        if self._syncing:
            return self.sync_counted(space)
        work, leaves = self._work, self._tree.leaves
        if self._protector.gaps != self._gaps:
            self._notice_gaps()
        count = lib.xd_sync_slice_begin(self._shadow, space.gpas, space.numbers, space.count, work, leaves.resyncing)
        if not count:
            return None
        if 0 < count <= SLICE:
            leaves.protect_again()
            if self._protector.gaps != self._gaps:
                self._notice_gaps()
            if not lib.xd_sync_slice_end(self._shadow, work, leaves.resyncing):
                return None
        elif count > 0:
            steps = self._sync_leaves(space, count)
            next(steps)  # claims the list before another sync makes one
            return steps
        return self.sync_counted(space)

    def sync(self, space: Space) -> Steps[Synced]:
        """Sync a space now, as a submission does, and count it as one.

        Does nothing for a space that is not live any more.
        """
        if self._spaces.get(space.roots) is not space:
            return Synced()
        self._spaces.submitted(space)
        rest = self.submit(space)
        return Synced() if rest is None else (yield from rest)

    def _sync_leaves(self, space: Space, count: int) -> Steps[Synced]:
        """Sync a space that has nothing but ``count`` leaf tables to sync, more than SLICE; or all if more turns up."""
        self._syncing = True
        try:
            yield
            yield from self._tree.leaves.resync(self._work.leaves, count)
            if self.has_gap:
                self._notice_gaps()
            done = not lib.xd_sync_end_leaves(self._shadow, self._work)
        finally:
            self._syncing = False
        return Synced() if done else (yield from self.sync_counted(space))

    def sync_counted(self, space: Space) -> Steps[Synced]:
        self._counters.submissions += 1
        started = lib.xd_now()
        synced = yield from self.sync_uncounted(space)
        lib.xd_observe(self._times, started)
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
            # one has freed all that there was to free, so what has no room in the second one stays without.
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
        yield from tree.leaves.resync(work.leaves, work.leaf_count)

    def _notice_gaps(self) -> None:
        """There was a trap gap: have every table read again."""
        self._gaps = self._protector.gaps
        lib.xd_new_epoch(self._shadow)
