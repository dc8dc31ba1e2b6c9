"""The shadow engine: address spaces, and what happens to them.

Theory of operation
-------------------
The guest's driver keeps, in its own memory, a tree of page tables for each address space of its GPU. The engine keeps a
shadow of each such tree: the tables a GPU could walk in their place. Three things change them:

* *a store* to a table. Its frame is protected, so the store comes to us, and the shadow follows at once (strict). In
  relaxed mode the first store to a leaf table opens its frame instead: it is writable, and out of line, until
* *a submission*: the GPU is about to execute with a space. Every table that the space reaches is brought in line: open
  ones are protected again and compared, entries that could not be honoured are tried again.
* *frames that come and go*. The guest may give any frame back, and only says so after the fact and without naming it.
  Then everything known is doubtful, a new *era* begins, and each space is gone through at its next submission.

So between submissions a shadow may be behind; whoever reads one (dump, walk, audit, a GPU's store) submits first.

The shadow tables of all spaces share one quota. A space that was not submitted for longest loses its shadows first, and
gets them back at its next submission. What does not fit even so maps nothing, and is counted.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import GuestFrames
from xengt_dm.ppgtt.ports import FrameMapper, Observer, Protector
from xengt_dm.ppgtt.read import Audit, Mapping, Runs, Table, Walker
from xengt_dm.ppgtt.space import Mode, Space, SpaceKey, space_key
from xengt_dm.ppgtt.tree import BATCH, DROPPED_STORE, LEVEL_MASK, PAGE_SHIFT, UNTRACKED_STORE, ShadowTables
from xengt_dm.units import CData


class Sync(enum.Enum):
    """When a shadow follows its guest table."""

    STRICT = "strict"
    RELAXED = "relaxed"


class Engine:
    """The shadows of one domain. Sans-io: effects go out through ``mapper`` and ``protector``.

    ``frame_limit``: frames at or above it are no RAM. ``generation``: 8 or 9, the Intel graphics generation.
    ``counters``: an ``xd_counters *`` that outlives the engine. ``max_tables``: shadow tables at most.
    Methods raise :class:`~xengt_dm.errors.HostError` as their effects do, and nothing because of the guest.
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
        self.sync = sync
        self.counters = counters
        self._frames = GuestFrames(mapper, frame_limit)
        self._protector = protector
        self._tables = ShadowTables(self._frames, protector, counters, max_tables, self._make_room)
        self._walker = Walker(self._tables.pointer)
        #: Live spaces, the one submitted longest ago first.
        self._spaces: OrderedDict[SpaceKey, Space] = OrderedDict()
        self._sync_times: CData = ffi.addressof(counters, "timing", "syncs")
        self._busy: Space | None = None
        self._quiesced = False
        #: The protector's gaps up to which every table was read again, or is in an earlier era.
        self._gaps = protector.gaps
        self._observer: Observer | None = None
        self._directories: CData = ffi.new("uint32_t[]", BATCH)
        self._leaves: CData = ffi.new("uint32_t[]", BATCH)
        self._reached: CData = ffi.new("xd_sync_work *")
        self._reached.directories = self._directories
        self._reached.leaves = self._leaves
        self._reached.capacity = BATCH

    # Spaces

    @property
    def spaces(self) -> list[Space]:
        """The live spaces, sorted by mode, then roots."""
        return sorted(self._spaces.values(), key=lambda space: (space.mode.value, space.roots))

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
        with self._working_on(space):
            self._shadow_roots(space)

    def destroy_space(self, mode: Mode, roots: tuple[int, ...]) -> bool:
        """The guest is done with a space. False, and counted, if there is none."""
        key = space_key(mode, roots)
        space = self._spaces.get(key)
        if space is None:
            self.ignore_notification()
            return False
        space.refs -= 1
        if not space.refs:
            del self._spaces[key]
            self.counters.spaces = len(self._spaces)
            self._unshadow(space)
        return True

    def ignore_notification(self) -> None:
        """The guest announced something that asks nothing of its page tables."""
        self.counters.ignored_notifications += 1

    def destroy_all_spaces(self) -> None:
        """Forget every space; afterwards no frame is protected or open."""
        while self._spaces:
            _, space = self._spaces.popitem()
            self._unshadow(space)
        self.counters.spaces = 0

    def set_64k_pages(self, enabled: bool) -> None:
        """Whether the IPS bit of a page-directory entry counts (generation 9); holds from the next submission on."""
        self._tables.pointer.wants_64k = enabled and self.generation == 9

    # What the guest and its GPU do

    def store(self, gpa: int, size: int, value: int) -> int:
        """Perform one trapped store of ``size`` bytes within one frame, and let the shadows follow.

        Returns the store's route, an ``xd_route``.
        """
        route = self._tables.store(gpa, size, value)
        if route == DROPPED_STORE:
            self.counters.dropped_stores += 1
        elif route == UNTRACKED_STORE:
            self.counters.straggler_stores += 1
        elif self.sync is Sync.RELAXED:
            self._tables.unsync(gpa >> PAGE_SHIFT)
        return route

    def unsync(self, gfn: int) -> bool:
        """Let the guest store to a leaf table unseen until the next submission, which resyncs it (relaxed mode).

        A trapped store asks for it by itself; this is for another try after the protector refused. Returns False, and
        nothing changes, if the mode is strict, if the frame serves as anything but leaf tables or is not protected any
        more, or if the protector refuses again.
        """
        return self.sync is Sync.RELAXED and self._tables.unsync(gfn)

    def load(self, gpa: int, size: int) -> int:
        """``size`` bytes of guest memory within one frame; all ones if it is no RAM."""
        return self._tables.load(gpa, size)

    def frames_changed(self) -> None:
        """The guest gave frames back (IOREQ_TYPE_INVALIDATE); the next submission finds out which."""
        self._protector.frames_changed()
        self._frames.doubt()
        lib.xd_new_epoch(self._tables.pointer)

    def submit(self, mode: Mode, roots: tuple[int, ...]) -> None:
        """The GPU is about to execute with this space."""
        if self._observer is not None:
            self._observer.submitted(mode, roots)
        self._notice_gaps()
        space = self._spaces.get(roots)
        if space is None or space.mode is not mode or not self._submit_leaves(space):
            with self._submitted(mode, roots):
                pass

    def gpu_store(self, mode: Mode, roots: tuple[int, ...], va: int, value: int) -> bool:
        """Submit, then store 8 bytes at ``va``, 8-byte aligned, where the shadow says.

        False, and counted, if that is nowhere writable.
        """
        with self._submitted(mode, roots) as space:
            page = self._walker.resolve(space, va)
            if page is not None and page.writable:
                gpa = page.gpa + va % 4096
                if self._observer is not None:
                    self._observer.gpu_stored(mode, roots, va, value, gpa)
                if self._tables.store(gpa, 8, value) != DROPPED_STORE:
                    return True
            self.counters.dropped_stores += 1
            return False

    # Reading

    def mappings(self, space: Space) -> Runs | None:
        """What a live space maps, as if just submitted; None if that is more runs than :data:`walker.MAX_RUNS`."""
        with self._submitted(space.mode, space.roots):
            return self._walker.mappings(space)

    def resolve(self, space: Space, va: int) -> Mapping | None:
        """The page that ``va`` resolves to in a live space, as if just submitted."""
        with self._submitted(space.mode, space.roots):
            return self._walker.resolve(space, va)

    def audit(self, space: Space) -> Audit:
        """Compare a live space's shadow with the guest's tables. Counted."""
        with self._submitted(space.mode, space.roots):
            found = self._walker.audit(space, self._tables.refused)
        self.counters.audits += 1
        self.counters.audit_mismatches += found.mismatches
        self.counters.audit_overdue += found.overdue
        return found

    def tables(self) -> Iterator[Table]:
        """Every guest table that has a shadow now, in no order; as :meth:`walker.Walker.tables`."""
        return self._walker.tables()

    def close(self) -> None:
        """Let go of everything: no frame stays protected, open or mapped."""
        self.destroy_all_spaces()
        self._frames.close()

    def settle(self) -> None:
        """When there is time: stop keeping pages alive that the guest gave back."""
        self._frames.drop_mappings()

    # Being told what to be

    def set_sync(self, sync: Sync) -> None:
        """When shadows follow, from here on. For strict, every table that is open is closed."""
        self.sync = sync
        if sync is Sync.STRICT:
            for space in list(self._spaces.values()):
                with self._working_on(space):
                    self._bring_in_line(space)

    @property
    def quiesced(self) -> bool:
        return self._quiesced

    def quiesce(self) -> None:
        """Let go of every frame: none stays protected, open or mapped. Spaces stay, and come and go, without shadows.

        Until :meth:`resume`, all that reads a shadow finds nothing mapped.
        """
        self._quiesced = True
        for space in self._spaces.values():
            self._unshadow(space)
        self._frames.close()

    def resume(self) -> None:
        """Shadow the spaces again that are live now; the end of :meth:`quiesce`."""
        self._quiesced = False
        for space in list(self._spaces.values()):
            with self._working_on(space):
                self._bring_in_line(space)

    def observe(self, observer: Observer | None) -> None:
        """Have ``observer`` told of what happens from here on; None for nobody."""
        self._observer = self._frames.observer = self._tables.observer = observer

    # Inside

    @contextmanager
    def _working_on(self, space: Space) -> Iterator[None]:
        outer, self._busy = self._busy, space
        try:
            yield
        finally:
            self._busy = outer

    @contextmanager
    def _submitted(self, mode: Mode, roots: tuple[int, ...]) -> Iterator[Space]:
        """The space in line with the guest's tables; one that is not live exists for the ``with`` block only."""
        key = space_key(mode, roots)
        space = self._spaces.get(key)
        live = space is not None
        if space is None:
            space = Space(mode, key)
        else:
            self._spaces.move_to_end(key)
        self.counters.submissions += 1
        with self._working_on(space):
            try:
                started = lib.xd_now()
                self._bring_in_line(space)
                lib.xd_observe(self._sync_times, started)
                yield space
            finally:
                if not live:
                    self._unshadow(space)

    def _submit_leaves(self, space: Space) -> bool:
        """Submit a live space of which at most leaf tables are out of line; False if there may be more to do."""
        shadow, reached = self._tables.pointer, self._reached
        leaves = lib.xd_sync_begin_leaves(shadow, space.gpas, space.numbers, space.count, reached)
        if leaves < 0:
            return False
        self._spaces.move_to_end(space.roots)
        if leaves:
            self._tables.close_leaves(self._leaves, leaves)
            self._notice_gaps()
        return not lib.xd_sync_end_leaves(shadow, reached)

    def _notice_gaps(self) -> None:
        """If stores to protected frames may have gone unseen, have every table read again."""
        gaps = self._protector.gaps
        if gaps != self._gaps:
            self._gaps = gaps
            lib.xd_new_epoch(self._tables.pointer)

    def _bring_in_line(self, space: Space) -> None:
        shadow = self._tables.pointer
        self._frames.drop_mappings()
        if shadow.has_64k != shadow.wants_64k:
            shadow.has_64k = shadow.wants_64k
            lib.xd_new_epoch(shadow)
        self._frames.doubt_holes()
        self._tables.refused.clear()
        # A table may be one too many only until another, further on in the tree, was let go. Nothing in the first round
        # is there to be let go in the second, so a table that is short then stays short.
        for _ in range(2):
            self._tables.short = False
            self._look_at_all(space)
            if not self._tables.short or not self._tables.room():
                return

    def _look_at_all(self, space: Space) -> None:
        shadow = self._tables.pointer
        shadow.submission = (shadow.submission + 1) & 0xFFFFFFFF
        self._shadow_roots(space)
        reached = self._reached
        while True:
            self._notice_gaps()
            lib.xd_sync_collect(shadow, space.numbers, space.count, reached)
            directories, leaves = reached.directory_count, reached.leaf_count
            if not directories and not leaves:
                return
            if shadow.stale_tables:
                self._tables.verify(self._directories, directories)
                self._tables.verify(self._leaves, leaves)
            for i in range(directories):
                number = self._directories[i]
                if shadow.tables[number].kind & LEVEL_MASK > 1:
                    self._tables.fill_directory(number)
            self._tables.close_leaves(self._leaves, leaves)

    def _shadow_roots(self, space: Space) -> None:
        """Give each root its shadow, unless it has one that is still good."""
        if self._quiesced:
            return
        for i, root in enumerate(space.roots):
            gfn = root >> PAGE_SHIFT
            number = space.numbers[i]
            if number and not self._frames.is_ram(gfn):
                space.numbers[i] = 0
                self._tables.release(number)
                self._tables.bury()
            elif root and not number:
                space.numbers[i] = self._tables.root(gfn, space.mode.root_level)

    def _unshadow(self, space: Space) -> None:
        for i in range(space.count):
            number, space.numbers[i] = space.numbers[i], 0
            if number:
                self._tables.release(number)
        self._tables.bury()

    def _make_room(self, needed: int) -> bool:
        """Take their shadows from the spaces submitted longest ago, until ``needed`` tables fit or none is left."""
        reclaimed = False
        for space in list(self._spaces.values()):
            if self._tables.room() >= needed:
                break
            if space is not self._busy and any(space.numbers[i] for i in range(space.count)):
                self._unshadow(space)
                self.counters.reclaimed_spaces += 1
                reclaimed = True
        return reclaimed
