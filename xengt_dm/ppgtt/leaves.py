"""Leaf tables: they are read, checked again, and in relaxed mode the guest may store to them unseen.

An update of a leaf table needs to know of each frame that an entry names whether it is RAM. What is not known is
queried, a chunk a slice (:mod:`xengt_dm.steps`), and until then the table is unread.

Which leaf tables are unsynced is decided in C (``core/ppgtt/unsync.h``), and when that may change by the protector.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import RAM, GuestFrames, take_chunks
from xengt_dm.ppgtt.ports import Observer, Protector
from xengt_dm.steps import Steps
from xengt_dm.units import CData

ENTRIES: int = lib.XD_ENTRIES
LEVEL_MASK: int = lib.XD_LEVEL_MASK
SPLIT: int = lib.XD_KIND_SPLIT
UNSYNCED: int = lib.XD_TABLE_UNSYNCED
#: What one slice handles at most: entries of a directory, and so tables that are created; frames that are protected or
#: resynced.
SLICE: int = lib.XD_SLICE
#: Tables of a slice while an observer copies the page of each.
OBSERVED_SLICE = SLICE // 4


class LeafTables:
    """The leaf tables among the shadow tables of ``shadow``, an ``xd_shadow *``.

    Methods raise :class:`~xengt_dm.errors.CallError` as the protector and the mapper of the frames do, and nothing
    because of the guest.
    """

    def __init__(self, shadow: CData, frames: GuestFrames, protector: Protector, counters: CData) -> None:
        self.pointer = shadow
        self.observer: Observer | None = None
        self._frames = frames
        self._protector = protector
        self._counters = counters
        # Memory of one slice; nothing is kept in it across a yield.
        self._need: CData = ffi.new("xd_need *")
        self._numbers: CData = ffi.new("uint32_t[]", ENTRIES)
        self._page: CData = ffi.new("uint64_t[]", ENTRIES)
        self._unread: CData = ffi.new("uint32_t[]", 2 * SLICE)
        self._retype: CData = ffi.new("xd_retype *")
        #: The settled tables that a slice of a sync has found, for :meth:`settle`; an ``xd_retype *``.
        self.settled: CData = ffi.new("xd_retype *")

    @property
    def slice_size(self) -> int:
        """How many tables a slice of work may read now."""
        return SLICE if self.observer is None else OBSERVED_SLICE

    def update(self, number: int) -> Steps[None] | None:
        """Update a leaf table from the guest's page. Returns None if that is done, or steps that do the rest."""
        self._numbers[0] = number
        unread, chunks = self._try_update(self._numbers, 1)
        return self.read(unread, chunks) if unread else None

    def read(self, unread: list[int], chunks: Collection[int]) -> Steps[None]:
        """Query the chunks that leaf tables lack, and update these tables. Those that are freed meanwhile are skipped.

        They stay unread, for the next sync, if the work is closed before its end.
        """
        since = self._frames.holes_clock
        while unread:
            yield
            yield from self._frames.query_all(chunks)
            self._numbers[0 : len(unread)] = unread
            with self._frames.holes_since(since):
                unread, chunks = self._try_update(self._numbers, len(unread))

    def _try_update(self, numbers: CData, count: int) -> tuple[list[int], Collection[int]]:
        """Update ``count`` leaf tables; ``numbers`` is ``uint32_t *``. Overwrites it.

        Returns the tables that could not be updated, and the chunks that must be queried for them.
        """
        self._need.count = 0
        if self.observer is not None:
            left = self._sync_watched(self.observer, numbers, count)
        else:
            left = lib.xd_leaves_sync(self.pointer, numbers, count, self._need, self.settled)
        if not left and not self.settled.count:
            return [], ()
        unread, chunks = ffi.unpack(numbers, left), take_chunks(self._need)
        more_unread, more_chunks = self.settle()
        return [*unread, *more_unread], {*chunks, *more_chunks}

    def _sync_watched(self, observer: Observer, numbers: CData, count: int) -> int:
        """As xd_leaves_sync. The guest may store to unsynced tables meanwhile, so the observer gets what is used."""
        shadow, need, left = self.pointer, self._need, 0
        for number in ffi.unpack(numbers, count):
            table = shadow.tables[number]
            page = self._page
            if table.flags & UNSYNCED and not lib.xd_frames_read_page(self._frames.pointer, table.gfn, page):
                observer.table_read(table.gfn, page)
                unread = lib.xd_leaf_sync_from(shadow, number, page, need, self.settled)
            else:
                numbers[left] = number
                self.show_pages(observer, numbers + left, 1)
                unread = lib.xd_leaves_sync(shadow, numbers + left, 1, need, self.settled)
            if unread:
                numbers[left] = number
                left += 1
        return left

    def show_pages(self, observer: Observer, numbers: CData, count: int) -> None:
        """Tell the observer what the pages of some tables say now."""
        tables = [self.pointer.tables[numbers[i]] for i in range(count)]
        for gfn in dict.fromkeys(table.gfn for table in tables if table.kind and not table.kind & SPLIT):
            if self._frames.state(gfn) == RAM and not lib.xd_frames_read_page(self._frames.pointer, gfn, self._page):
                observer.table_read(gfn, self._page)

    def show_created(self, observer: Observer, numbers: CData, count: int) -> None:
        """The same, of tables that were created just now and are about to be read: not of unsynced ones."""
        tables = self.pointer.tables
        read = [number for number in ffi.unpack(numbers, count) if number and not tables[number].flags & UNSYNCED]
        self.show_pages(observer, ffi.new("uint32_t[]", read), len(read))

    # Leaf tables that the guest may store to unseen (relaxed mode)

    def is_unsynced(self, gfn: int) -> bool:
        """Whether the tables of a frame are unsynced, if it has any."""
        number = lib.xd_first_of_frame(self.pointer, gfn)
        return bool(number and self.pointer.tables[number].flags & UNSYNCED)

    def sync(self, numbers: CData, count: int) -> Steps[None]:
        """Read leaf tables for a sync; ``numbers`` is ``uint32_t *`` and is overwritten."""
        size = count if self.observer is None else OBSERVED_SLICE
        for start in range(0, count, size or 1):
            if start:
                yield
            unread, chunks = self._try_update(numbers + start, min(size, count - start))
            if unread:
                yield from self.read(unread, chunks)

    def settle(self) -> tuple[list[int], Collection[int]]:
        """Protect and read the tables that have settled, which a slice has listed just now.

        Those that must wait are listed again by the next sync. Returns the tables that could not be updated, and the
        chunks that must be queried for them.
        """
        settled = self.settled
        if not settled.count:
            return [], ()
        self._counters.settled_tables += settled.count - self._resync(settled, forced=False)
        settled.count = 0
        return ffi.unpack(self._unread, self._left), take_chunks(self._need)

    def protect(self, gfns: Sequence[int]) -> bool:
        """Protect and read unsynced frames, SLICE at most, because of a change that cannot be made before.

        Returns False if some of them must wait. One that cannot be protected at all stays unsynced.
        """
        retype = self._retype
        retype.count = len(gfns)
        for i, gfn in enumerate(gfns):
            retype.gfns[i] = gfn
            retype.numbers[i] = lib.xd_first_of_frame(self.pointer, gfn)
        self._resync(retype, forced=True)
        return not self._must_wait(retype)

    def protect_again(self, gfns: Sequence[int]) -> bool:
        """Make sure that frames which have a table already are write-protected, before they get another one.

        What the guest stored to them unseen is read now, or by the next sync if frames must be queried for it. Returns
        False if some of them must wait. One that cannot be protected stays unsynced, and gets no other table.
        """
        unsynced = [gfn for gfn in gfns if self.is_unsynced(gfn)]
        protected = [gfn for gfn in gfns if gfn not in unsynced]
        if protected and self.pointer.stale_tables:
            self._protector.verify(ffi.new("uint64_t[]", protected), len(protected))
        return not unsynced or self.protect(unsynced)

    def protect_all(self) -> Steps[None]:
        """Protect and read every unsynced table, for strict mode; :attr:`slice_size` of them a slice."""
        shadow, retype = self.pointer, self._retype
        left = shadow.unsynced_tables
        while left > 0 and shadow.unsynced_tables:
            looks = min(left, self.slice_size)
            lib.xd_resync_oldest(shadow, looks, retype)
            left -= looks
            if self._resync(retype, forced=True):
                left += self._must_wait(retype)
                for i in range(retype.count):
                    if retype.errors[i]:  # to the end of the list
                        lib.xd_set_unsynced(shadow, retype.gfns[i], 0)
                        lib.xd_set_unsynced(shadow, retype.gfns[i], 1)
            yield

    def _resync(self, retype: CData, *, forced: bool) -> int:
        """Protect the frames in ``retype``, and read their tables. Returns how many frames were not protected.

        As many of the tables as ``_left`` says could not be updated: ``_unread`` and ``_need`` say which, and why.
        """
        failed = self._protector.resync(retype.gfns, retype.count, retype.errors, forced=forced)
        self.pointer.held = self._protector.holding
        if self.observer is not None:
            numbers = [retype.numbers[i] for i in range(retype.count) if not retype.errors[i]]
            self.show_pages(self.observer, ffi.new("uint32_t[]", numbers), len(numbers))
        self._need.count = 0
        self._left: int = lib.xd_resync_finish(self.pointer, retype, self._unread, self._need)
        return failed

    def _must_wait(self, retype: CData) -> int:
        """How many frames a resync has left to another try."""
        return sum(retype.errors[i] == errno.EINPROGRESS for i in range(retype.count))

    def unsync_stored(self) -> Steps[None] | None:
        """At the end of a submission: unsync the tables to which stores have trapped, if their time has come.

        Returns None if that is done, or steps that do the rest.
        """
        left = self.pointer.candidates
        left = left and self._unsync(left)
        return self._unsync_rest(left) if left else None

    def _unsync_rest(self, left: int) -> Steps[None]:
        while left:
            yield
            left = self._unsync(left)

    def _unsync(self, candidates: int) -> int:
        """A slice of that, of the oldest ``candidates``. Returns how many of these are left."""
        shadow, retype, protector = self.pointer, self._retype, self._protector
        before = shadow.candidates
        count = lib.xd_unsync_begin(shadow, min(candidates, ENTRIES), retype)
        left = candidates - (before - shadow.candidates)
        if count:
            protector.unsync(retype.gfns, count, retype.errors)
            shadow.held = protector.holding
            lib.xd_unsync_finish(shadow, retype)
        return left if left > 0 and shadow.candidates else 0

    def hold_stores(self) -> None:
        """Has C perform no store while the protector holds some."""
        self.pointer.held = self._protector.holding

    def release(self, gfn: int) -> bool:
        """Unsync a frame for which the protector holds a store. Returns whether that store may be answered."""
        shadow = self.pointer
        number = lib.xd_first_of_frame(shadow, gfn)
        if number and shadow.tables[number].kind & LEVEL_MASK > 1:
            return True  # a directory by now, and the guest pays for it
        released = self._protector.release(gfn)
        shadow.held = self._protector.holding
        if released and number and not shadow.tables[number].flags & UNSYNCED:
            lib.xd_set_unsynced(shadow, gfn, 1)
            self._counters.protected_pages -= 1
        return released

    def verify(self, numbers: Sequence[int]) -> Steps[None]:
        """Have the frames of these tables write-protected again if the guest replaced them meanwhile."""
        tables = self.pointer.tables
        gfns = list({tables[each].gfn for each in numbers if not tables[each].flags & UNSYNCED})
        for start in range(0, len(gfns), SLICE):
            some = gfns[start : start + SLICE]
            self._protector.verify(ffi.new("uint64_t[]", some), len(some))
            yield

    def tell_all(self) -> Steps[None]:
        """Tell the observer what the page of each table says now."""
        number = 1
        while number <= self.pointer.used and self.observer is not None:
            for i in range(OBSERVED_SLICE):
                self._numbers[i] = number + i
            self.show_pages(self.observer, self._numbers, min(OBSERVED_SLICE, self.pointer.used + 1 - number))
            number += OBSERVED_SLICE
            yield
