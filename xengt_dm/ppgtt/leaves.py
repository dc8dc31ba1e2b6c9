"""Leaf tables: they are read, checked again, and in relaxed mode the guest may store to them unseen until a sync.

An update of a leaf table needs to know of each frame that an entry names whether it is RAM. What is not known is
queried, a chunk a slice (:mod:`xengt_dm.steps`), and until then the table is unread.
"""

from __future__ import annotations

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
        #: What :meth:`protect_again` works on; an ``xd_resync *``.
        self.resyncing: CData = ffi.new("xd_resync *")
        self._gfns: CData = self.resyncing.gfns
        self._errors: CData = self.resyncing.errors

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
        if self.observer is not None:
            self.show_pages(self.observer, numbers, count)
        self._need.count = 0
        left = lib.xd_leaf_update_many(self.pointer, numbers, count, self._need)
        if not left:
            return [], ()
        return ffi.unpack(numbers, left), take_chunks(self._need)

    def show_pages(self, observer: Observer, numbers: CData, count: int) -> None:
        """Tell the observer what the pages of some tables say now."""
        tables = [self.pointer.tables[numbers[i]] for i in range(count)]
        for gfn in dict.fromkeys(table.gfn for table in tables if table.kind and not table.kind & SPLIT):
            if self._frames.state(gfn) == RAM and not lib.xd_frames_read_page(self._frames.pointer, gfn, self._page):
                observer.table_read(gfn, self._page)

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

    def resync(self, leaves: CData, count: int) -> Steps[None]:
        """Write-protect the unsynced ones among these leaf tables again, then update all of them; a slice at a time.

        ``leaves`` is ``uint32_t *``.
        """
        size = self.slice_size
        for start in range(0, count, size):
            if start:
                yield
            if unread := self.resync_now(leaves + start, min(size, count - start)):
                yield from self.read(*self.take_unread(unread))

    def resync_now(self, leaves: CData, count: int) -> int:
        """The same for at most SLICE leaf tables, at once.

        Returns how many could not be updated, which :meth:`take_unread` tells until requests are served.
        """
        lib.xd_resync_begin(self.pointer, leaves, count, self.resyncing)
        self.protect_again()
        return int(lib.xd_resync_finish(self.pointer, self.resyncing))

    def protect_again(self) -> None:
        """Write-protect the frames that a resync in C has listed, between its beginning and its end."""
        resyncing = self.resyncing
        if frames := resyncing.frames:
            self._protector.resync(self._gfns, frames, self._errors)
        if self.observer is not None:
            self.show_pages(self.observer, resyncing.numbers, resyncing.count)

    def take_unread(self, unread: int) -> tuple[list[int], Collection[int]]:
        """The tables that :meth:`resync_now` could not update, and the chunks that must be queried for them."""
        return ffi.unpack(self.resyncing.numbers, unread), take_chunks(self.resyncing.need)

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
