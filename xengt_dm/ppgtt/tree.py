"""The tree of shadow tables: which guest tables have one, and how shadow tables are created, updated, linked and freed.

Python decides per table here, C works per entry. A guest table gets its shadow table when an entry or a root first
names it: the table is *created*, its frame is write-protected, and only then its page is read (*updated*) and the
tables that it names are created in turn; last, its entries are *linked* to theirs. Tables are created before others are
freed, so that replacing an entry by itself costs nothing. A table that loses its last reference is *freed*, and its
frame unprotected, before the call that unlinked it returns: so the guest may use the page as plain memory as soon as
the request that did it is answered.

Every recursion is bounded by the level: the tables that a table names are one level below it, whatever the guest points
to what.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import CHUNK_FRAMES, GuestFrames
from xengt_dm.ppgtt.ports import Observer, Protector
from xengt_dm.ppgtt.space import LiveSpaces, Space
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE, CData

ENTRIES: int = lib.XD_ENTRIES
LAST = ENTRIES - 1
LEVEL_MASK: int = lib.XD_LEVEL_MASK
UNSYNCED: int = lib.XD_TABLE_UNSYNCED
TOP_LEVEL = 4
#: The routes of a store.
LEAF_STORE: int = lib.XD_ROUTE_LEAF_STORE
DIRECTORY_STORE: int = lib.XD_ROUTE_DIRECTORY_STORE
UNTRACKED_STORE: int = lib.XD_ROUTE_UNTRACKED_STORE
DROPPED_STORE: int = lib.XD_ROUTE_DROPPED_STORE
#: Leaf tables that are resynced at a time, at most.
BATCH = 4096


@dataclass(slots=True)
class Change:
    """One structural change, and what it came to: a space that is shadowed or synced, or a store to a directory.

    ``keep``: the space that it is made for, which keeps its shadow when room is made; None if any space may lose it.
    """

    keep: Space | None = None
    #: Frames of tables that could not be write-protected, so that nothing is mapped through them.
    refused: frozenset[int] = frozenset()
    #: Tables were left out because the quota has no room for them.
    out_of_room: bool = False
    #: How often room was made. The spaces that lost their shadow for it may have had tables that were counted on.
    reclaims: int = 0


class _Scratch:
    """Memory of the directory of one level that is being updated. The recursion uses each level once at a time."""

    def __init__(self) -> None:
        self.entries: CData = ffi.new("uint64_t[]", ENTRIES)
        self.missing: CData = ffi.new("xd_missing_table[]", ENTRIES)
        self.numbers: CData = ffi.new("uint32_t[]", ENTRIES)
        self.gfns: CData = ffi.new("uint64_t[]", ENTRIES)
        self.errors: CData = ffi.new("int[]", ENTRIES)


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
        self._need: CData = ffi.new("xd_need *")
        #: By level; one more, for the table of a root.
        self._scratch = [_Scratch() for _ in range(TOP_LEVEL + 2)]
        self._splits: CData = ffi.new("uint32_t *")
        self._one: CData = ffi.new("uint32_t[1]")
        self._freed: CData = ffi.new("uint64_t[]", ENTRIES)
        #: Frames that are resynced, errors, other tables of these frames, and how many.
        self._resync: tuple[CData, CData, CData, CData] = (
            ffi.new("uint64_t[]", BATCH),
            ffi.new("int[]", BATCH),
            ffi.new("uint32_t[]", BATCH),
            ffi.new("uint32_t *"),
        )
        self._page: CData = ffi.new("uint64_t[]", ENTRIES)

    @property
    def room(self) -> int:
        """How many more tables the quota allows."""
        return int(self.pointer.max_tables - self.pointer.live)

    # The shadow of a space

    def shadow(self, space: Space, change: Change) -> None:
        """Give each root of a space its table, with all tables below, unless it has one whose frame is still RAM."""
        for i, root in enumerate(space.roots):
            gfn = root >> PAGE_SHIFT
            number = space.numbers[i]
            if number and not self._frames.is_ram(gfn):
                space.numbers[i] = 0
                lib.xd_unref(self.pointer, number)
                self._free_unreferenced()
            elif root and not number:
                space.numbers[i] = self._root(gfn, space.mode.root_level, change)

    def unshadow(self, space: Space) -> None:
        """Free the shadow of a space, as far as no other space shares it."""
        for i in range(space.count):
            number, space.numbers[i] = space.numbers[i], 0
            if number:
                lib.xd_unref(self.pointer, number)
        self._free_unreferenced()

    def _root(self, gfn: int, level: int, change: Change) -> int:
        """The table of a root, created if need be, with a reference that the caller holds.

        0 if the frame is not RAM or cannot be write-protected, or if the quota has no room for the table.
        """
        if not self._frames.is_ram(gfn):
            self._counters.invalid_entries += 1
            return 0
        number = lib.xd_find(self.pointer, gfn, level)
        if number:
            lib.xd_ref(self.pointer, number)
            return int(number)
        scratch = self._scratch[level + 1]
        missing = scratch.missing[0]
        missing.gfn = gfn
        missing.kind = level
        self._make_room(1, change)
        self._create_tables(scratch, 1, change)
        if not missing.number:
            self._counters.quota_entries += 1
        return int(missing.number)

    def _make_room(self, needed: int, change: Change) -> None:
        """Free the shadows of the spaces submitted longest ago, until ``needed`` tables fit or none is left."""
        if self.room >= needed:
            return
        reclaimed = False
        for space in list(self._spaces.values()):
            if self.room >= needed:
                break
            if space is not change.keep and space.shadowed:
                self.unshadow(space)
                self._counters.reclaimed_spaces += 1
                reclaimed = True
        change.reclaims += reclaimed
        change.out_of_room |= self.room < needed

    # Creating tables

    def _create_tables(self, scratch: _Scratch, count: int, change: Change) -> None:
        """Create the ``count`` tables of ``scratch.missing``, write-protect their frames, and update them.

        The caller holds a reference to each. What cannot be created has number 0 afterwards.
        """
        shadow, missing = self.pointer, scratch.missing
        if shadow.unsynced_tables or shadow.stale_tables:
            for i in range(count):
                self._protect_again(missing[i].gfn)
        to_protect = lib.xd_create_tables(shadow, missing, count, scratch.numbers, scratch.gfns)
        if to_protect:
            failures = self._protector.protect(scratch.gfns, to_protect, scratch.errors)
            self._counters.protected_pages += to_protect - failures
            if failures:
                self._remove_refused(scratch, count, to_protect, change)
        level = missing[0].kind & LEVEL_MASK
        if level == 1:
            self.update_leaves(scratch.numbers, count)
            return
        for i in range(count):
            number = scratch.numbers[i]
            if number:
                self.update_directory(number, level, change)

    def _protect_again(self, gfn: int) -> None:
        """Make sure that a frame which has a table already is write-protected, before it gets another one."""
        shadow = self.pointer
        number = lib.xd_first_of_frame(shadow, gfn)
        if not number:
            return
        self._one[0] = number
        if shadow.tables[number].flags & UNSYNCED:
            self.resync_leaves(self._one, 1)
        elif shadow.stale_tables:
            self.verify(self._one, 1)

    def _remove_refused(self, scratch: _Scratch, count: int, to_protect: int, change: Change) -> None:
        """Remove the tables whose frames could not be write-protected."""
        refused = {scratch.gfns[i] for i in range(to_protect) if scratch.errors[i]}
        change.refused |= refused
        for i in range(count):
            missing = scratch.missing[i]
            if missing.number and missing.gfn in refused:
                lib.xd_remove(self.pointer, missing.number)
                missing.number = scratch.numbers[i] = 0
                self._counters.unprotectable_entries += 1

    # Updating tables

    def update_directory(self, number: int, level: int, change: Change, first: int = 0, last: int = LAST) -> None:
        """Update entries ``first``..``last`` of a directory from the guest's page, with all that follows from them."""
        shadow = self.pointer
        scratch = self._scratch[level]
        if not self._read_directory(number, scratch.entries):
            lib.xd_directory_clear(shadow, number)
            self._free_unreferenced()
            return
        # Making room may free the space that this table belongs to; the reference keeps the table until it is linked.
        lib.xd_ref(shadow, number)
        while True:
            reclaims = change.reclaims
            count = self._find_missing(number, scratch, first, last)
            needed = count + self._splits[0]
            if needed:
                self._make_room(needed, change)
            if count:
                self._create_tables(scratch, count, change)
            self._need.count = 0
            lib.xd_directory_link(shadow, number, scratch.entries, first, last, self._need)
            lib.xd_unref_tables(shadow, scratch.missing, count)
            if change.reclaims == reclaims:  # else tables that were there may have been freed: look again
                break
        lib.xd_unref(shadow, number)
        self._free_unreferenced()

    def _read_directory(self, number: int, entries: CData) -> bool:
        """Copy a directory's guest page; False, and counted, if it is gone."""
        shadow = self.pointer
        result = lib.xd_directory_read(shadow, number, entries)
        if result == -errno.EAGAIN:
            self._frames.query(shadow.tables[number].gfn // CHUNK_FRAMES)
            result = lib.xd_directory_read(shadow, number, entries)
        if result:
            self._counters.vanished_pages += 1
        elif self.observer is not None:
            self.observer.table_read(shadow.tables[number].gfn, entries)
        return bool(result == 0)

    def _find_missing(self, number: int, scratch: _Scratch, first: int, last: int) -> int:
        """List in ``scratch.missing`` the tables that a directory names and that have none; returns how many.

        ``_splits`` receives how many more tables linking may take, for 2 MiB pages that are RAM in part.
        """
        need = self._need
        while True:
            need.count = 0
            count = lib.xd_directory_missing(
                self.pointer, number, scratch.entries, first, last, scratch.missing, self._splits, need
            )
            if count != -errno.EAGAIN:
                return int(count)
            self._frames.query_needed(need)

    def update_leaves(self, numbers: CData, count: int) -> None:
        """Update ``count`` leaf tables from the guest's pages; ``numbers`` is ``uint32_t *`` and is overwritten."""
        if self.observer is not None:
            self._show_leaves(self.observer, numbers, count)
        need = self._need
        need.count = 0
        while count := lib.xd_leaf_update_many(self.pointer, numbers, count, need):
            self._frames.query_needed(need)

    def _show_leaves(self, observer: Observer, numbers: CData, count: int) -> None:
        for gfn in {self.pointer.tables[numbers[i]].gfn for i in range(count) if numbers[i]}:
            if self._frames.is_ram(gfn) and not lib.xd_frames_read_page(self._frames.pointer, gfn, self._page):
                observer.table_read(gfn, self._page)

    def store(self, gpa: int, size: int, value: int, keep: Space | None = None) -> int:
        """Perform a store of 1, 2, 4 or 8 bytes within one frame: to guest memory, then to the frame's tables.

        ``keep``: the space that keeps its shadow if the store needs room for tables. Returns the store's route, an
        ``xd_route``: UNTRACKED_STORE if the frame has no table, DROPPED_STORE if it is not RAM or its page vanished, so
        that the store went nowhere.
        """
        need = self._need
        need.count = 0
        while (result := lib.xd_guest_store(self.pointer, gpa, value, size, need)) == -errno.EAGAIN:
            self._frames.query_needed(need)
        if result == lib.XD_STORE_DONE:
            return LEAF_STORE
        if result == lib.XD_STORE_UNTRACKED:
            return UNTRACKED_STORE
        if result == lib.XD_STORE_DIRECTORY:
            offset = gpa & (PAGE_SIZE - 1)
            self._store_to_directories(gpa >> PAGE_SHIFT, offset // 8, (offset + size - 1) // 8, Change(keep))
            return DIRECTORY_STORE
        self._counters.vanished_pages += 1
        return DROPPED_STORE

    def _store_to_directories(self, gfn: int, first: int, last: int, change: Change) -> None:
        """Update all tables of a frame that serves as a directory, the highest level first.

        If the frame points to itself, the update of one may free another; so each is looked up again by its kind.
        """
        shadow = self.pointer
        tables = shadow.tables
        kinds = []
        number = lib.xd_first_of_frame(shadow, gfn)
        while number:
            table = tables[number]
            kinds.append(table.kind)
            number = table.next_of_frame
        for kind in kinds:
            number = lib.xd_find(shadow, gfn, kind)
            if not number:
                continue
            level = kind & LEVEL_MASK
            if level > 1:
                self.update_directory(number, level, change, first, last)
            else:
                self._one[0] = number
                self.update_leaves(self._one, 1)

    # Leaf tables that the guest may store to unseen (relaxed mode)

    def unsync(self, gfn: int) -> bool:
        """Unprotect a frame until its tables are resynced, if it serves as leaf tables only and is protected.

        Returns whether it is unprotected now.
        """
        shadow = self.pointer
        number = lib.xd_first_of_frame(shadow, gfn)
        first = shadow.tables[number]
        if not number or first.kind & LEVEL_MASK != 1 or first.flags & UNSYNCED:
            return False
        if not self._protector.unsync(gfn):
            return False
        lib.xd_set_unsynced(shadow, gfn, 1)
        self._counters.opened_pages += 1
        self._counters.protected_pages -= 1
        return True

    def resync_leaves(self, leaves: CData, count: int) -> None:
        """Write-protect the unsynced ones among these leaf tables again, then update all of them.

        ``leaves`` is ``uint32_t *`` and is overwritten; ``count`` is at most :data:`BATCH`.
        """
        shadow = self.pointer
        if shadow.unsynced_tables:
            gfns, errors, others, other_count = self._resync
            frames = lib.xd_resync_begin(shadow, leaves, count, gfns, others, other_count)
            if frames:
                self._protector.resync(gfns, frames, errors)
                lib.xd_resync_end(shadow, gfns, errors, frames)
                if other_count[0]:
                    self.update_leaves(others, other_count[0])
        self.update_leaves(leaves, count)

    def verify(self, numbers: CData, count: int) -> None:
        """Have the frames of these tables write-protected again if the guest replaced them meanwhile."""
        shadow = self.pointer
        gfns = {shadow.tables[numbers[i]].gfn for i in range(count) if not shadow.tables[numbers[i]].flags & UNSYNCED}
        if gfns:
            self._protector.verify(ffi.new("uint64_t[]", list(gfns)), len(gfns))

    # Freeing tables

    def _free_unreferenced(self) -> None:
        """Free the tables that lost their last reference, and unprotect the frames that have no table any more."""
        shadow = self.pointer
        while shadow.first_unreferenced:
            count = lib.xd_free_unreferenced(shadow, self._freed, ENTRIES)
            if count:
                self._counters.protected_pages -= self._protector.unprotect(self._freed, count)
