"""Records what a live guest does, so that replaying the trace leads to the same shadows.

Facts: a trace starts with zeroed memory and has every store (docs/trace-format.md). Of a live guest we see only the
stores that trap. What it stored to a page before the page became a table, or while the table was unsynced, shows when
the engine reads the page. Which frames are RAM shows when the engine queries them.
What follows: a recording has two sources: events, which the bus reports before they take effect, and what the engine
reads, which it reports while the event takes effect.
What we do: an event is held back until the next one comes. What the engine reads meanwhile is written before it, as
stores. So in a replay the event finds in the trace's memory what it found in the guest's memory. The recorder keeps a
copy of the trace's memory for the pages that were read, so that only differences are written.
Cost: up to 64 MiB for the copy, and 4 KiB compared for each page that the engine reads.

Example: the guest fills page 7 while it is plain memory, and links it as a table by a store to page 3. The recorder
holds the store to page 3 back. The engine reads page 7. The recorder writes fills of page 7, and later the store.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, Final, Protocol

from xengt_dm._core import ffi
from xengt_dm.trace.events import (
    Add,
    Dump,
    DumpId,
    Event,
    Fill,
    GpuStore,
    Mmio,
    Mode,
    Remove,
    Root,
    Store,
    Submit,
)
from xengt_dm.units import PAGE_SIZE, CData

ENTRIES: Final = 512
_WORDS: Final = struct.Struct(f"<{ENTRIES}Q")
_NOTHING: Final = bytes(PAGE_SIZE)
#: Pages of the trace's memory that are kept: 64 MiB. A page that was dropped is written whole when it is read again.
PAGES: Final = 16384


class SpaceMode(Protocol):
    """A :class:`xengt_dm.ppgtt.space.Mode`."""

    @property
    def value(self) -> str: ...


class Sink(Protocol):
    """Where events are written; a :class:`~xengt_dm.trace.write.TraceWriter` is one."""

    def write(self, event: Event) -> None: ...

    def flush(self) -> None: ...


class Recorder:
    """Writes a trace of one guest. It observes a bus and an engine: the methods below are called by them.

    ``frame_limit`` is the number of frames of the trace's guest. ``read_register(offset)`` returns 4 bytes of BAR0 as
    they are before the write that is reported. ``notify`` is the offset of the register in which only a write of all
    four bytes is a notification. If ``sink`` raises OSError, the recorder calls ``failed`` with it once and writes
    nothing more, so a full disk does not affect the guest. ``pages`` limits the copy of the trace's memory.
    """

    def __init__(
        self,
        sink: Sink,
        frame_limit: int,
        read_register: Callable[[int], int],
        notify: int,
        failed: Callable[[OSError], None],
        pages: int = PAGES,
    ) -> None:
        self._sink = sink
        self._limit = frame_limit * PAGE_SIZE
        self._read_register = read_register
        self._notify = notify
        self._failed = failed
        self._broken = False
        self._held: list[Event] = []
        #: Pages of the trace's memory by gfn, the page that was used longest ago first.
        self._pages: OrderedDict[int, bytearray] = OrderedDict()
        self._most_pages = pages
        self._forgot = False
        self._holes: set[int] = set()
        self._chunks_with_holes: set[int] = set()
        self.events = 0

    # Called by the bus

    def store(self, vcpu: int, gpa: int, size: int, value: int) -> None:
        """A vCPU is about to store ``size`` bytes to a trapped page."""
        self._hold(*self._stores(vcpu, gpa, size, value))

    def mmio(self, vcpu: int, offset: int, size: int, value: int) -> None:
        """A vCPU is about to write ``size`` bytes at ``offset`` of BAR0."""
        if size >= 4:
            self._hold(Mmio(offset, size, value, vcpu))
        else:
            self._hold(*self._narrow_writes(vcpu, offset, size, value))

    # Called by the engine

    def submitted(self, mode: SpaceMode, roots: tuple[int, ...]) -> None:
        """A submission of this space begins."""
        self._hold(Submit(*_names(mode, roots)))

    def gpu_stored(self, mode: SpaceMode, roots: tuple[int, ...], va: int, value: int, gpa: int) -> None:
        """The GPU is about to store 8 bytes at ``va``, which the space resolves to ``gpa``."""
        self._hold(GpuStore(*_names(mode, roots), va, value))
        self._remember(gpa, value.to_bytes(8, "little"))

    def frames_queried(self, first_gfn: int, count: int, errors: CData) -> None:
        """The engine has queried a chunk. ``errors`` has 0 for each frame that is RAM."""
        if first_gfn not in self._chunks_with_holes and not any(ffi.buffer(errors, count * ffi.sizeof("int"))):
            return
        holes = {first_gfn + i for i in range(count) if errors[i]}
        before = {gfn for gfn in self._holes if first_gfn <= gfn < first_gfn + count}
        if holes:
            self._chunks_with_holes.add(first_gfn)
        else:
            self._chunks_with_holes.discard(first_gfn)
        self._holes = self._holes - before | holes
        for first, length in _runs(holes - before):
            self._write(Remove(first, length))
        for first, length in _runs(before - holes):
            self._write(Add(first, length))
            for gfn in range(first, first + length):
                self._keep(gfn, bytearray(PAGE_SIZE))

    def table_read(self, gfn: int, page: CData) -> None:
        """The engine has read a table. ``page`` has its 512 entries."""
        new: bytes = ffi.buffer(page, PAGE_SIZE)[:]
        old = self._page(gfn)
        if old is not None and bytes(old) == new:
            return
        self._keep(gfn, bytearray(new))
        words = _WORDS.unpack(new)
        known = (None,) * ENTRIES if old is None else _WORDS.unpack(old)
        changed = (i for i in range(ENTRIES) if words[i] != known[i])
        for first, length in _runs(changed):
            self._write_words(gfn * PAGE_SIZE + 8 * first, words[first : first + length])

    # Called by whoever records

    def note(self, event: Event) -> None:
        """Writes an event that neither the bus nor the engine reports. What is read from here on comes after it."""
        self._hold()
        self._write(event)

    def dump(self, name: DumpId) -> None:
        """Writes a dump of all spaces. The caller must sync them first, so that the engine has read everything."""
        self.note(Dump(name))

    def flush(self) -> None:
        """Writes all events that have taken effect, and flushes the sink."""
        self._hold()
        self._guarded(self._sink.flush)

    # Inside

    def _hold(self, *events: Event) -> None:
        """Writes the events that were held back, which have taken effect, and holds ``events`` back."""
        held, self._held = self._held, [*events]
        for event in held:
            self._write(event)

    def _write(self, event: Event) -> None:
        self._guarded(self._sink.write, event)
        self.events += 1

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._broken:
            return
        try:
            call(*arguments)
        except OSError as error:
            self._broken = True
            self._failed(error)

    def _stores(self, vcpu: int, gpa: int, size: int, value: int) -> Iterator[Event]:
        """Yields a store, or the part of it inside the trace's memory. The rest is dropped in a replay, too."""
        if gpa + size <= self._limit:
            self._remember(gpa, value.to_bytes(size, "little"))
            yield Store(gpa, size, value, vcpu)
            return
        for i, byte in enumerate(value.to_bytes(size, "little")):
            if gpa + i < self._limit:
                self._remember(gpa + i, bytes([byte]))
                yield Store(gpa + i, 1, byte, vcpu)

    def _narrow_writes(self, vcpu: int, offset: int, size: int, value: int) -> Iterator[Event]:
        """Yields a register write of 1 or 2 bytes as writes of 4 bytes, the smallest that a trace has."""
        for base in range(offset & ~3, offset + size, 4):
            if base == self._notify:
                continue  # a write of a part is not a notification, and nothing else reads the register
            content = bytearray(self._read_register(base).to_bytes(4, "little"))
            for i, byte in enumerate(value.to_bytes(size, "little"), offset):
                if base <= i < base + 4:
                    content[i - base] = byte
            yield Mmio(base, 4, int.from_bytes(content, "little"), vcpu)

    def _write_words(self, gpa: int, words: tuple[int, ...]) -> None:
        """Writes stores of ``words`` from ``gpa`` upwards, and fills where a word repeats."""
        for value, group in groupby(words):
            count = len(list(group))
            self._write(Store(gpa, 8, value) if count == 1 else Fill(gpa, count, value))
            gpa += 8 * count

    def _remember(self, gpa: int, data: bytes) -> None:
        """Notes that the trace's memory contains ``data`` at ``gpa`` now."""
        gfn, start = divmod(gpa, PAGE_SIZE)
        page = self._page(gfn)
        if page is not None:
            fitting = data[: PAGE_SIZE - start]
            page[start : start + len(fitting)] = fitting
            self._keep(gfn, page)
        if start + len(data) > PAGE_SIZE:
            self._remember((gfn + 1) * PAGE_SIZE, data[PAGE_SIZE - start :])

    def _page(self, gfn: int) -> bytearray | None:
        """Returns a page of the trace's memory, or None if it was dropped."""
        page = self._pages.get(gfn)
        if page is not None:
            self._pages.move_to_end(gfn)
            return page
        return None if self._forgot else bytearray(_NOTHING)

    def _keep(self, gfn: int, page: bytearray) -> None:
        self._pages[gfn] = page
        self._pages.move_to_end(gfn)
        if len(self._pages) > self._most_pages:
            self._pages.popitem(last=False)
            self._forgot = True


def _names(mode: SpaceMode, roots: tuple[int, ...]) -> tuple[Mode, Root]:
    if mode.value == "l4":
        return "l4", roots[0]
    first, second, third, fourth = roots
    return "l3", (first, second, third, fourth)


def _runs(numbers: Any) -> Iterator[tuple[int, int]]:
    """Yields (first, length) of each run of consecutive numbers."""
    first = length = 0
    for number in sorted(numbers):
        if length and number == first + length:
            length += 1
            continue
        if length:
            yield first, length
        first, length = number, 1
    if length:
        yield first, length
