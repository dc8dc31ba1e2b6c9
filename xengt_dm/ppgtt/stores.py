"""Stores of the guest to its page tables: performed in guest memory once, then shown in the shadow.

A store to leaf tables is done in C, unless frames must be queried for it. A store to a directory may link or unlink any
number of tables, and is work in slices (:mod:`xengt_dm.steps`): memory has the value from the first slice on, and until
the tables of the frame are updated they are unread.
"""

from __future__ import annotations

import errno

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import GuestFrames, take_chunks
from xengt_dm.ppgtt.leaves import LEVEL_MASK, UNSYNCED, LeafTables
from xengt_dm.ppgtt.space import Space
from xengt_dm.ppgtt.tree import Change, ShadowTree
from xengt_dm.steps import Steps
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE, CData

#: The routes of a store.
LEAF_STORE: int = lib.XD_ROUTE_LEAF_STORE
DIRECTORY_STORE: int = lib.XD_ROUTE_DIRECTORY_STORE
UNTRACKED_STORE: int = lib.XD_ROUTE_UNTRACKED_STORE
DROPPED_STORE: int = lib.XD_ROUTE_DROPPED_STORE
#: Updates of directories that are to be made later; by frame: the first and the last entry.
Postponed = dict[int, tuple[int, int]]


class TableStores:
    """Performs stores, and has ``tree`` and ``leaves`` follow."""

    def __init__(self, tree: ShadowTree, leaves: LeafTables, frames: GuestFrames, counters: CData) -> None:
        self.pointer = tree.pointer
        self._tree = tree
        self._leaves = leaves
        self._frames = frames
        self._counters = counters
        self._need: CData = ffi.new("xd_need *")

    def store(
        self, gpa: int, size: int, value: int, keep: Space | None = None, postponed: Postponed | None = None
    ) -> int | Steps[int]:
        """Perform a store of 1, 2, 4 or 8 bytes within one frame: to guest memory, then to the frame's tables.

        ``keep``: the space that keeps its shadow if the store needs room for tables. With ``postponed``, directories
        are not updated, but added to it. Returns the store's route, an ``xd_route``, or the work that ends with it:
        UNTRACKED_STORE if the frame has no table, DROPPED_STORE if it is not RAM or its page vanished, so that the
        store went nowhere.
        """
        self._need.count = 0
        result = lib.xd_guest_store(self.pointer, gpa, value, size, self._need)
        if result == lib.XD_STORE_DONE:
            return LEAF_STORE
        if result == lib.XD_STORE_UNTRACKED:
            return UNTRACKED_STORE
        if result == lib.XD_STORE_DIRECTORY and postponed is not None:
            _postpone(postponed, gpa, size)
            return DIRECTORY_STORE
        return self._store_on(result, gpa, size, value, Change(keep), postponed)

    def _store_on(
        self, result: int, gpa: int, size: int, value: int, change: Change, postponed: Postponed | None
    ) -> Steps[int]:
        """What is left of a store after its first try, which returned ``result``."""
        while result == -errno.EAGAIN:
            yield from self._frames.query_all(take_chunks(self._need))
            self._need.count = 0
            result = lib.xd_guest_store(self.pointer, gpa, value, size, self._need)
        if result == lib.XD_STORE_UNTRACKED:
            return UNTRACKED_STORE
        if result < 0:
            self._counters.vanished_pages += 1
            return DROPPED_STORE
        if result == lib.XD_STORE_DIRECTORY and postponed is not None:
            _postpone(postponed, gpa, size)
        elif result != lib.XD_STORE_DONE:
            yield from self.update_frame(gpa >> PAGE_SHIFT, *_entries_of(gpa, size), change)
        return DIRECTORY_STORE if result == lib.XD_STORE_DIRECTORY else LEAF_STORE

    def mark_unread(self, gfn: int) -> None:
        """The tables of a frame are updated later, and until then are not what the guest's page says."""
        lib.xd_set_frame_unread(self.pointer, gfn)

    def update_frame(self, gfn: int, first: int, last: int, change: Change) -> Steps[None]:
        """Update entries ``first``..``last`` of all tables of a frame, the highest level first.

        If the frame points to itself, the update of one may free another; so each is looked up again by its kind.
        Tables that are unread are updated as a whole.
        """
        shadow = self.pointer
        kinds = []
        number = lib.xd_first_of_frame(shadow, gfn)
        while number:
            kinds.append(shadow.tables[number].kind)
            number = shadow.tables[number].next_of_frame
        for kind in kinds:
            number = lib.xd_find(shadow, gfn, kind)
            level = kind & LEVEL_MASK
            if number and level > 1:
                yield from self._tree.update_directory(number, level, change, first, last)
            elif number and not shadow.tables[number].flags & UNSYNCED:
                rest = self._leaves.update(number)
                if rest is not None:
                    yield from rest


def _entries_of(gpa: int, size: int) -> tuple[int, int]:
    """The first and the last entry that a store within one frame touches."""
    offset = gpa & (PAGE_SIZE - 1)
    return offset // 8, (offset + size - 1) // 8


def _postpone(postponed: Postponed, gpa: int, size: int) -> None:
    first, last = _entries_of(gpa, size)
    before = postponed.get(gpa >> PAGE_SHIFT, (first, last))
    postponed[gpa >> PAGE_SHIFT] = (min(first, before[0]), max(last, before[1]))
