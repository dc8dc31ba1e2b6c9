"""Writes a trace on a thread of its own, so that the thread that serves the guest never waits for a file.

Facts: the thread that records also serves the guest. A write to a file waits for as long as the disk or a file server
likes. Turning a page into lines takes up to half a millisecond in Python, and compressing them as long again; meanwhile
a second thread of Python code would keep the first one waiting for the interpreter.
What follows: the serving thread may only copy. What the other thread does must be C code that releases the interpreter,
in few and large pieces.
Decision: the serving thread collects lines, and pages as they are, in batches, and hands these over. The thread makes
lines of the pages in C, compresses and writes. What waits has a bound in bytes. When it is reached, the recording ends:
a trace with a gap would be wrong, and waiting would stop the guest.
Cost: up to QUEUE_BYTES of memory, and a thread for as long as a recording goes on.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from queue import SimpleQueue
from typing import Final, NamedTuple, TypeAlias, cast

from xengt_dm._core import ffi, lib
from xengt_dm.trace.ending import End, EndedError
from xengt_dm.trace.events import Dump, Event
from xengt_dm.trace.write import TraceWriter
from xengt_dm.units import PAGE_SIZE

#: Bytes that may wait for the thread.
QUEUE_BYTES: Final = 64 << 20
#: Bytes that are handed over together.
BATCH_BYTES: Final = 256 << 10
#: Bytes of the size limit that are kept for the last event, as text or as a gzip member.
MARK_BYTES: Final = 96


class PageChange(NamedTuple):
    """A page whose content changed; ``before`` is None if it is not known."""

    gfn: int
    before: bytes | None
    after: bytes


class PageLines:
    """Makes lines of up to ``pages`` pages at once."""

    def __init__(self, pages: int) -> None:
        self._text = ffi.new("char[]", pages * lib.XD_PAGE_LINES)
        self._pages = ffi.new("xd_page_change[]", pages)

    def of(self, changes: Sequence[PageChange]) -> bytes:
        """Returns the lines that change the pages, with their ends."""
        alive = []
        for page, change in zip(self._pages, changes, strict=False):
            before = ffi.NULL if change.before is None else ffi.from_buffer("uint64_t[]", change.before)
            after = ffi.from_buffer("uint64_t[]", change.after)
            page.gpa, page.before, page.after = change.gfn * PAGE_SIZE, before, after
            alive += [before, after]
        length = lib.xd_page_lines(self._text, self._pages, len(changes))
        data: bytes = ffi.buffer(self._text, length)[:]
        return data


#: Lines, and the three fields of each page. An object for each page would have the garbage collector look at thousands
#: of them at once, which takes the serving thread milliseconds.
_Items: TypeAlias = list[str | int | bytes | None]


class _Batch(NamedTuple):
    items: _Items
    size: int

    def parts(self) -> Iterator[str | PageChange]:
        """Yields lines and pages in order."""
        items = iter(self.items)
        for item in items:
            if isinstance(item, str):
                yield item
            else:
                yield PageChange(cast(int, item), cast("bytes | None", next(items)), cast(bytes, next(items)))


class _Close(NamedTuple):
    """Nothing comes after this; ``end`` says why the trace ends early, if it does."""

    end: End | None


class BackgroundWriter:
    """The thread that writes a trace through ``writer``, which it owns and closes.

    One thread calls the methods, and none of them waits, except for :meth:`wait`. Raises OSError if there is no thread
    to be had; the writer is closed then.
    """

    def __init__(self, writer: TraceWriter, queue_bytes: int = QUEUE_BYTES) -> None:
        self._writer = writer
        self._limit = queue_bytes
        self._items: _Items = []
        self._collected = 0
        #: Bytes handed over; only the caller's thread changes it. Bytes written; only the other thread does.
        self._given = self._taken = 0
        self._queue: SimpleQueue[_Batch | _Close] = SimpleQueue()
        self._error: EndedError | None = None
        self._closed = False
        self._finished = threading.Event()
        thread = threading.Thread(target=self._work, name="xengt-record", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            writer.close()
            raise OSError(errno.EAGAIN, "no thread can be started") from error

    @property
    def events(self) -> int:
        """Events in the file."""
        return self._writer.events

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._writer.size

    @property
    def error(self) -> EndedError | None:
        """Why the thread stopped writing before it was told to."""
        return self._error

    def write(self, event: Event, count: int = 1) -> None:
        """Adds an event, so many times. Raises EndedError if nothing more is written, as the next two methods do."""
        lines = (event.line() + "\n") * count
        self._make_room(len(lines))
        self._items.append(lines)
        self._flush_if_full()

    def write_page(self, gfn: int, before: bytes | None, after: bytes) -> None:
        """Adds stores that turn the content of a frame into ``after``. None: the content before is not known."""
        self._make_room(PAGE_SIZE)
        self._items += gfn, before, after
        self._flush_if_full()

    def flush(self) -> None:
        """Hands over what was collected."""
        if self._error is not None:
            raise self._error
        if self._items:
            self._given += self._collected
            self._queue.put(_Batch(self._items, self._collected))
            self._items, self._collected = [], 0

    def close(self, end: End | None = None) -> None:
        """Has the thread write what it was given, and close the file. ``end``: why the trace ends early, if it does.

        What comes later is not written. Closing a second time does nothing.
        """
        if self._closed:
            return
        with suppress(EndedError):
            self.flush()
        self._closed = True
        self._queue.put(_Close(end))

    def wait(self, seconds: float) -> bool:
        """Waits for the file to be closed; False if it is not by then. Any thread may call this."""
        return self._finished.wait(seconds)

    def _make_room(self, size: int) -> None:
        if self._error is not None:
            raise self._error
        if self._given + self._collected - self._taken + size > self._limit:
            raise EndedError(End.QUEUE)
        self._collected += size

    def _flush_if_full(self) -> None:
        if self._collected >= BATCH_BYTES:
            self.flush()

    # On the thread

    def _work(self) -> None:
        try:
            end = self._write_all()
        except EndedError as error:
            self._error, end = error, error.end
        except OSError as error:
            self._error, end = EndedError(End.FILE, error), End.FILE
        try:
            with suppress(OSError, EndedError):  # of a full disk a part of the last chunk was given back
                if end is not None:
                    self._writer.write_lines(f"{Dump(end.mark).line()}\n".encode())
            with suppress(OSError):
                self._writer.close()
        finally:
            self._finished.set()

    def _write_all(self) -> End | None:
        """Writes batches until the trace is closed. Returns why it ends early."""
        lines = PageLines(BATCH_BYTES // PAGE_SIZE + 1)
        while not isinstance(batch := self._queue.get(), _Close):
            parts: list[bytes] = []
            for kind, group in groupby(batch.parts(), type):
                if kind is str:
                    parts.append("".join(cast("Iterator[str]", group)).encode())
                else:
                    parts.append(lines.of([*cast("Iterator[PageChange]", group)]))
            self._writer.write_lines(b"".join(parts), reserve=MARK_BYTES)
            self._taken += batch.size
        return batch.end
