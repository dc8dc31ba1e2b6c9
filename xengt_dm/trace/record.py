"""Recording what a live guest does, so that the trace comes to the same shadows.

A trace is stores to zeroed memory (docs/trace-format.md), but of a live guest we see only the stores that trap. What it
stored to a page before that page became a table, or while a table was unsynced, shows when the engine reads the page;
and which frames are RAM shows when the engine asks. So a recording has two sources: events, which come through the bus
before they are done, and what the engine reads, which comes while it does them. An event is therefore held back until
the next one comes, and what was read meanwhile is written before it, as stores: then the event finds in the trace's
memory what it found in the guest's.

What the trace's memory holds is kept for the pages in question, so that only differences are written.
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
from xengt_dm.units import CData

FRAME: Final = 4096
ENTRIES: Final = 512
_WORDS: Final = struct.Struct(f"<{ENTRIES}Q")
_NOTHING: Final = bytes(FRAME)
#: Pages of the trace's memory that are kept, 64 MiB. One that was dropped is written whole when it is read again.
PAGES: Final = 16384


class SpaceMode(Protocol):
    """A :class:`xengt_dm.ppgtt.space.Mode`."""

    @property
    def value(self) -> str: ...


class Sink(Protocol):
    """A :class:`.trace_writer.TraceWriter`."""

    def write(self, event: Event) -> None: ...

    def flush(self) -> None: ...


class Recorder:
    """Writes a trace of one guest; it is a bus's Tap and an engine's Observer, and their docstrings hold.

    ``frame_limit``: frames of the trace's guest. ``read_register``: 4 bytes of BAR0 at an offset, as they are before
    the write that is being told. ``notify``: the register of which a write is a notification only as a whole. What
    ``sink`` raises goes to ``failed``, once, and nothing is written after it: a full disk must not reach the guest.
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
        self._limit = frame_limit * FRAME
        self._read_register = read_register
        self._notify = notify
        self._failed = failed
        self._broken = False
        self._held: list[Event] = []
        #: The trace's memory, page by page, the one used longest ago first.
        self._pages: OrderedDict[int, bytearray] = OrderedDict()
        self._most_pages = pages
        self._forgot = False
        self._holes: set[int] = set()
        self._chunks_with_holes: set[int] = set()
        self.events = 0

    # Tap

    def store(self, vcpu: int, gpa: int, size: int, value: int) -> None:
        self._hold(*self._stores(vcpu, gpa, size, value))

    def mmio(self, vcpu: int, offset: int, size: int, value: int) -> None:
        if size >= 4:
            self._hold(Mmio(offset, size, value, vcpu))
        else:
            self._hold(*self._narrow_writes(vcpu, offset, size, value))

    # Observer

    def submitted(self, mode: SpaceMode, roots: tuple[int, ...]) -> None:
        self._hold(Submit(*_names(mode, roots)))

    def gpu_stored(self, mode: SpaceMode, roots: tuple[int, ...], va: int, value: int, gpa: int) -> None:
        self._hold(GpuStore(*_names(mode, roots), va, value))
        self._remember(gpa, value.to_bytes(8, "little"))

    def frames_queried(self, first_gfn: int, count: int, errors: CData) -> None:
        if first_gfn not in self._chunks_with_holes and not any(ffi.buffer(errors, count * ffi.sizeof("int"))):
            return
        holes = {first_gfn + i for i in range(count) if errors[i]}
        before = {gfn for gfn in self._holes if first_gfn <= gfn < first_gfn + count}
        (self._chunks_with_holes.add if holes else self._chunks_with_holes.discard)(first_gfn)
        self._holes = self._holes - before | holes
        for first, length in _runs(holes - before):
            self._write(Remove(first, length))
        for first, length in _runs(before - holes):
            self._write(Add(first, length))
            for gfn in range(first, first + length):
                self._keep(gfn, bytearray(FRAME))

    def table_read(self, gfn: int, page: CData) -> None:
        new: bytes = ffi.buffer(page, FRAME)[:]
        old = self._page(gfn)
        if old is not None and bytes(old) == new:
            return
        self._keep(gfn, bytearray(new))
        words = _WORDS.unpack(new)
        known = (None,) * ENTRIES if old is None else _WORDS.unpack(old)
        changed = (i for i in range(ENTRIES) if words[i] != known[i])
        for first, length in _runs(changed):
            self._write_words(gfn * FRAME + 8 * first, words[first : first + length])

    # Besides

    def note(self, event: Event) -> None:
        """Write an event that nobody else tells of; what is read from here on comes after it."""
        self._hold()
        self._write(event)

    def dump(self, name: DumpId) -> None:
        """Say that the spaces are dumped now. The caller has synced them, so all of their tables have been read."""
        self.note(Dump(name))

    def flush(self) -> None:
        """Write down everything that is done by now."""
        self._hold()
        self._guarded(self._sink.flush)

    # Inside

    def _hold(self, *events: Event) -> None:
        """What was held back is done; hold these back."""
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
        """A store as far as it lies in the trace's memory; beyond it is dropped there as it is here."""
        if gpa + size <= self._limit:
            self._remember(gpa, value.to_bytes(size, "little"))
            yield Store(gpa, size, value, vcpu)
            return
        for i, byte in enumerate(value.to_bytes(size, "little")):
            if gpa + i < self._limit:
                self._remember(gpa + i, bytes([byte]))
                yield Store(gpa + i, 1, byte, vcpu)

    def _narrow_writes(self, vcpu: int, offset: int, size: int, value: int) -> Iterator[Event]:
        """A register write of 1 or 2 bytes as writes of 4, which is the least that a trace has."""
        for base in range(offset & ~3, offset + size, 4):
            if base == self._notify:
                continue  # a part of it is no notification, and nothing else reads it
            content = bytearray(self._read_register(base).to_bytes(4, "little"))
            for i, byte in enumerate(value.to_bytes(size, "little"), offset):
                if base <= i < base + 4:
                    content[i - base] = byte
            yield Mmio(base, 4, int.from_bytes(content, "little"), vcpu)

    def _write_words(self, gpa: int, words: tuple[int, ...]) -> None:
        """Words from ``gpa`` upwards, as fills where they repeat."""
        for value, group in groupby(words):
            count = len(list(group))
            self._write(Store(gpa, 8, value) if count == 1 else Fill(gpa, count, value))
            gpa += 8 * count

    def _remember(self, gpa: int, data: bytes) -> None:
        """The trace's memory has this now."""
        gfn, start = divmod(gpa, FRAME)
        page = self._page(gfn)
        if page is not None:
            fitting = data[: FRAME - start]
            page[start : start + len(fitting)] = fitting
            self._keep(gfn, page)
        if start + len(data) > FRAME:
            self._remember((gfn + 1) * FRAME, data[FRAME - start :])

    def _page(self, gfn: int) -> bytearray | None:
        """A page of the trace's memory; None if it was dropped."""
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
    """Numbers as (first, length) of consecutive ones."""
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
