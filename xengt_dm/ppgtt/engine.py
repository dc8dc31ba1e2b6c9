"""The shadow engine: address spaces, and what happens to them.

Theory of operation
-------------------
The guest's driver keeps, in its own memory, a tree of page tables for each address space of its GPU. The engine keeps a
shadow of each such tree: the tables a GPU could walk in their place. Three things change them:

* *a store* to a table (:mod:`xengt_dm.ppgtt.stores`). Its frame is write-protected, so the store comes to us, and the
  shadow is updated at once (strict). In relaxed mode most leaf tables are unsynced: their frames are plain memory, and
  the guest stores to them unseen, until
* *a submission*: the GPU is about to execute with a space. Every table that the space reaches is synced: unsynced ones
  are read, pending entries are tried again (:mod:`xengt_dm.ppgtt.syncing`).
* *frames that come and go*. The guest may give any frame back. Xen reports that afterwards, and does not say which
  frame it was. Then all that is known of frames is invalid, a new *epoch* begins, and all tables of a space are
  checked at its next submission.

So between submissions a shadow may be out of date. A reader (mappings, resolve, audit, tables) sees it as it is and
changes nothing; a caller that needs the present state calls :meth:`Engine.sync` first.

The shadow tables of all spaces share one quota. The space that was submitted longest ago loses its shadow first, and
gets it back at its next submission. What does not fit even so maps nothing, and is counted.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

from xengt_dm._core import lib
from xengt_dm.ppgtt import check
from xengt_dm.ppgtt.guest_frames import MAX_MAPPED, GuestFrames
from xengt_dm.ppgtt.ports import FrameMapper, Observer, Protector
from xengt_dm.ppgtt.read import Audit, Mapping, Reader, Runs, Table
from xengt_dm.ppgtt.space import LiveSpaces, Mode, Space, SpaceKey, sort_key, space_key
from xengt_dm.ppgtt.stores import DROPPED_STORE, TableStores
from xengt_dm.ppgtt.syncing import Synced, Syncer
from xengt_dm.ppgtt.tree import Change, ShadowTree
from xengt_dm.steps import Steps, begin, complete
from xengt_dm.units import PAGE_SIZE, CData

#: Submissions that are made in a slice if each of them finds nothing to do in another one.
MOST_AT_ONCE: Final = 8


class Sync(enum.Enum):
    """When a shadow follows its guest table."""

    STRICT = "strict"
    RELAXED = "relaxed"


class Engine:
    """The shadows of one domain. Sans-io: effects go out through ``mapper`` and ``protector``.

    ``frame_limit``: frames at or above it are not RAM. ``generation``: 8 or 9, the Intel graphics generation.
    ``counters``: an ``xd_counters *`` that outlives the engine. ``max_tables``: shadow tables at most.
    ``max_spaces``: live spaces at most. ``max_mapped_chunks``: 2 MiB chunks of guest memory that are mapped at most.
    ``spaces``: those that are live from the start, in place of none and ``max_spaces``; :meth:`rebuild` shadows them.
    ``quiesced``: as after :meth:`quiesce`.

    What may take long returns :data:`~xengt_dm.steps.Steps`, and happens while the caller runs these. Methods and their
    steps raise :class:`~xengt_dm.errors.CallError` as their effects do, and nothing because of the guest.
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
        max_spaces: int = 4096,
        max_mapped_chunks: int = MAX_MAPPED,
        spaces: LiveSpaces | None = None,
        quiesced: bool = False,
    ) -> None:
        if generation not in (8, 9):
            raise ValueError(f"generation {generation} is not one of 8 and 9")
        self.generation = generation
        self.sync_mode = sync
        self.counters = counters
        self.frames = GuestFrames(mapper, frame_limit, max_mapped_chunks)
        self._spaces = LiveSpaces(max_spaces) if spaces is None else spaces
        counters.spaces = len(self._spaces)
        self._tree = ShadowTree(self.frames, protector, counters, max_tables, self._spaces)
        #: The ``xd_shadow *`` behind the shadow tables, for functions in C.
        self.shadow: CData = self._tree.pointer
        self._reader = Reader(self.shadow)
        self._leaves = self._tree.leaves
        #: Guest memory, as the bus sees it.
        self.stores = TableStores(self._tree, self._leaves, self.frames, protector, counters)
        self.shadow.relaxed = sync is Sync.RELAXED
        #: Submissions, as far as C makes them by itself.
        self.submissions = self._syncer = Syncer(self._tree, self.frames, protector, self._spaces, counters)
        self._quiesced = quiesced
        self._tree.active = not quiesced
        self._observer: Observer | None = None

    def observe(self, observer: Observer | None) -> None:
        """Tell ``observer`` of what happens from here on; None for nobody."""
        self._observer = self.frames.observer = self._tree.observer = self._leaves.observer = observer

    def tell_all(self) -> Steps[None]:
        """Reports the frames of each known chunk and the page of each table to the observer."""
        yield from self.frames.query_all(self.frames.known_chunks())
        yield from self._leaves.tell_all()

    # Spaces

    @property
    def spaces(self) -> list[Space]:
        """The live spaces, sorted by :func:`.space.sort_key`; not while a guest is served, which may have many."""
        return sorted(self._spaces, key=sort_key)

    def space(self, key: SpaceKey) -> Space | None:
        """The live space with these root addresses."""
        return self._spaces.get(key)

    @property
    def spaces_by_age(self) -> list[Space]:
        """The live spaces, the one submitted longest ago first: the order in which they lose their shadows."""
        return list(self._spaces)

    def create_space(self, mode: Mode, roots: tuple[int, ...]) -> Steps[None]:
        """The guest announces a space. At the end of the steps its tables are shadowed.

        If the space is live already, only its reference count grows. If there are too many spaces, this is counted and
        nothing else happens: a submission of such a space shadows it for that one submission.
        """
        key = space_key(mode, roots)
        space = self._spaces.get(key)
        if space is not None:
            self._spaces.set_references(space, space.refs + 1)
        elif self._spaces.full:
            self.counters.refused_spaces += 1
        else:
            space = self._spaces.announce(mode, key)
            self.counters.spaces = len(self._spaces)
            yield from self._tree.shadow(space, Change(space))

    def destroy_space(self, mode: Mode, roots: tuple[int, ...]) -> Steps[bool]:
        """The guest is done with a space. Returns False, and counts it, if there is none."""
        space = self._spaces.get(space_key(mode, roots))
        if space is None:
            self.ignore_notification()
            return False
        self._spaces.set_references(space, space.refs - 1)
        if not space.refs:
            self.counters.spaces = len(self._spaces)
            yield from self._tree.unshadow(space)
        return True

    def ignore_notification(self) -> None:
        """Count an announcement of the guest that asks nothing of its page tables."""
        self.counters.ignored_notifications += 1

    def set_64k_pages(self, enabled: bool) -> None:
        """Whether the IPS bit of a page-directory entry counts (generation 9); holds from the next submission on."""
        self.shadow.wants_64k = enabled and self.generation == 9

    # What the guest and its GPU do

    def submit(self, mode: Mode, roots: tuple[int, ...]) -> Steps[object] | None:
        """The GPU is about to execute with this space; afterwards the shadow says what the guest's tables say.

        Returns None if that is done, or steps that do it. "What the guest's tables say" is as of the beginning: what a
        vCPU stores meanwhile may be in it or not.
        """
        if self._observer is not None:
            self._observer.submitted(mode, roots)
        space = self._spaces.get(roots)
        if space is None or space.mode is not mode:
            return self._with_space(mode, roots)
        self._spaces.submitted(space)
        return self._syncer.submit(space)

    def submit_all(self) -> Steps[None] | None:
        """The GPU may be executing with any live space; as :meth:`submit` of each of them, in slices."""
        work = (self.submit(space.mode, space.roots) for space in list(self._spaces) if space.refs)
        return begin(_one_by_one(work))

    def sync(self, space: Space) -> Steps[Synced]:
        """Sync a space now, as a submission does, and count it as one.

        Does nothing for a space that is not live any more.
        """
        return self._syncer.sync(space)

    def use(self, mode: Mode, roots: tuple[int, ...]) -> Steps[Space]:
        """As :meth:`submit`; returns the space. One that is not live has a shadow until :meth:`release`."""
        space = self._spaces.get(roots)
        if space is not None and space.mode is mode:
            rest = self.submit(mode, roots)
            if rest is not None:
                yield from rest
            return space
        if self._observer is not None:
            self._observer.submitted(mode, roots)
        space = Space(mode, space_key(mode, roots))
        try:
            yield from self._syncer.sync_counted(space)
        except BaseException:  # closed, perhaps: no slices any more
            complete(self._tree.unshadow(space))
            raise
        return space

    def release(self, space: Space) -> Steps[None]:
        """Nobody executes with a space any more that :meth:`use` returned."""
        if not space.live:
            yield from self._tree.unshadow(space)

    def query_chunks(self, chunks: list[int]) -> Steps[None]:
        """Find out which frames of these chunks are RAM; as :meth:`.guest_frames.GuestFrames.query_all`."""
        yield from self.frames.query_all(chunks)

    def follow_gpu_store(self, result: int, gpa: int, size: int, value: int) -> Steps[None]:
        """As :meth:`.stores.TableStores.follow_gpu_store`."""
        yield from self.stores.follow_gpu_store(result, gpa, size, value)

    def gpu_store(self, mode: Mode, roots: tuple[int, ...], va: int, value: int) -> Steps[bool]:
        """Submit, then store 8 bytes at ``va``, 8-byte aligned, where the shadow says.

        Returns False, and counts it, if that is nowhere writable.
        """
        if self._observer is not None:
            self._observer.submitted(mode, roots)
        space = self._spaces.get(space_key(mode, roots))
        if space is None:
            return (yield from self._with_space(mode, roots, va, value))
        yield from self.sync(space)
        return (yield from self._gpu_store(space, va, value))

    def _with_space(self, mode: Mode, roots: tuple[int, ...], va: int = 0, value: int | None = None) -> Steps[bool]:
        """Submit a space that is not live, and with a ``value``, store that; it has a shadow for that time."""
        space = Space(mode, space_key(mode, roots))
        stored = False
        try:
            yield from self._syncer.sync_counted(space)
            if value is not None:
                stored = yield from self._gpu_store(space, va, value)
        except BaseException:  # closed, perhaps: no slices any more
            complete(self._tree.unshadow(space))
            raise
        yield from self._tree.unshadow(space)
        return stored

    def _gpu_store(self, space: Space, va: int, value: int) -> Steps[bool]:
        page = self._reader.resolve(space, va)
        if page is not None and page.writable:
            gpa = page.gpa + va % PAGE_SIZE
            if self._observer is not None:
                self._observer.gpu_stored(space.mode, space.roots, va, value, gpa)
            route = self.stores.store_of_gpu(gpa, value, Change(space))
            if not isinstance(route, int):
                route = yield from route
            if route != DROPPED_STORE:
                return True
        self.counters.dropped_stores += 1
        return False

    # Reading: nothing below changes a table, the order of spaces, or a counter but those of audits

    def mappings(self, space: Space) -> Steps[Runs | None]:
        """What a space maps, as :meth:`.read.Reader.mappings`; None if it is too much to be listed."""
        return self._reader.mappings(space)

    def resolve(self, space: Space, va: int) -> Mapping | None:
        """The page that ``va`` resolves to in a space, or None."""
        return self._reader.resolve(space, va)

    def audit(self, space: Space, synced: Synced | None = None) -> Steps[Audit]:
        """Compare a space's shadow with the guest's tables, and count what was found.

        ``synced``: what :meth:`sync` of the space returned just now; then pending entries without a reason are overdue.
        Without it, tables that are not in sync are left out.
        """
        if synced is not None:
            found = yield from self._reader.audit(space, lib.XD_AUDIT_SYNCED, synced.refused)
        elif not self._syncer.has_gap:
            found = yield from self._reader.audit(space, lib.XD_AUDIT_AS_IT_IS)
        else:
            found = yield from self._reader.audit(space, lib.XD_AUDIT_TRAP_GAP)
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

    # Life

    def set_sync_mode(self, sync: Sync) -> Steps[None]:
        """When shadows follow, from here on. For strict, every unsynced table is protected and read."""
        self.sync_mode = sync
        self.shadow.relaxed = sync is Sync.RELAXED
        if sync is Sync.STRICT:
            yield from self._leaves.protect_all()

    @property
    def quiesced(self) -> bool:
        """Whether the engine protects and shadows nothing, after :meth:`quiesce`."""
        return self._quiesced

    def quiesce(self) -> Steps[None]:
        """Unprotect and unmap every frame. Spaces stay, and come and go, without shadows.

        Until :meth:`resume`, all that reads a shadow finds nothing mapped.
        """
        self._quiesced = True
        self._tree.active = False
        for space in list(self._spaces):
            yield from self._tree.unshadow(space)
            yield
        yield from self.frames.forget_all()

    def resume(self) -> Steps[None]:
        """Shadow the spaces again that are live now; the end of :meth:`quiesce`."""
        self._quiesced = False
        self._tree.active = True
        yield from self.rebuild()

    def hold_stores(self) -> None:
        """The protector holds stores from the start: those that a predecessor held."""
        self._leaves.hold_stores()

    def rebuild(self) -> Steps[None]:
        """Shadow the live spaces that have no shadow: all of them, at the start of a successor or after a quiesce.

        Until it is a space's turn it is as one that lost its shadow to make room: its shadow maps nothing, a store to
        one of its tables is performed in guest memory and no more, and a submission shadows it. Submissions do not wait
        for this. Ends early when the engine is quiesced or abandoned.
        """
        if not self.shadow.live:  # then no table must be read again because of it
            self.shadow.has_64k = self.shadow.wants_64k
        for space in list(self._spaces):
            if self._tree.active and space.refs and not space.shadowed:
                yield from self._tree.shadow(space, Change(space))
                yield

    def abandon(self) -> None:
        """Create no tables from here on, so that work under way comes to an early end; before :meth:`close`."""
        self._tree.active = False

    def settle(self) -> Steps[None]:
        """When there is time: stop keeping pages alive that the guest gave back."""
        yield from self.frames.drop_stale_mappings()

    def close(self) -> None:
        """Forget every space, at once: no frame stays protected, unsynced or mapped.

        The region of the live spaces keeps them for a successor.
        """
        complete(self.forget_all_spaces())
        self.frames.close()

    def leave(self) -> None:
        """Unmap guest memory. Frames stay protected, for the successor that the region of the live spaces is for."""
        self.frames.close()

    def end_all_spaces(self) -> Steps[None]:
        """The guest's driver is gone without a word: no space that it announced is live afterwards."""
        for space in list(self._spaces):
            if space.refs:
                self._spaces.end(space)
                self.counters.spaces = len(self._spaces)
                yield from self._tree.unshadow(space)
                yield

    def forget_all_spaces(self) -> Steps[None]:
        """Forget every space in this process; afterwards no frame is protected or unsynced."""
        for space in list(self._spaces):
            if space.refs:
                self._spaces.forget(space)
                self.counters.spaces = len(self._spaces)
                yield from self._tree.unshadow(space)
                yield


def _one_by_one(work: Iterator[Steps[object] | None]) -> Steps[None]:
    """Pieces of work, each begun when the one before is done; a few in a slice if each is done at once."""
    at_once = 0
    for each in work:
        if at_once == MOST_AT_ONCE:
            at_once = 0
            yield
        if each is None:
            at_once += 1
        else:
            yield from each
