"""The shadow tree: which guest tables have shadows, and how these come, change and go.

Python decides per table here, C works per entry. A guest table gets its shadow when an entry or a root first names it
(*adopt*), its frame is protected before it is read, and its entries are *linked* to the shadows of the tables that they
name. Adding comes before removing, so that replacing an entry by itself costs nothing. A shadow that loses its last
reference is *buried*, and its frame unprotected, before the call that unlinked it returns; so the ioreq that did it is
answered only when the guest may use the page as plain memory.

Levels bound every recursion: the children of a table are one level below it, whatever the guest makes point to what.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import GuestFrames
from xengt_dm.ppgtt.ports import Observer, Protector
from xengt_dm.units import CData

ENTRIES: int = lib.XD_ENTRIES
LAST = ENTRIES - 1
LEVEL_MASK: int = lib.XD_LEVEL_MASK
OPEN: int = lib.XD_TABLE_UNSYNCED
PAGE_SHIFT: int = lib.XD_FRAME_SHIFT
#: The routes of a store.
LEAF_STORE: int = lib.XD_ROUTE_LEAF_STORE
DIRECTORY_STORE: int = lib.XD_ROUTE_DIRECTORY_STORE
UNTRACKED_STORE: int = lib.XD_ROUTE_UNTRACKED_STORE
DROPPED_STORE: int = lib.XD_ROUTE_DROPPED_STORE
#: Tables brought in line at a time in a submission; what is left over is found by the next look.
BATCH = 4096


class _Level:
    """Scratch memory for the directories of one level; the recursion uses each level once at a time."""

    def __init__(self) -> None:
        self.entries: CData = ffi.new("uint64_t[]", ENTRIES)
        self.wanted: CData = ffi.new("xd_missing_table[]", ENTRIES)


class ShadowTables:
    """All shadow tables of one domain.

    ``make_room`` is asked, with a number of tables, when the quota stands in the way; it says whether it freed any.
    """

    def __init__(
        self,
        frames: GuestFrames,
        protector: Protector,
        counters: CData,
        max_tables: int,
        make_room: Callable[[int], bool],
    ) -> None:
        pointer = lib.xd_shadow_new(frames.pointer, counters, max_tables)
        if pointer == ffi.NULL:
            raise MemoryError(f"no memory for {max_tables} shadow tables")
        self.pointer: CData = ffi.gc(pointer, lib.xd_shadow_free)
        self._frames = frames
        self._protector = protector
        self._counters = counters
        self._make_room = make_room
        #: The quota stood in the way since this was last cleared.
        self.short = False
        #: Frames of tables that could not be protected since this was last cleared.
        self.refused: set[int] = set()
        #: How often making room cost other spaces theirs, and with them maybe tables that somebody counted on.
        self._reclaims = 0
        self._need: CData = ffi.new("xd_need *")
        self._value: CData = ffi.new("uint64_t *")
        self._levels = [_Level() for _ in range(6)]
        self._splits: CData = ffi.new("uint32_t *")
        self._gfns: CData = ffi.new("uint64_t[]", ENTRIES)
        self._errors: CData = ffi.new("int[]", ENTRIES)
        self._numbers: CData = ffi.new("uint32_t[]", ENTRIES)
        self._buried: CData = ffi.new("uint64_t[]", ENTRIES)
        self._closing: tuple[CData, CData, CData, CData] = (
            ffi.new("uint64_t[]", BATCH),
            ffi.new("int[]", BATCH),
            ffi.new("uint32_t[]", BATCH),
            ffi.new("uint32_t *"),
        )
        self._page: CData = ffi.new("uint64_t[]", ENTRIES)
        self.observer: Observer | None = None

    # Looking

    def room(self) -> int:
        """How many more tables the quota allows."""
        return int(self.pointer.max_tables - self.pointer.live)

    def _claim_room(self, needed: int) -> None:
        if self.room() < needed:
            self._reclaims += self._make_room(needed)
            self.short |= self.room() < needed

    # Coming

    def root(self, gfn: int, level: int) -> int:
        """The shadow of a root table, made if need be, with a reference for the caller.

        0 if the frame is no RAM, cannot be protected, or is one table too many.
        """
        if not self._frames.is_ram(gfn):
            self._counters.invalid_entries += 1
            return 0
        number = lib.xd_find(self.pointer, gfn, level)
        if number:
            lib.xd_ref(self.pointer, number)
            return int(number)
        wanted = self._levels[level + 1].wanted
        wanted[0].gfn = gfn
        wanted[0].kind = level
        self._adopt(wanted, 1, 1)
        if not wanted[0].number:
            self._counters.quota_entries += 1
        return int(wanted[0].number)

    def _adopt(self, wanted: CData, count: int, needed: int) -> None:
        """Shadow these tables, children included, and hold them."""
        self._claim_room(needed)
        shadow = self.pointer
        if shadow.unsynced_tables or shadow.stale_tables:
            for i in range(count):
                self._secure(wanted[i].gfn)
        fresh = lib.xd_create_tables(shadow, wanted, count, self._numbers, self._gfns)
        if fresh:
            failures = self._protector.protect(self._gfns, fresh, self._errors)
            self._counters.protected_pages += fresh - failures
            if failures:
                self._abandon(wanted, count, fresh)
        if wanted[0].kind & LEVEL_MASK == 1:
            self.update_leaves(self._numbers, count)
        else:
            for i in range(count):
                if wanted[i].number:
                    self.fill_directory(wanted[i].number)

    def _secure(self, gfn: int) -> None:
        """Make sure that a frame which has shadows already is protected now, before it gets one more."""
        shadow = self.pointer
        number = lib.xd_first_of_frame(shadow, gfn)
        if not number:
            return
        self._numbers[0] = number
        if shadow.tables[number].flags & OPEN:
            self.close_leaves(self._numbers, 1)
        elif shadow.stale_tables:
            self.verify(self._numbers, 1)

    def _abandon(self, wanted: CData, count: int, fresh: int) -> None:
        """Take back the tables whose frames the hypervisor did not let us protect."""
        refused = {self._gfns[i] for i in range(fresh) if self._errors[i]}
        self.refused |= refused
        for i in range(count):
            if wanted[i].number and wanted[i].gfn in refused:
                lib.xd_remove(self.pointer, wanted[i].number)
                wanted[i].number = 0
                self._counters.unprotectable_entries += 1

    # Changing

    def fill_directory(self, number: int, first: int = 0, last: int = LAST) -> None:
        """Bring entries ``first``..``last`` of a directory's shadow in line with the guest's table."""
        shadow = self.pointer
        scratch = self._levels[shadow.tables[number].kind & LEVEL_MASK]
        if not self._read_directory(number, scratch.entries):
            lib.xd_directory_clear(shadow, number)
            self.bury()
            return
        # Making room may take the space away that this table belongs to; held, it outlives that until it is linked.
        lib.xd_ref(shadow, number)
        reclaims = -1
        while reclaims != self._reclaims:
            reclaims = self._reclaims
            count = self._wanted(number, scratch.entries, first, last, scratch.wanted)
            needed = count + self._splits[0]
            if count:
                self._adopt(scratch.wanted, count, needed)
            else:
                self._claim_room(needed)
            self._need.count = 0
            lib.xd_directory_link(shadow, number, scratch.entries, first, last, self._need)
            lib.xd_unref_tables(shadow, scratch.wanted, count)
        lib.xd_unref(shadow, number)
        self.bury()

    def _read_directory(self, number: int, entries: CData) -> bool:
        shadow = self.pointer
        result = lib.xd_directory_read(shadow, number, entries)
        if result == -errno.EAGAIN:
            self._frames.learn(shadow.tables[number].gfn // lib.XD_CHUNK_FRAMES)
            result = lib.xd_directory_read(shadow, number, entries)
        if result:
            self._counters.vanished_pages += 1
        elif self.observer is not None:
            self.observer.table_read(shadow.tables[number].gfn, entries)
        return bool(result == 0)

    def _wanted(self, number: int, entries: CData, first: int, last: int, wanted: CData) -> int:
        need = self._need
        while True:
            need.count = 0
            count = lib.xd_directory_missing(self.pointer, number, entries, first, last, wanted, self._splits, need)
            if count != -errno.EAGAIN:
                return int(count)
            self._frames.learn_needed(need)

    def update_leaves(self, numbers: CData, count: int) -> None:
        """Bring whole leaf tables in line with the guest's."""
        if self.observer is not None:
            self._show_leaves(self.observer, numbers, count)
        need = self._need
        need.count = 0
        while count := lib.xd_leaf_update_many(self.pointer, numbers, count, need):
            self._frames.learn_needed(need)

    def _show_leaves(self, observer: Observer, numbers: CData, count: int) -> None:
        for gfn in {self.pointer.tables[numbers[i]].gfn for i in range(count) if numbers[i]}:
            if self._frames.is_ram(gfn) and not lib.xd_frames_read_page(self._frames.pointer, gfn, self._page):
                observer.table_read(gfn, self._page)

    def store(self, gpa: int, size: int, value: int) -> int:
        """One store by the guest within one frame: to its memory, then to the shadows of that frame.

        Returns the store's route, an ``xd_route``: UNTRACKED_STORE if the frame has no shadow, DROPPED_STORE if it is
        no RAM or its page vanished, so that the store went nowhere.
        """
        need = self._need
        need.count = 0
        shadow = self.pointer
        while (result := lib.xd_guest_store(shadow, gpa, value, size, need)) == -errno.EAGAIN:
            self._frames.learn_needed(need)
        if result == lib.XD_STORE_DONE:
            return LEAF_STORE
        if result == lib.XD_STORE_UNTRACKED:
            return UNTRACKED_STORE
        if result == lib.XD_STORE_DIRECTORY:
            offset = gpa & 0xFFF
            self._store_to_directories(gpa >> PAGE_SHIFT, offset // 8, (offset + size - 1) // 8)
            return DIRECTORY_STORE
        self._counters.vanished_pages += 1
        return DROPPED_STORE

    def load(self, gpa: int, size: int) -> int:
        """``size`` bytes of guest memory within one frame; all ones if the frame is no RAM or its page vanished."""
        if self._frames.is_ram(gpa >> PAGE_SHIFT) and not lib.xd_frames_load(
            self._frames.pointer, gpa, size, self._value
        ):
            return int(self._value[0])
        return (1 << 8 * size) - 1

    def _store_to_directories(self, gfn: int, first: int, last: int) -> None:
        """Update all shadows of a frame that is a directory at some level, the highest first.

        The update of one may bury another, when the frame points to itself; so each is looked up again by its kind.
        """
        shadow = self.pointer
        kinds = []
        number = lib.xd_first_of_frame(shadow, gfn)
        while number:
            kinds.append(shadow.tables[number].kind)
            number = shadow.tables[number].next_of_frame
        for kind in kinds:
            number = lib.xd_find(shadow, gfn, kind)
            if not number:
                continue
            if kind & LEVEL_MASK > 1:
                self.fill_directory(number, first, last)
            else:
                self._numbers[0] = number
                self.update_leaves(self._numbers, 1)

    # Opening and closing (relaxed mode)

    def unsync(self, gfn: int) -> bool:
        """Have a frame unprotected until its tables are resynced, if it serves as leaf tables only and is protected.

        Returns whether it is unprotected now.
        """
        shadow = self.pointer
        number = lib.xd_first_of_frame(shadow, gfn)
        first = shadow.tables[number]
        if not number or first.kind & LEVEL_MASK != 1 or first.flags & OPEN:
            return False
        if not self._protector.unsync(gfn):
            return False
        lib.xd_set_unsynced(shadow, gfn, 1)
        self._counters.opened_pages += 1
        self._counters.protected_pages -= 1
        return True

    def close_leaves(self, leaves: CData, count: int) -> None:
        """Protect the open ones among these leaves again, then bring all of them in line with the guest's.

        ``count``: at most :data:`BATCH`.
        """
        shadow = self.pointer
        if shadow.unsynced_tables:
            gfns, errors, others, other_count = self._closing
            closed = lib.xd_resync_begin(shadow, leaves, count, gfns, others, other_count)
            if closed:
                self._protector.resync(gfns, closed, errors)
                lib.xd_resync_end(shadow, gfns, errors, closed)
                if other_count[0]:
                    self.update_leaves(others, other_count[0])
        self.update_leaves(leaves, count)

    def verify(self, numbers: CData, count: int) -> None:
        """Have the frames of these tables protected again if the guest replaced them meanwhile."""
        shadow = self.pointer
        gfns = {shadow.tables[numbers[i]].gfn for i in range(count) if not shadow.tables[numbers[i]].flags & OPEN}
        if gfns:
            self._protector.verify(ffi.new("uint64_t[]", list(gfns)), len(gfns))

    # Going

    def release(self, number: int) -> None:
        """Drop a root's reference; :meth:`bury` follows."""
        lib.xd_unref(self.pointer, number)

    def bury(self) -> None:
        """Take apart what lost its last reference, and unprotect the frames that are tables no more."""
        shadow = self.pointer
        while shadow.first_unreferenced:
            count = lib.xd_free_unreferenced(shadow, self._buried, ENTRIES)
            if count:
                self._counters.protected_pages -= self._protector.unprotect(self._buried, count)
