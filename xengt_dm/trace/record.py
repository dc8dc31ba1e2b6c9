"""Records what a live guest does, so that replaying the trace leads to the same shadows.

Facts: a trace starts with zeroed memory and has every store (docs/trace-format.md). Of a live guest we see only the
stores that trap. What it stored to a page before the page became a table, or while the table was unsynced, shows when
the engine reads the page. Which frames are RAM shows when the engine queries them.
What follows: a recording has two sources: events, which the bus reports before they take effect, and what the engine
reads, which it reports while the event takes effect.
What we do: an event is held back until the next one comes. What the engine reads meanwhile is written before it, as
stores. So in a replay the event finds in the trace's memory what it found in the guest's memory. The recorder keeps a
copy of the trace's memory for the pages that were read, so that only differences are written. Of pages for which there
is no room it keeps a digest, so that a page is not written again if it is still the same.
Cost: up to 64 MiB for the copy and 32 MiB for digests, and 4 KiB copied and compared for each page that the engine
reads. The digest has a random key, because a guest that could make two pages with the same digest could have a wrong
trace written.

Example: the guest fills page 7 while it is plain memory, and links it as a table by a store to page 3. The recorder
holds the store to page 3 back. The engine reads page 7. The recorder writes fills of page 7, and later the store.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from xengt_dm._core import ffi
from xengt_dm.trace.ending import End, EndedError
from xengt_dm.trace.events import (
    Add,
    Dump,
    DumpId,
    Event,
    GpuStore,
    Mmio,
    Mode,
    Remove,
    Root,
    Store,
    Submit,
)
from xengt_dm.trace.memory import TraceMemory
from xengt_dm.units import PAGE_SIZE, CData

#: Chunks of frames with holes that are kept track of. 65,536 chunks are 128 GiB, and take 16 MiB.
HOLED_CHUNKS: Final = 65536
#: Events of the guest that may wait for :meth:`Recorder.catch_up`, and how many of them one call writes.
MOST_WAITING: Final = 65536
CATCH_UP: Final = 128


class SpaceMode(Protocol):
    """A :class:`xengt_dm.ppgtt.space.Mode`."""

    @property
    def value(self) -> str:
        """``l4`` or ``l3``."""


class Sink(Protocol):
    """Where events are written; a :class:`~xengt_dm.trace.background.BackgroundWriter` is one.

    No method waits. Each raises EndedError if nothing more is written.
    """

    def write(self, event: Event, count: int = 1) -> None:
        """Writes an event ``count`` times."""

    def write_page(self, gfn: int, before: bytes | None, after: bytes) -> None:
        """Writes the stores that turn a page's content from ``before`` (None: unknown) into ``after``."""

    def flush(self) -> None:
        """Passes what was written on, so that it comes to the file soon."""


class Recorder:
    """Writes a trace of one guest. It observes a bus and an engine: the methods below are called by them.

    ``frame_limit`` is the number of frames of the trace's guest. ``read_register(offset)`` returns 4 bytes of BAR0 as
    they are before the write that is reported. ``notify`` is the offset of the register in which only a write of all
    four bytes is a notification. If ``sink`` raises EndedError, the recorder calls ``ended`` with it once and writes
    nothing more, so a full disk does not affect the guest. ``memory`` is what the trace's memory contains.
    ``holed_chunks`` limits the chunks with holes, beyond which the recording ends, too.

    An event takes time in proportion to what it changes. Reading a page that did not change, and querying a chunk whose
    holes are the same, write nothing.
    """

    def __init__(
        self,
        sink: Sink,
        frame_limit: int,
        read_register: Callable[[int], int],
        notify: int,
        ended: Callable[[EndedError], None],
        memory: TraceMemory | None = None,
        holed_chunks: int = HOLED_CHUNKS,
    ) -> None:
        self._sink = sink
        self._limit = frame_limit * PAGE_SIZE
        self._read_register = read_register
        self._notify = notify
        self._ended = ended
        self._broken = False
        self._held: list[Event] = []
        #: Events of the guest that must be written after those of :meth:`note`; None if there is no need to wait.
        self._waiting: deque[Event] | None = None
        self._memory = memory or TraceMemory(os.urandom(16))
        #: By the first gfn of a chunk: its holes, one bit a frame. A chunk that is not here has none.
        self._holes: dict[int, int] = {}
        self._most_holed_chunks = holed_chunks

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
        self._memory.store(gpa, value.to_bytes(8, "little"))

    def frames_queried(self, first_gfn: int, count: int, errors: CData) -> None:
        """The engine has queried a chunk. ``errors`` has 0 for each frame that is RAM."""
        if self._broken:
            return
        before = self._holes.get(first_gfn, 0)
        holes = _nonzero(errors, count)
        if holes == before:
            return
        if not holes:
            del self._holes[first_gfn]
        elif before or len(self._holes) < self._most_holed_chunks:
            self._holes[first_gfn] = holes
        else:
            self._end(EndedError(End.HOLES))
            return
        for first, length in _runs(holes & ~before):
            self._write(Remove(first_gfn + first, length))
        for first, length in _runs(before & ~holes):
            self._write(Add(first_gfn + first, length))
            self._memory.clear(first_gfn + first, length)

    def table_read(self, gfn: int, page: CData) -> None:
        """The engine has read a table. ``page`` has its 512 entries."""
        if self._broken:
            return
        after: bytes = ffi.buffer(page, PAGE_SIZE)[:]
        same, before = self._memory.replace(gfn, after)
        if not same:
            self._guarded(lambda: self._sink.write_page(gfn, before, after))

    # Called by the daemon

    def keep_waiting(self) -> None:
        """Writes the guest's events from here on after those that :meth:`note` is called with, by :meth:`catch_up`."""
        self._waiting = deque()

    def catch_up(self) -> bool:
        """Writes some of the events that wait. Returns whether none is left; then none will wait any more."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return True
        for _ in range(min(CATCH_UP, len(waiting))):
            self._hold(waiting.popleft())
        if waiting:
            self._waiting = waiting
        return not waiting

    def note(self, event: Event, count: int = 1) -> None:
        """Writes an event that neither the bus nor the engine reports, so many times.

        What is read from here on comes after it.
        """
        self._hold()
        self._write(event, count)

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
        if self._waiting is not None:
            self._waiting.extend(events)
            if len(self._waiting) > MOST_WAITING:
                self._waiting = None
                self._end(EndedError(End.QUEUE))
            return
        held, self._held = self._held, [*events]
        for event in held:
            self._write(event)

    def _write(self, event: Event, count: int = 1) -> None:
        self._guarded(lambda: self._sink.write(event, count))

    def _guarded(self, call: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            call()
        except EndedError as error:
            self._end(error)

    def _end(self, error: EndedError) -> None:
        self._broken = True
        self._ended(error)

    def _stores(self, vcpu: int, gpa: int, size: int, value: int) -> Iterator[Event]:
        """Yields a store, or the part of it inside the trace's memory. The rest is dropped in a replay, too."""
        if gpa + size <= self._limit:
            self._memory.store(gpa, value.to_bytes(size, "little"))
            yield Store(gpa, size, value, vcpu)
            return
        for i, byte in enumerate(value.to_bytes(size, "little")):
            if gpa + i < self._limit:
                self._memory.store(gpa + i, bytes([byte]))
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


def _names(mode: SpaceMode, roots: tuple[int, ...]) -> tuple[Mode, Root]:
    if mode.value == "l4":
        return "l4", roots[0]
    first, second, third, fourth = roots
    return "l3", (first, second, third, fourth)


def _nonzero(errors: CData, count: int) -> int:
    """Returns which of ``count`` ints are not 0, one bit each, the first in the lowest bit."""
    data: bytes = ffi.buffer(errors, count * ffi.sizeof("int"))[:]
    if not data.strip(b"\0"):
        return 0
    digits = "".join("1" if error else "0" for error in reversed(ffi.unpack(errors, count)))
    return int(digits, 2)


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    """Yields (first, length) of each run of bits that are set."""
    first = 0
    while bits:
        skip = (bits & -bits).bit_length() - 1
        bits >>= skip
        length = (~bits & bits + 1).bit_length() - 1
        yield first + skip, length
        first += skip + length
        bits >>= length
