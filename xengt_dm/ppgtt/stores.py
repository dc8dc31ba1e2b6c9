"""The guest's memory with its page tables in it: stores are performed in memory once, then shown in the shadow.

The bus (:mod:`xengt_dm.ioreq.bus`) has the stores to guest memory that trapped performed here. C does the first part of
a store (``core/ppgtt/guest_store.c``): it writes the value to guest memory and looks up which shadow tables the frame
has. Then,

* if these are *leaf tables*, C translates the entries that were stored to and writes them to the shadow. That is all,
  unless it must be asked first whether the page that an entry names is RAM: then the rest is work in slices.
* if one of them is a *directory*, :class:`~xengt_dm.ppgtt.tree.ShadowTree` updates the entries: it links the table that
  an entry names now, which it creates if there is none, and unlinks the one that the entry named before, which it frees
  if that was the last reference. For a directory above leaf tables that is done at once; above other directories it may
  be thousands of tables, and is work in slices.
* if it has *none*, or unsynced ones, the store is a late one, and there is nothing to be shown: the next sync reads
  unsynced tables. But the instruction may be emulated once more after the answer, and must find the frame as it found
  it before. So the frame is protected before the answer, if the protector says so.

When a store returns steps (:mod:`xengt_dm.steps`), it has done the first part of the work: memory has the value, and
the shadow has it, too, or the table is marked as unread, so that no reader takes its entries for those of the guest's
table. Other vCPUs may store to the same place before the steps end, and a store that is done again would undo theirs.
So the caller is told as soon as the value is in guest memory although steps are left: by ``performed``, a parameter.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import GuestFrames, take_chunks
from xengt_dm.ppgtt.leaves import LEVEL_MASK, UNSYNCED, LeafTables
from xengt_dm.ppgtt.ports import Protector
from xengt_dm.ppgtt.tree import Change, ShadowTree
from xengt_dm.steps import Steps, begin
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE, CData

# The routes of a store.
LEAF_STORE: int = lib.XD_ROUTE_LEAF_STORE
DIRECTORY_STORE: int = lib.XD_ROUTE_DIRECTORY_STORE
UNTRACKED_STORE: int = lib.XD_ROUTE_UNTRACKED_STORE
DROPPED_STORE: int = lib.XD_ROUTE_DROPPED_STORE
# What xd_guest_store did.
_DONE: int = lib.XD_STORE_DONE
_DIRECTORY: int = lib.XD_STORE_DIRECTORY
_UNTRACKED: int = lib.XD_STORE_UNTRACKED
_LATE: int = lib.XD_STORE_LATE
#: Updates of directories that are to be made later; by frame: the first and the last entry.
Postponed = dict[int, tuple[int, int]]


def _nobody_asks() -> None:
    """A store is in guest memory; nobody will do it again."""


class TableStores:
    """The guest's memory, with ``tree`` and ``leaves`` following what is stored to page tables in it.

    Raises :class:`~xengt_dm.errors.CallError` as the protector and the mapper of the frames do, and nothing because of
    the guest.
    """

    def __init__(
        self, tree: ShadowTree, leaves: LeafTables, frames: GuestFrames, protector: Protector, counters: CData
    ) -> None:
        self.pointer = tree.pointer
        self._tree = tree
        self._leaves = leaves
        self._frames = frames
        self._protector = protector
        self._counters = counters
        #: Chunks that a store must have queried. Empty between two stores.
        self._need: CData = ffi.new("xd_need *")

    def store(self, gpa: int, size: int, value: int, performed: Callable[[], None] = _nobody_asks) -> int | Steps[int]:
        """Perform one trapped store of 1, 2, 4 or 8 bytes within one frame, and update the shadow.

        Returns the store's route, an ``xd_route``, or the work that ends with it: UNTRACKED_STORE if the frame has no
        table, DROPPED_STORE if it is not RAM or its page vanished, so that the store went nowhere.
        ``performed`` is called if there are steps, once guest memory has the value.
        """
        result = lib.xd_guest_store(self.pointer, gpa, value, size, self._need)
        return self.follow(result, gpa, size, value, performed)

    def follow(
        self, result: int, gpa: int, size: int, value: int, performed: Callable[[], None] = _nobody_asks
    ) -> int | Steps[int]:
        """What is left of a store after xd_guest_store, which returned ``result``; as :meth:`store`.

        If that asks for chunks to be queried, the caller need not have kept which.
        """
        if result == _DONE:
            return LEAF_STORE
        rest = self._follow(result, gpa, size, value, Change(), performed=performed)
        return self._routed(gpa, rest) if isinstance(rest, int) else self._routed_later(gpa, rest)

    def store_of_many(
        self, gpa: int, size: int, value: int, postponed: Postponed, performed: Callable[[], None] = _nobody_asks
    ) -> int | Steps[int]:
        """One store of several that belong to one instruction; as :meth:`store`, but directories are not updated.

        They are added to ``postponed``, for :meth:`update_directories`.
        """
        result = lib.xd_guest_store(self.pointer, gpa, value, size, self._need)
        rest = self._follow(result, gpa, size, value, Change(), postponed, performed)
        return self._routed(gpa, rest) if isinstance(rest, int) else self._routed_later(gpa, rest)

    def store_of_gpu(self, gpa: int, value: int, change: Change) -> int | Steps[int]:
        """A store of the GPU, 8 bytes, which traps nowhere; as :meth:`store`, but not counted.

        ``change``: what it is part of.
        """
        with self._nothing_held():
            result = lib.xd_guest_store(self.pointer, gpa, value, 8, self._need)
        return LEAF_STORE if result == _LATE else self._follow(result, gpa, 8, value, change)

    def follow_gpu_store(self, result: int, gpa: int, size: int, value: int) -> Steps[None]:
        """What is left of a store of the GPU after xd_guest_store, which returned ``result``."""
        rest = self._follow(result, gpa, size, value, Change())
        if not isinstance(rest, int):
            yield from rest

    def pause_stores(self, postponed: Postponed) -> None:
        """Other requests are about to be served before the directories in ``postponed`` are updated."""
        for gfn in postponed:
            lib.xd_set_frame_unread(self.pointer, gfn)

    def update_directories(self, postponed: Postponed) -> Steps[None]:
        """Update the directories that an instruction stored to, each once."""
        for gfn, (first, last) in postponed.items():
            yield from self._update_tables(gfn, first, last, Change())

    def look_again(self, gpa: int) -> None:
        """The guest copies from or to this address, which it will not do where it has no memory."""
        self._frames.look_again(gpa >> PAGE_SHIFT)

    def load(self, gpa: int, size: int) -> int:
        """``size`` bytes of guest memory within one frame; all ones if it is not RAM."""
        return self._frames.load(gpa, size)

    def frames_changed(self) -> None:
        """The guest gave frames back (IOREQ_TYPE_INVALIDATE); the next submission finds out which."""
        self._protector.frames_changed()
        self._frames.invalidate()
        lib.xd_new_epoch(self.pointer)

    # The shadow follows

    def _follow(
        self,
        result: int,
        gpa: int,
        size: int,
        value: int,
        change: Change,
        postponed: Postponed | None = None,
        performed: Callable[[], None] = _nobody_asks,
    ) -> int | Steps[int]:
        """What is left of a store after xd_guest_store, which returned ``result``. Returns its route, or steps."""
        if result == -errno.EBUSY:
            return self._store_when_released(gpa, size, value, change, postponed, performed)
        if result == -errno.EAGAIN:
            return self._store_later(self._take_chunks(), gpa, size, value, change, postponed, performed)
        rest = self._follow_performed(result, gpa, size, value, change, postponed)
        if not isinstance(rest, int):
            performed()
        return rest

    def _follow_performed(
        self, result: int, gpa: int, size: int, value: int, change: Change, postponed: Postponed | None
    ) -> int | Steps[int]:
        """What is left of a store that guest memory has, or that was dropped; as :meth:`_follow`."""
        if result == _DONE:
            return LEAF_STORE
        if result == _UNTRACKED:
            return UNTRACKED_STORE
        if result == _LATE:
            return self._trap_late(gpa >> PAGE_SHIFT) if self._protector.late_stores_trap else LEAF_STORE
        if result < 0:
            self._counters.vanished_pages += 1
            return DROPPED_STORE
        route = LEAF_STORE
        if result == _DIRECTORY:
            route = DIRECTORY_STORE
            if postponed is not None:
                _postpone(postponed, gpa, size)
                return route
        else:
            self._take_chunks()  # that of the update finds them again
        rest = self._update_frame(gpa >> PAGE_SHIFT, *_entries_of(gpa, size), change)
        return route if rest is None else _ending_with(route, rest)

    def _store_later(
        self,
        chunks: Collection[int],
        gpa: int,
        size: int,
        value: int,
        change: Change,
        postponed: Postponed | None,
        performed: Callable[[], None],
    ) -> Steps[int]:
        """A store that waits until it is known whether its frame is RAM, for which ``chunks`` must be queried."""
        result = -errno.EAGAIN
        while result == -errno.EAGAIN:
            yield from self._frames.query_all(chunks)
            result = lib.xd_guest_store(self.pointer, gpa, value, size, self._need)
            chunks = self._take_chunks()
        rest = self._follow(result, gpa, size, value, change, postponed, performed)
        return rest if isinstance(rest, int) else (yield from rest)

    def _trap_late(self, gfn: int) -> Steps[int]:
        """Has unsynced leaf tables trap, for the answer to a late store."""
        while self._leaves.is_unsynced(gfn) and not self._leaves.protect([gfn]):
            yield
        return LEAF_STORE

    def _store_when_released(
        self,
        gpa: int,
        size: int,
        value: int,
        change: Change,
        postponed: Postponed | None,
        performed: Callable[[], None],
    ) -> Steps[int]:
        """A store while some are held; this one, perhaps."""
        while (before := self._protector.held(gpa >> PAGE_SHIFT)) is not None and not self._leaves.release(before):
            yield
        self.pointer.held = self._protector.holding
        with self._nothing_held():
            result = lib.xd_guest_store(self.pointer, gpa, value, size, self._need)
        rest = self._follow(result, gpa, size, value, change, postponed, performed)
        return rest if isinstance(rest, int) else (yield from rest)

    @contextmanager
    def _nothing_held(self) -> Iterator[None]:
        """Within the ``with`` block, which has no yield, a store is performed even if it is held."""
        held, self.pointer.held = self.pointer.held, 0
        try:
            yield
        finally:
            self.pointer.held = held

    def _take_chunks(self) -> Collection[int]:
        chunks = take_chunks(self._need)
        self._need.count = 0
        return chunks

    def _update_frame(self, gfn: int, first: int, last: int, change: Change) -> Steps[None] | None:
        """Update entries ``first``..``last`` of all tables of a frame.

        Returns None if that is done, or steps, begun, that do the rest.
        """
        shadow = self.pointer
        number = lib.xd_first_of_frame(shadow, gfn)
        table = shadow.tables[number]
        if table.next_of_frame or table.kind & LEVEL_MASK == 1:
            return begin(self._update_tables(gfn, first, last, change))
        return self._tree.update_entries(number, first, last, change)

    def _update_tables(self, gfn: int, first: int, last: int, change: Change) -> Steps[None]:
        """The same for any number of entries and of tables, the table of the highest level first.

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

    # Its route

    def _routed(self, gpa: int, route: int) -> int:
        """Count what became of a store of a CPU, and have it find its frame as it was if it comes back."""
        if route == DROPPED_STORE:
            self._counters.dropped_stores += 1
        elif route == UNTRACKED_STORE:
            self._counters.straggler_stores += 1
            self._protector.trap_late(gpa >> PAGE_SHIFT)
        return route

    def _routed_later(self, gpa: int, rest: Steps[int]) -> Steps[int]:
        return self._routed(gpa, (yield from rest))


def _ending_with(route: int, rest: Steps[None]) -> Steps[int]:
    """The rest of an update whose first slice has been made just now."""
    yield
    yield from rest
    return route


def _entries_of(gpa: int, size: int) -> tuple[int, int]:
    """The first and the last entry that a store within one frame touches."""
    offset = gpa & (PAGE_SIZE - 1)
    return offset // 8, (offset + size - 1) // 8


def _postpone(postponed: Postponed, gpa: int, size: int) -> None:
    first, last = _entries_of(gpa, size)
    before = postponed.get(gpa >> PAGE_SHIFT, (first, last))
    postponed[gpa >> PAGE_SHIFT] = (min(first, before[0]), max(last, before[1]))
