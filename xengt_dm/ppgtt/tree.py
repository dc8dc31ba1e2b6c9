"""The tree of shadow tables: which guest tables have one, and how shadow tables are created, updated, linked and freed.

Python decides per table here, C works per entry. A guest table gets its shadow table when an entry or a root first
names it: the table is *created*, its frame is write-protected, and only then its page is read (*updated*) and the
tables that it names are created in turn; the entries are *linked* to theirs. Tables are created before others are
freed, so that replacing an entry by itself costs nothing. A table that loses its last reference is *freed*, and its
frame unprotected, before the work that unlinked it ends: so the guest may use the page as plain memory as soon as the
request that did it is answered.

Every recursion is bounded by the level: the tables that a table names are one level below it, whatever the guest points
to what.

Work that may be long is done in slices (:mod:`xengt_dm.steps`). Between two slices:

* Every table is in the index with its frame write-protected, so a store to it traps and updates it, whoever created it.
* A table that was not read yet is *unread*: it maps nothing, and the next sync reads it if its creator does not.
* ``first_unreferenced`` is 0: what a piece of work unlinked is its own to free, so that small work does not wait for
  the end of large work.

What a piece of work does between two yields is done at once, so no two pieces of work see each other's halves. A
directory is updated by :data:`SLICE` entries at a time, each time from a fresh copy of the guest's page, because
another vCPU may have stored to it in between, and updated that entry already.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import CHUNK_FRAMES, UNKNOWN, GuestFrames, take_chunks
from xengt_dm.ppgtt.leaves import ENTRIES, LEVEL_MASK, SLICE, UNSYNCED, LeafTables
from xengt_dm.ppgtt.ports import Observer, Protector
from xengt_dm.ppgtt.space import LiveSpaces, Space
from xengt_dm.steps import Steps
from xengt_dm.units import PAGE_SHIFT, CData

LAST = ENTRIES - 1
UNREAD: int = lib.XD_TABLE_UNREAD
#: Tables that are freed in a slice: on most hypervisors a frame takes several calls before it is plain memory.
FREE_SLICE = 32


@dataclass(slots=True)
class Change:
    """One structural change, and what it came to: a space that is shadowed or synced, or a store to a directory."""

    #: The space that it is made for, which keeps its shadow when room is made; None if any space may lose it.
    keep: Space | None = None
    #: Frames of tables that could not be write-protected, so that nothing is mapped through them.
    refused: set[int] = field(default_factory=set)
    #: Tables were left out because the quota has no room for them.
    out_of_room: bool = False


class ShadowTree:
    """All shadow tables of one domain. ``pointer`` is the ``xd_shadow *`` behind them, for functions in C.

    ``spaces``: the live spaces; when the quota of ``max_tables`` is used up, those submitted longest ago lose their
    shadows first. Raises MemoryError without memory. Methods raise :class:`~xengt_dm.errors.CallError` as the protector
    and the mapper of the frames do, and nothing because of the guest.
    """

    def __init__(
        self, frames: GuestFrames, protector: Protector, counters: CData, max_tables: int, spaces: LiveSpaces
    ) -> None:
        pointer = lib.xd_shadow_new(frames.pointer, counters, max_tables)
        if pointer == ffi.NULL:
            raise MemoryError(f"no memory for {max_tables} shadow tables")
        self.pointer: CData = ffi.gc(pointer, lib.xd_shadow_free)
        self.observer: Observer | None = None
        self._frames = frames
        self._protector = protector
        self._counters = counters
        self._spaces = spaces
        self.leaves = LeafTables(self.pointer, frames, protector, counters)
        #: Whether tables are created. If not, what is under way comes to an early end.
        self.active = True
        # Memory of one slice; nothing is kept in it across a yield.
        self._need: CData = ffi.new("xd_need *")
        self._entries: CData = ffi.new("uint64_t[]", ENTRIES)
        self._missing: CData = ffi.new("xd_missing_table[]", ENTRIES)
        self._numbers: CData = ffi.new("uint32_t[]", ENTRIES)
        self._gfns: CData = ffi.new("uint64_t[]", SLICE)
        self._errors: CData = ffi.new("int[]", SLICE)
        self._splits: CData = ffi.new("uint32_t *")
        self._shared: CData = ffi.new("uint32_t *")

    @property
    def room(self) -> int:
        """How many more tables the quota allows."""
        return int(self.pointer.max_tables - self.pointer.live)

    # The shadow of a space

    def shadow(self, space: Space, change: Change) -> Steps[None]:
        """Give each root of a space its table, with all tables below, unless it has one whose frame is still RAM.

        Does nothing for a space that the guest is done with.
        """
        for i, root in enumerate(space.roots):
            if not self.active:
                return
            gfn = root >> PAGE_SHIFT
            if self._frames.state(gfn) == UNKNOWN and (root or space.numbers[i]):
                self._frames.query(gfn // CHUNK_FRAMES)
                yield
            number = space.numbers[i]
            if number and not self._frames.is_ram(gfn):
                space.numbers[i] = 0
                lib.xd_unref(self.pointer, number)
                yield from self._free_unreferenced()
            elif root and not number:
                yield from self._shadow_root(space, i, gfn, change)
        self._spaces.note_shadow(space, space.shadowed)

    def unshadow(self, space: Space) -> Steps[None]:
        """Free the shadow of a space, as far as no other space shares it."""
        for i in range(space.count):
            number, space.numbers[i] = space.numbers[i], 0
            if number:
                lib.xd_unref(self.pointer, number)
        self._spaces.note_shadow(space, False)
        yield from self._free_unreferenced()

    def _shadow_root(self, space: Space, i: int, gfn: int, change: Change) -> Steps[None]:
        """Give one root its table. It gets none if the frame is no RAM, not to be protected, or without room."""
        level = space.mode.root_level
        if not self._frames.is_ram(gfn):
            self._counters.invalid_entries += 1
            return
        number = int(lib.xd_find(self.pointer, gfn, level))
        if not number:
            yield from self._reclaim(1, change)
            number = int(lib.xd_find(self.pointer, gfn, level))  # another vCPU may have announced it meanwhile
        if not self.active or not space.refs or space.numbers[i]:
            return
        if number:
            lib.xd_ref(self.pointer, number)
            space.numbers[i] = number
            self._spaces.note_shadow(space, True)
            return
        refused = len(change.refused)
        shared = bool(lib.xd_first_of_frame(self.pointer, gfn))
        self._missing[0] = {"gfn": gfn, "kind": level, "first_of_frame": not shared}
        self._create_tables(1, change, shared)
        number = int(self._missing[0].number)
        if not number:
            self._counters.quota_entries += len(change.refused) == refused
            return
        space.numbers[i] = number  # with the reference of its creation
        self._spaces.note_shadow(space, True)
        yield from self.update_directory(number, level, change)

    def _reclaim(self, needed: int, change: Change) -> Steps[bool]:
        """Free the shadows of the spaces submitted longest ago, until ``needed`` tables fit or none is left.

        Returns whether any was freed. Then the caller looks again at what it needs: tables that it counted on may be
        gone.
        """
        reclaimed = False
        while self.room < needed:
            space = self._spaces.oldest_shadowed(but=change.keep)
            if space is None:
                change.out_of_room = True
                break
            self._counters.reclaimed_spaces += 1
            reclaimed = True
            yield from self.unshadow(space)
        return reclaimed

    # Creating tables

    def _create_tables(self, count: int, change: Change, shared: int) -> None:
        """Create the ``count`` tables of ``_missing``, at most SLICE, and write-protect their frames.

        ``shared``: how many of them are of frames that have another one. The caller holds a reference to each. What
        cannot be created has number 0 afterwards, also in ``_numbers``.
        """
        shadow, missing = self.pointer, self._missing
        if shared and (shadow.unsynced_tables or shadow.stale_tables):
            self._protect_again([missing[i].gfn for i in range(count) if not missing[i].first_of_frame])
        to_protect = lib.xd_create_tables(shadow, missing, count, self._numbers, self._gfns)
        if to_protect:
            failures = self._protector.protect(self._gfns, to_protect, self._errors)
            self._counters.protected_pages += to_protect - failures
            if failures:
                self._remove_refused(count, to_protect, change)

    def _protect_again(self, gfns: Sequence[int]) -> None:
        """Make sure that frames which have a table already are write-protected, before they get another one.

        What the guest stored to them unseen is read now, or by the next sync if frames must be queried for it.
        """
        shadow = self.pointer
        protected = []
        for gfn in gfns:
            number = lib.xd_first_of_frame(shadow, gfn)
            if shadow.tables[number].flags & UNSYNCED:
                self._numbers[0] = number
                self.leaves.resync_now(self._numbers, 1)
            else:
                protected.append(gfn)
        if protected and shadow.stale_tables:
            self._protector.verify(ffi.new("uint64_t[]", protected), len(protected))

    def _remove_refused(self, count: int, to_protect: int, change: Change) -> None:
        """Remove the tables whose frames could not be write-protected."""
        refused = {self._gfns[i] for i in range(to_protect) if self._errors[i]}
        change.refused |= refused
        for i in range(count):
            missing = self._missing[i]
            if missing.number and missing.gfn in refused:
                lib.xd_remove(self.pointer, missing.number)
                missing.number = self._numbers[i] = 0
                missing.refused = 1
                self._counters.unprotectable_entries += 1

    # Updating tables

    def update_directory(
        self, number: int, level: int, change: Change, first: int = 0, last: int = LAST
    ) -> Steps[None]:
        """Update entries ``first``..``last`` of a directory from the guest's page, with all that follows from them."""
        shadow = self.pointer
        created: list[int] = []  # directories, each with a reference of ours
        # Freeing others may free what this table belongs to; the reference keeps the table until the end.
        lib.xd_ref(shadow, number)
        try:
            if last - first < SLICE:
                yield from self._update_slice(number, first, last, change, created)
            if last - first >= SLICE or shadow.tables[number].flags & UNREAD:
                yield from self._update_whole(number, change, created)
            created.reverse()
            while created:
                yield
                child = created.pop()
                try:
                    yield from self.update_directory(child, level - 1, change)
                finally:
                    lib.xd_unref(shadow, child)
                if shadow.first_unreferenced:
                    yield from self._free_unreferenced()
        finally:
            for child in created:
                lib.xd_unref(shadow, child)
            lib.xd_unref(shadow, number)
        if shadow.first_unreferenced:
            yield from self._free_unreferenced()

    def _update_whole(self, number: int, change: Change, created: list[int]) -> Steps[None]:
        """Update all entries of a directory. Appends to ``created`` the directories that they name anew."""
        shadow = self.pointer
        epoch = shadow.epoch
        if self.room < ENTRIES:
            yield from self._update_slice(number, 0, LAST, change, created, only_reclaim=True)
        for first in range(0, ENTRIES, SLICE):
            if first:
                yield
            if self._is_pointless(number):
                return
            if not (yield from self._update_slice(number, first, first + SLICE - 1, change, created, seen=first > 0)):
                break
        lib.xd_directory_checked(shadow, number, epoch)

    def _is_pointless(self, number: int) -> bool:
        """Whether an update of a directory can end early: nothing but the update itself refers to the table."""
        return not self.active or self.pointer.tables[number].refs == 1

    def _update_slice(
        self,
        number: int,
        first: int,
        last: int,
        change: Change,
        created: list[int],
        *,
        only_reclaim: bool = False,
        seen: bool = False,
    ) -> Steps[bool]:
        """Update entries of a directory, at most SLICE. Appends to ``created`` the directories that they name anew.

        With ``only_reclaim``, make room for all tables that the entries name, any number of them, and do no more.
        ``seen``: the observer has seen the guest's page, and every store to it since. Returns False if there is no more
        to do for this table: its page is gone and it maps nothing, or nothing leads to it.
        """
        attempt = _Attempt(number, first, last, created, self._frames.holes_clock, seen or only_reclaim)
        done = self._try_slice(attempt, change, only_reclaim)
        while not done:
            lib.xd_set_frame_unread(self.pointer, self.pointer.tables[number].gfn)
            if attempt.chunks:
                yield from self._frames.query_all(attempt.chunks)
            elif not (yield from self._reclaim(attempt.needed, change)):
                attempt.without_room = True
            if self._is_pointless(number):
                return False
            with self._frames.holes_since(attempt.holes_since):
                done = self._try_slice(attempt, change, only_reclaim)
        if self.pointer.first_unreferenced:
            yield from self._free_unreferenced()
        if attempt.unread:
            yield from self.leaves.read(attempt.unread, attempt.chunks)
        return not attempt.gone

    def _try_slice(self, attempt: _Attempt, change: Change, only_reclaim: bool) -> bool:
        """Update entries of a directory if all is there that it takes.

        Returns False, and nothing is changed, if chunks must be queried or room be made first. Nothing else happens
        between the copy of the guest's page and the links, so these are what the page says.
        """
        shadow, missing, need = self.pointer, self._missing, self._need
        number, first, last = attempt.number, attempt.first, attempt.last
        attempt.chunks = ()
        result = lib.xd_directory_read(shadow, number, self._entries)
        if result == -errno.EAGAIN:
            attempt.chunks = (shadow.tables[number].gfn // CHUNK_FRAMES,)
            return False
        if result:
            self._counters.vanished_pages += 1
            lib.xd_directory_clear(shadow, number)
            attempt.gone = True
            return True
        if self.observer is not None and not attempt.seen:
            attempt.seen = True
            self.observer.table_read(shadow.tables[number].gfn, self._entries)
        need.count = 0
        count = lib.xd_directory_missing(
            shadow, number, self._entries, first, last, missing, self._splits, self._shared, need
        )
        if count == -errno.EAGAIN:
            attempt.chunks = take_chunks(need)
            return False
        attempt.needed = count + self._splits[0]
        if attempt.needed > self.room and not attempt.without_room:
            return False
        if only_reclaim:
            return True
        if count:
            self._create_tables(count, change, self._shared[0])
            if missing[0].kind & LEVEL_MASK > 1:
                self._keep_created(count, attempt.created)
            else:
                attempt.unread, attempt.chunks = self.leaves.try_update(self._numbers, count)
        need.count = 0
        lib.xd_directory_link(shadow, number, self._entries, first, last, missing, count, need)
        lib.xd_unref_tables(shadow, missing, count)
        return True

    def _keep_created(self, count: int, created: list[int]) -> None:
        for i in range(count):
            number = self._numbers[i]
            if number:
                lib.xd_ref(self.pointer, number)
                created.append(number)

    # Freeing tables

    def _free_unreferenced(self) -> Steps[None]:
        """Free the tables that lost their last reference, and unprotect the frames that have no table any more."""
        shadow = self.pointer
        while shadow.first_unreferenced:
            count = lib.xd_free_unreferenced(shadow, self._gfns, FREE_SLICE)
            if count:
                self._counters.protected_pages -= self._protector.unprotect(self._gfns, count)
            left = shadow.first_unreferenced
            if left:
                shadow.first_unreferenced = 0
                try:
                    yield
                finally:
                    shadow.first_unreferenced = left


@dataclass(slots=True)
class _Attempt:
    """An update of entries ``first``..``last`` of directory ``number``, and what it lacks.

    Facts: every sync makes holes unknown again, and work that needs a hole to be known may have to wait for a slice
    after its query, in which another sync begins. What follows: holes that were found since the work began count for
    it, as of ``holes_since``; else it might query for ever.
    """

    number: int
    first: int
    last: int
    #: Directories that were created, each with a reference.
    created: list[int]
    holes_since: int
    seen: bool
    #: Chunks to be queried.
    chunks: Collection[int] = ()
    #: Tables that room is needed for.
    needed: int = 0
    #: No room can be made: leave out what finds none.
    without_room: bool = False
    #: The guest's page is gone.
    gone: bool = False
    #: Leaf tables that are linked and could not be read yet.
    unread: list[int] = field(default_factory=list)
