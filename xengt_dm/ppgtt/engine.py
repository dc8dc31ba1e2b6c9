"""The shadow engine: address spaces, and what happens to them.

Theory of operation
-------------------
The guest's driver keeps, in its own memory, a tree of page tables for each address space of its GPU. The engine keeps a
shadow of each such tree: the tables a GPU could walk in their place. Three things change them:

* *a store* to a table. Its frame is write-protected, so the store comes to us, and the shadow is updated at once
  (strict). In relaxed mode the first store to a leaf table unsyncs it instead: the guest may store to it unseen, until
* *a submission*: the GPU is about to execute with a space. Every table that the space reaches is synced: unsynced ones
  are write-protected again and read, pending entries are tried again.
* *frames that come and go*. The guest may give any frame back, and only says so after the fact and without naming it.
  Then all that is known of frames is invalid, a new *epoch* begins, and each space is gone through at its next
  submission.

So between submissions a shadow may be behind. A reader (mappings, resolve, audit, tables) sees it as it is and changes
nothing; who needs it as of now calls :meth:`Engine.sync` first.

The shadow tables of all spaces share one quota. The space that was submitted longest ago loses its shadow first, and
gets it back at its next submission. What does not fit even so maps nothing, and is counted.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt import check
from xengt_dm.ppgtt.guest_frames import GuestFrames
from xengt_dm.ppgtt.ports import FrameMapper, Observer, Protector
from xengt_dm.ppgtt.read import Audit, Mapping, Reader, Runs, Table
from xengt_dm.ppgtt.space import LiveSpaces, Mode, Space, space_key
from xengt_dm.ppgtt.tree import BATCH, DROPPED_STORE, LEVEL_MASK, UNTRACKED_STORE, Change, ShadowTree
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE, CData


class Sync(enum.Enum):
    """When a shadow follows its guest table."""

    STRICT = "strict"
    RELAXED = "relaxed"


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync came to. ``refused``: frames of tables that could not be write-protected."""

    refused: frozenset[int] = frozenset()


class Engine:
    """The shadows of one domain. Sans-io: effects go out through ``mapper`` and ``protector``.

    ``frame_limit``: frames at or above it are not RAM. ``generation``: 8 or 9, the Intel graphics generation.
    ``counters``: an ``xd_counters *`` that outlives the engine. ``max_tables``: shadow tables at most.
    Methods raise :class:`~xengt_dm.errors.CallError` as their effects do, and nothing because of the guest.
    """

    def __init__(
        self,
        mapper: FrameMapper,
        protector: Protector,
        counters: CData,
        *,
        frame_limit: int,
        generation: int = 8,
        sync: Sync = Sync.STRICT,
        max_tables: int = 65536,
    ) -> None:
        if generation not in (8, 9):
            raise ValueError(f"generation {generation} is not one of 8 and 9")
        self.generation = generation
        self.sync_mode = sync
        self.counters = counters
        self.frames = GuestFrames(mapper, frame_limit)
        self._protector = protector
        self._spaces: LiveSpaces = OrderedDict()
        self._tree = ShadowTree(self.frames, protector, counters, max_tables, self._spaces)
        #: The ``xd_shadow *`` behind the shadow tables, for functions in C.
        self.shadow: CData = self._tree.pointer
        self._reader = Reader(self.shadow)
        self._sync_times: CData = ffi.addressof(counters, "timing", "syncs")
        self._quiesced = False
        #: The protector's gaps up to which every table was read again, or is of an earlier epoch.
        self._gaps = protector.gaps
        self._observer: Observer | None = None
        self._directories: CData = ffi.new("uint32_t[]", BATCH)
        self._leaves: CData = ffi.new("uint32_t[]", BATCH)
        self._work: CData = ffi.new("xd_sync_work *")
        self._work.directories = self._directories
        self._work.leaves = self._leaves
        self._work.capacity = BATCH

    def observe(self, observer: Observer | None) -> None:
        """Tell ``observer`` of what happens from here on; None for nobody."""
        self._observer = self.frames.observer = self._tree.observer = observer

    # Spaces

    @property
    def spaces(self) -> list[Space]:
        """The live spaces, sorted by mode, then roots."""
        return sorted(self._spaces.values(), key=lambda space: (space.mode.value, space.roots))

    @property
    def spaces_by_age(self) -> list[Space]:
        """The live spaces, the one submitted longest ago first: the order in which they lose their shadows."""
        return list(self._spaces.values())

    def create_space(self, mode: Mode, roots: tuple[int, ...]) -> None:
        """The guest announces a space; for a live one, once more. Its tables are shadowed at once."""
        key = space_key(mode, roots)
        space = self._spaces.get(key)
        if space is not None:
            space.refs += 1
            return
        space = Space(mode, key)
        self._spaces[key] = space
        self.counters.spaces = len(self._spaces)
        if not self._quiesced:
            self._tree.shadow(space, Change(space))

    def destroy_space(self, mode: Mode, roots: tuple[int, ...]) -> bool:
        """The guest is done with a space. Returns False, and counts it, if there is none."""
        key = space_key(mode, roots)
        space = self._spaces.get(key)
        if space is None:
            self.ignore_notification()
            return False
        space.refs -= 1
        if not space.refs:
            del self._spaces[key]
            self.counters.spaces = len(self._spaces)
            self._tree.unshadow(space)
        return True

    def ignore_notification(self) -> None:
        """Count an announcement of the guest that asks nothing of its page tables."""
        self.counters.ignored_notifications += 1

    def destroy_all_spaces(self) -> None:
        """Forget every space; afterwards no frame is protected or unsynced."""
        while self._spaces:
            _, space = self._spaces.popitem()
            self._tree.unshadow(space)
        self.counters.spaces = 0

    def set_64k_pages(self, enabled: bool) -> None:
        """Whether the IPS bit of a page-directory entry counts (generation 9); holds from the next submission on."""
        self.shadow.wants_64k = enabled and self.generation == 9

    # What the guest and its GPU do

    def store(self, gpa: int, size: int, value: int) -> int:
        """Perform one trapped store of ``size`` bytes within one frame, and update the shadow.

        Returns the store's route, an ``xd_route``.
        """
        route = self._tree.store(gpa, size, value)
        if route == DROPPED_STORE:
            self.counters.dropped_stores += 1
        elif route == UNTRACKED_STORE:
            self.counters.straggler_stores += 1
        elif self.sync_mode is Sync.RELAXED:
            self._tree.unsync(gpa >> PAGE_SHIFT)
        return route

    def unsync(self, gfn: int) -> bool:
        """Let the guest store to a leaf table unseen until the next submission, which resyncs it (relaxed mode).

        A trapped store asks for it by itself; this is for another try after the protector refused. Returns False, and
        nothing changes, if the mode is strict, if the frame serves as anything but leaf tables or is not protected any
        more, or if the protector refuses again.
        """
        return self.sync_mode is Sync.RELAXED and self._tree.unsync(gfn)

    def load(self, gpa: int, size: int) -> int:
        """``size`` bytes of guest memory within one frame; all ones if it is not RAM."""
        return self.frames.load(gpa, size)

    def frames_changed(self) -> None:
        """The guest gave frames back (IOREQ_TYPE_INVALIDATE); the next submission finds out which."""
        self._protector.frames_changed()
        self.frames.invalidate()
        lib.xd_new_epoch(self.shadow)

    def submit(self, mode: Mode, roots: tuple[int, ...]) -> None:
        """The GPU is about to execute with this space."""
        if self._observer is not None:
            self._observer.submitted(mode, roots)
        if self._protector.gaps != self._gaps:
            self._notice_gaps()
        space = self._spaces.get(roots)
        if space is None or space.mode is not mode or not self._sync_leaves(space):
            with self._submitted(mode, roots):
                pass

    def gpu_store(self, mode: Mode, roots: tuple[int, ...], va: int, value: int) -> bool:
        """Submit, then store 8 bytes at ``va``, 8-byte aligned, where the shadow says.

        Returns False, and counts it, if that is nowhere writable.
        """
        with self._submitted(mode, roots) as space:
            page = self._reader.resolve(space, va)
            if page is not None and page.writable:
                gpa = page.gpa + va % PAGE_SIZE
                if self._observer is not None:
                    self._observer.gpu_stored(mode, roots, va, value, gpa)
                if self._tree.store(gpa, 8, value, keep=space) != DROPPED_STORE:
                    return True
            self.counters.dropped_stores += 1
            return False

    # Reading: nothing below changes a table, the order of spaces, or a counter but those of audits

    def mappings(self, space: Space) -> Runs | None:
        """What a space maps; None if that is more runs than :data:`~xengt_dm.ppgtt.read.MAX_RUNS`."""
        return self._reader.mappings(space)

    def resolve(self, space: Space, va: int) -> Mapping | None:
        """The page that ``va`` resolves to in a space, or None."""
        return self._reader.resolve(space, va)

    def audit(self, space: Space, synced: Synced | None = None) -> Audit:
        """Compare a space's shadow with the guest's tables, and count what was found.

        ``synced``: what :meth:`sync` of the space returned just now; then pending entries without a reason are overdue.
        Without it, tables that are not in sync are left out.
        """
        if synced is not None:
            found = self._reader.audit(space, lib.XD_AUDIT_SYNCED, synced.refused)
        elif self._protector.gaps == self._gaps:
            found = self._reader.audit(space, lib.XD_AUDIT_AS_IT_IS)
        else:
            found = self._reader.audit(space, lib.XD_AUDIT_TRAP_GAP)
        self.counters.audits += 1
        self.counters.audit_mismatches += found.mismatches
        self.counters.audit_overdue += found.overdue
        return found

    def tables(self) -> Iterator[Table]:
        """Every guest table that has a shadow now, in no order; as :meth:`.read.Reader.tables`."""
        return self._reader.tables()

    def check(self) -> list[str]:
        """What is wrong with the engine's own records, a line each; for tests. It must be empty between two calls."""
        return check.violations(self.shadow, self._spaces)

    # Syncing

    def sync(self, space: Space) -> Synced:
        """Sync a space now, as a submission would, and count it as one; for readers who need it as of now.

        Does nothing for a space that is not live any more.
        """
        if self._spaces.get(space.roots) is not space:
            return Synced()
        self._spaces.move_to_end(space.roots)
        return self._sync_counted(space)

    @contextmanager
    def _submitted(self, mode: Mode, roots: tuple[int, ...]) -> Iterator[Space]:
        """The space, synced. One that is not live exists for the ``with`` block only."""
        space = self._spaces.get(space_key(mode, roots))
        if space is not None:
            self.sync(space)
            yield space
            return
        space = Space(mode, space_key(mode, roots))
        try:
            self._sync_counted(space)
            yield space
        finally:
            self._tree.unshadow(space)

    def _sync_counted(self, space: Space) -> Synced:
        self.counters.submissions += 1
        started = lib.xd_now()
        synced = self._sync(space)
        lib.xd_observe(self._sync_times, started)
        return synced

    def _sync_leaves(self, space: Space) -> bool:
        """Submit a live space that has nothing but leaf tables to sync; False if there may be more to do."""
        shadow, work = self.shadow, self._work
        leaves = lib.xd_sync_begin_leaves(shadow, space.gpas, space.numbers, space.count, work)
        if leaves < 0:
            return False
        self._spaces.move_to_end(space.roots)
        if not leaves:
            return True
        self._tree.resync_leaves(self._leaves, leaves)
        if self._protector.gaps != self._gaps:
            self._notice_gaps()
        return not lib.xd_sync_end_leaves(shadow, work)

    def _sync(self, space: Space) -> Synced:
        """Sync every table that a space reaches."""
        shadow = self.shadow
        self.frames.drop_stale_mappings()
        if shadow.has_64k != shadow.wants_64k:
            shadow.has_64k = shadow.wants_64k
            lib.xd_new_epoch(shadow)
        self.frames.invalidate_holes()
        change = Change(space)
        self._sync_pass(space, change)
        # The pass may use up the quota before it comes to a table that it frees. One more pass is enough: the first one
        # has freed all that there was to free, so what has no room in the second one stays without.
        if change.out_of_room and self._tree.room:
            self._sync_pass(space, change)
        return Synced(change.refused)

    def _sync_pass(self, space: Space, change: Change) -> None:
        """Shadow the roots, then sync what they reach until a look finds nothing left."""
        shadow, work = self.shadow, self._work
        shadow.submission = (shadow.submission + 1) & 0xFFFFFFFF
        if not self._quiesced:
            self._tree.shadow(space, change)
        while True:
            if self._protector.gaps != self._gaps:
                self._notice_gaps()
            lib.xd_sync_collect(shadow, space.numbers, space.count, work)
            directories, leaves = work.directory_count, work.leaf_count
            if not directories and not leaves:
                return
            if shadow.stale_tables:
                self._tree.verify(self._directories, directories)
                self._tree.verify(self._leaves, leaves)
            for i in range(directories):
                number = self._directories[i]
                level = shadow.tables[number].kind & LEVEL_MASK
                if level > 1:  # else it was freed since it was collected
                    self._tree.update_directory(number, level, change)
            self._tree.resync_leaves(self._leaves, leaves)

    def _notice_gaps(self) -> None:
        """There was a trap gap: have every table read again."""
        self._gaps = self._protector.gaps
        lib.xd_new_epoch(self.shadow)

    # Life

    def set_sync_mode(self, sync: Sync) -> None:
        """When shadows follow, from here on. For strict, every unsynced table is synced."""
        self.sync_mode = sync
        if sync is Sync.STRICT:
            self._sync_all()

    @property
    def quiesced(self) -> bool:
        return self._quiesced

    def quiesce(self) -> None:
        """Unprotect and unmap every frame. Spaces stay, and come and go, without shadows.

        Until :meth:`resume`, all that reads a shadow finds nothing mapped.
        """
        self._quiesced = True
        for space in self._spaces.values():
            self._tree.unshadow(space)
        self.frames.close()

    def resume(self) -> None:
        """Shadow the spaces again that are live now; the end of :meth:`quiesce`."""
        self._quiesced = False
        self._sync_all()

    def _sync_all(self) -> None:
        for space in list(self._spaces.values()):
            self._sync(space)

    def settle(self) -> None:
        """When there is time: stop keeping pages alive that the guest gave back."""
        self.frames.drop_stale_mappings()

    def close(self) -> None:
        """Forget every space: no frame stays protected, unsynced or mapped."""
        self.destroy_all_spaces()
        self.frames.close()
