"""The tree of shadow tables: which guest tables have one, and how shadow tables are created, updated, linked and freed.

Python decides per table here, C works per entry. A guest table gets its shadow table when an entry or a root first
names it: the table is *created*, its frame is write-protected, and only then its page is read (*updated*) and the
tables that it names are created in turn; the entries are *linked* to theirs. Tables are created before others are
freed, so that replacing an entry by itself costs nothing. A table that loses its last reference is *freed*, and its
frame unprotected, before the work that unlinked it ends: so the guest may use the page as plain memory as soon as the
request that did it is answered.

Every recursion is bounded by the level: the tables that a table names are one level below it, whatever the guest's
entries point to.

Work that may be long is done in slices (:mod:`xengt_dm.steps`). Between two slices:

* Every table is in the index with its frame write-protected, so a store to it traps and updates it, whoever created it;
  or, if it is a leaf table of relaxed mode, unsynced, and the next sync reads it.
* A table that was not read yet is *unread*: it maps nothing, and the next sync reads it if its creator does not.
* ``first_unreferenced`` is 0: what a piece of work unlinked is its own to free, so that small work does not wait for
  the end of large work.

Between two yields a piece of work is not interrupted, so no other one sees an incomplete step. A directory is
updated by :data:`SLICE` entries at a time (``core/ppgtt/update.h``), each time from a fresh copy of the guest's page,
because another vCPU may have stored to it in between, and updated that entry already.
"""

from __future__ import annotations

import errno

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import CHUNK_FRAMES, UNKNOWN, GuestFrames, take_chunks
from xengt_dm.ppgtt.leaves import ENTRIES, LEVEL_MASK, SLICE, LeafTables
from xengt_dm.ppgtt.ports import Observer, Protector
from xengt_dm.ppgtt.space import LiveSpaces, Space
from xengt_dm.steps import Steps, begin
from xengt_dm.units import PAGE_SHIFT, CData

LAST = ENTRIES - 1
UNREAD: int = lib.XD_TABLE_UNREAD
#: Tables that are freed in a slice: on most hypervisors a frame takes several calls before it is plain memory.
FREE_SLICE = 32

# What came of a slice (core/ppgtt/update.h): above CREATED, it lacks something.
DONE: int = lib.XD_UPDATE_DONE
CREATED: int = lib.XD_UPDATE_CREATED
UNREAD_LEAVES: int = lib.XD_UPDATE_UNREAD_LEAVES
QUERY: int = lib.XD_UPDATE_QUERY
SHARED: int = lib.XD_UPDATE_SHARED
GONE: int = lib.XD_UPDATE_GONE
#: Not of a slice in C: some frames must wait until they can be protected.
WAIT = GONE + 1
# How a slice is made: flags of the same header.
WITHOUT_ROOM: int = lib.XD_UPDATE_WITHOUT_ROOM
PROTECTED_AGAIN: int = lib.XD_UPDATE_PROTECTED_AGAIN
ONLY_ROOM: int = lib.XD_UPDATE_ONLY_ROOM


class Change:
    """One structural change, and what it came to: a space that is shadowed or synced, or a store to a directory.

    ``keep``: the space that it is made for, which keeps its shadow when room is made; None if any space may lose it.
    """

    def __init__(self, keep: Space | None = None) -> None:
        self.keep = keep
        #: Frames of tables that could not be write-protected, so that nothing is mapped through them.
        self.refused: set[int] = set()
        #: Tables were left out because the quota has no room for them.
        self.out_of_room = False


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
        self._update: CData = ffi.new("xd_update *")
        self._numbers: CData = self._update.numbers
        self._gfns: CData = self._update.gfns
        self._errors: CData = self._update.errors
        self._freed: CData = ffi.new("uint64_t[]", FREE_SLICE)

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
        if not lib.xd_find(self.pointer, gfn, level):
            yield from self._reclaim(1, change)
        while (number := self._root(space, i, level, change)) is None:
            yield
        if not number:
            return
        space.numbers[i] = number
        self._spaces.note_shadow(space, True)
        if self.pointer.tables[number].flags & UNREAD:
            yield
            if space.numbers[i] == number:
                yield from self.update_directory(number, level, change)
                yield

    def _root(self, space: Space, i: int, level: int, change: Change) -> int | None:
        """The table of a root, with a reference for the caller; 0 if it gets none now, None if that must wait."""
        if not self.active or not space.refs or space.numbers[i]:
            return 0
        gfn = space.roots[i] >> PAGE_SHIFT
        number = int(lib.xd_find(self.pointer, gfn, level))
        if number:
            lib.xd_ref(self.pointer, number)
            return number
        if lib.xd_first_of_frame(self.pointer, gfn) and not self.leaves.protect_again([gfn]):
            return None
        lib.xd_update_root(self.pointer, self._update, gfn, level)
        if not self._protect_created(change):
            return None
        number = int(self._numbers[0])
        self._counters.quota_entries += not number and not self._update.missing[0].refused
        return number

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
            yield
        return reclaimed

    # Updating directories: linking the tables that entries name now, and unlinking those that they named before

    def update_entries(self, number: int, first: int, last: int, change: Change) -> Steps[None] | None:
        """Update one or two entries of a directory, to which the guest stored.

        Returns None if that is done, or steps, begun, that do the rest.
        """
        shadow = self.pointer
        table = shadow.tables[number]
        level = table.kind & LEVEL_MASK
        if level == 2 and not table.flags & UNREAD:  # what it links and unlinks, leaf tables, fits in a slice
            result = self._slice(number, first, last, change)
            if result <= CREATED or result == UNREAD_LEAVES:
                rest = self._read_leaves() if result == UNREAD_LEAVES else None
                if shadow.first_unreferenced:
                    self._free_slice()
                return rest
        return begin(self.update_directory(number, level, change, first, last))

    def update_directory(
        self, number: int, level: int, change: Change, first: int = 0, last: int = LAST
    ) -> Steps[None]:
        """Update entries ``first``..``last`` of a directory from the guest's page, with all that follows from them."""
        shadow = self.pointer
        created: list[int] = []  # directories, each with a reference of ours
        # Freeing others may free the parent of this table; the reference keeps the table until the end.
        lib.xd_ref(shadow, number)
        try:
            if last - first < SLICE:
                yield from self._in_steps(number, first, last, change, created)
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
        there = self.room >= ENTRIES or (yield from self._in_steps(number, 0, LAST, change, created, ONLY_ROOM))
        size = self.leaves.slice_size
        for first in range(0, ENTRIES, size):
            if first:
                yield
            if not there:
                break
            if self._is_pointless(number):
                return
            last = first + size - 1
            result = self._slice(number, first, last, change, created, told=first > 0)
            if result > CREATED or shadow.first_unreferenced:
                there = yield from self._settle(result, number, first, last, change, created)
        lib.xd_directory_checked(shadow, number, epoch)

    def _is_pointless(self, number: int) -> bool:
        """Whether an update of a directory can end early: nothing but the update itself refers to the table."""
        return not self.active or self.pointer.tables[number].refs == 1

    def _in_steps(
        self, number: int, first: int, last: int, change: Change, created: list[int], flags: int = 0
    ) -> Steps[bool]:
        """Update entries of a directory, whatever it takes; as :meth:`_settle`."""
        result = self._slice(number, first, last, change, created, flags)
        if result > CREATED or self.pointer.first_unreferenced:
            return (yield from self._settle(result, number, first, last, change, created, flags))
        return True

    def _settle(
        self, result: int, number: int, first: int, last: int, change: Change, created: list[int], flags: int = 0
    ) -> Steps[bool]:
        """Get what a slice needed and did not have (``result``), repeat it until it is made, and free what it unlinked.

        Returns False if there is no more to do for this table: its page is gone and it maps nothing, or nothing leads
        to it.

        Facts: every sync makes holes unknown again, and work that needs a hole to be known may have to wait for a slice
        after its query, in which another sync begins. What follows: holes that were found since the work began count
        for it, as of ``since``; else it might query for ever.
        """
        shadow = self.pointer
        since = self._frames.holes_clock
        unread: Steps[None] | None = None
        while result > CREATED:
            if result == UNREAD_LEAVES:
                unread = self._read_leaves()
                break
            if result == GONE:
                self._counters.vanished_pages += 1
                lib.xd_directory_clear(shadow, number)
                break
            lib.xd_set_frame_unread(shadow, shadow.tables[number].gfn)
            if result == QUERY:
                chunks = take_chunks(self._update.need)
                yield
                yield from self._frames.query_all(chunks)
            elif result == WAIT:
                yield
            elif not (yield from self._reclaim(self._update.needed, change)):
                flags |= WITHOUT_ROOM
            if self._is_pointless(number):
                return False
            with self._frames.holes_since(since):
                result = self._slice(number, first, last, change, created, flags)
        if shadow.first_unreferenced:
            yield from self._free_unreferenced()
        if unread is not None:
            yield from unread
        return result != GONE

    def _read_leaves(self) -> Steps[None]:
        """Read the leaf tables that the slice just made could not read."""
        return self.leaves.read(ffi.unpack(self._numbers, self._update.unread), take_chunks(self._update.need))

    def _slice(
        self,
        number: int,
        first: int,
        last: int,
        change: Change,
        created: list[int] | None = None,
        flags: int = 0,
        *,
        told: bool = False,
    ) -> int:
        """Update entries of a directory, at most SLICE, if all is there that it takes.

        Appends to ``created`` the directories that they name anew. ``told``: the observer has seen the guest's page,
        and every store to it since. Returns XD_UPDATE_* of ``core/ppgtt/update.h``. With ONLY_ROOM any number of
        entries are only looked at.
        """
        shadow, update = self.pointer, self._update
        if self.observer is not None and not told and not lib.xd_directory_read(shadow, number, update.entries):
            self.observer.table_read(shadow.tables[number].gfn, update.entries)
        result: int = lib.xd_update_begin(shadow, update, number, first, last, flags)
        if result == SHARED:
            if not self.leaves.protect_again(ffi.unpack(self._gfns, update.to_protect)):
                return WAIT
            result = lib.xd_update_begin(shadow, update, number, first, last, flags | PROTECTED_AGAIN)
        if result == CREATED:
            if not self._protect_created(change):
                return WAIT
            if self.observer is not None and not update.directories:
                self.leaves.show_created(self.observer, self._numbers, update.count)
            result = lib.xd_update_finish(shadow, update)
            if created is not None and update.directories:
                created.extend(filter(None, ffi.unpack(self._numbers, update.count)))
        return result

    # Creating tables

    def _protect_created(self, change: Change) -> bool:
        """Write-protect the frames of the tables that were created just now, and remove those that it is refused for.

        Returns False if some frames must wait; then no table is created.
        """
        update = self._update
        if update.born and update.to_protect:  # a frame may trap for another reason
            self._protector.still_trapping(self._gfns, update.to_protect, self._errors)
            lib.xd_update_born(self.pointer, update)
        count = update.to_protect
        if not count or not self._protector.protect(self._gfns, count, self._errors):
            return True
        errors = ffi.unpack(self._errors, count)
        if errno.EINPROGRESS in errors:
            self.pointer.held = self._protector.holding
            self._protector.unprotect(self._gfns, lib.xd_update_undo(self.pointer, update))
            return False
        change.refused.update(self._gfns[i] for i, error in enumerate(errors) if error)
        lib.xd_update_refused(self.pointer, update)
        return True

    # Freeing tables

    def _free_unreferenced(self) -> Steps[None]:
        """Free the tables that lost their last reference, and unprotect the frames that have no table any more.

        The slice under way may have changed types already, so this begins with another one.
        """
        shadow = self.pointer
        while left := shadow.first_unreferenced:
            shadow.first_unreferenced = 0
            try:
                yield
            finally:
                shadow.first_unreferenced = left
            self._free_slice()

    def _free_slice(self) -> None:
        """The same for FREE_SLICE tables, at once."""
        if count := lib.xd_free_unreferenced(self.pointer, self._freed, FREE_SLICE):
            self._protector.unprotect(self._freed, count)
            self._counters.protected_pages -= count
