"""The recorder by itself: what it writes, and in which order."""

from __future__ import annotations

import errno
import struct
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.recording import page_events
from xengt_dm._core import ffi
from xengt_dm.ppgtt.space import Mode
from xengt_dm.trace.ending import End, EndedError
from xengt_dm.trace.events import Add, Dump, Event, Fill, GpuStore, Mmio, Remove, Store, Submit
from xengt_dm.trace.memory import TraceMemory
from xengt_dm.trace.record import CATCH_UP, MOST_WAITING, Recorder

NOTIFY = 0x78818
FRAMES = 1024
END = FRAMES * 4096


class Out:
    """Where the recorder writes; it may be broken."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.broken: EndedError | None = None
        self.failures: list[EndedError] = []
        self.registers: dict[int, int] = {}

    def write(self, event: Event, count: int = 1) -> None:
        if self.broken:
            raise self.broken
        self.events += [event] * count

    def write_page(self, gfn: int, before: bytes | None, after: bytes) -> None:
        for event in page_events(gfn, before, after):
            self.write(event)

    def flush(self) -> None: ...

    def recorder(self, pages: int = 64, digests: int = 0, holed_chunks: int = 64) -> Recorder:
        memory = TraceMemory(b"key", pages, digests)
        return Recorder(
            self, FRAMES, lambda at: self.registers.get(at, 0), NOTIFY, self.failures.append, memory, holed_chunks
        )


def page(*words: int) -> Any:
    return ffi.new("uint64_t[512]", list(words))


def errors(*holes: int) -> Any:
    return ffi.new("int[]", [errno.ENOENT if i in holes else 0 for i in range(512)])


def test_what_is_read_comes_before_the_event_that_had_it_read() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.mmio(1, NOTIFY, 4, 4)
    recorder.table_read(5, page(1, 7, 7, 0, 9))
    assert out.events == [Store(5 * 4096, 8, 1), Fill(5 * 4096 + 8, 2, 7), Store(5 * 4096 + 32, 8, 9)]
    recorder.store(2, 4096, 4, 3)
    assert out.events[3:] == [Mmio(NOTIFY, 4, 4, 1)]
    recorder.flush()
    assert out.events[4:] == [Store(4096, 4, 3, 2)]


def test_only_differences_are_written() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.table_read(5, page(1, 2, 3))
    recorder.store(0, 5 * 4096 + 8, 8, 20)
    recorder.table_read(5, page(1, 20, 30))
    recorder.table_read(5, page(1, 20, 30))
    recorder.flush()
    assert out.events[3:] == [Store(5 * 4096 + 16, 8, 30), Store(5 * 4096 + 8, 8, 20)]
    recorder.table_read(5, page())
    assert out.events[5:] == [Fill(5 * 4096, 3, 0)]


def test_a_page_that_was_stored_to_is_known() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.store(0, 6 * 4096 - 4, 8, 0x1111111122222222)
    recorder.flush()
    recorder.table_read(6, page(0x11111111))
    last = ffi.new("uint64_t[512]")
    last[511] = 0x2222222200000000
    recorder.table_read(5, last)
    assert out.events == [Store(6 * 4096 - 4, 8, 0x1111111122222222)]


def test_a_page_that_was_dropped_is_written_whole() -> None:
    out = Out()
    recorder = out.recorder(pages=1)
    recorder.table_read(5, page(1))
    recorder.table_read(6, page(2))
    out.events.clear()
    recorder.store(0, 5 * 4096, 8, 1)
    recorder.table_read(5, page(1))
    assert out.events == [Store(5 * 4096, 8, 1), Fill(5 * 4096 + 8, 511, 0)]


def test_frames_that_go_and_come() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.frames_queried(512, 512, errors())
    recorder.table_read(514, page(5))
    out.events.clear()
    recorder.frames_queried(512, 512, errors(2, 3, 9))
    assert out.events == [Remove(514, 2), Remove(521, 1)]
    recorder.frames_queried(512, 512, errors(9))
    assert out.events[2:] == [Add(514, 2)]
    recorder.frames_queried(512, 512, errors(9))
    recorder.table_read(514, page(5))
    assert out.events[3:] == [Store(514 * 4096, 8, 5)]
    recorder.frames_queried(512, 512, errors())
    assert out.events[4:] == [Add(521, 1)]


def test_narrow_register_writes_become_wide_ones() -> None:
    out = Out()
    out.registers = {0x4080: 0xAABBCCDD, 0x4084: 0x11223344}
    recorder = out.recorder()
    recorder.mmio(0, 0x4081, 1, 0xEE)
    recorder.mmio(0, 0x4083, 2, 0x5566)
    recorder.mmio(0, NOTIFY + 1, 2, 0x5566)
    recorder.flush()
    assert out.events == [Mmio(0x4080, 4, 0xAABBEEDD), Mmio(0x4080, 4, 0x66BBCCDD), Mmio(0x4084, 4, 0x11223355)]


def test_a_store_beyond_the_guest_is_cut() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.store(1, END - 2, 4, 0x44332211)
    recorder.store(0, END, 8, 1)
    recorder.flush()
    assert out.events == [Store(END - 2, 1, 0x11, 1), Store(END - 1, 1, 0x22, 1)]


def test_submissions_stores_of_the_gpu_and_dumps() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.submitted(Mode.L3, (1, 2, 3, 4))
    recorder.gpu_stored(Mode.L4, (4096,), 8, 77, 5 * 4096)
    recorder.table_read(5, page(77))
    recorder.dump("d")
    assert out.events == [Submit("l3", (1, 2, 3, 4)), GpuStore("l4", 4096, 8, 77), Dump("d")]


def test_a_full_disk_is_told_once_and_ends_it() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.table_read(5, page(1))
    out.broken = EndedError(End.FILE, OSError(errno.ENOSPC, "No space left on device"))
    recorder.table_read(5, page(*struct.unpack("<3Q", bytes(range(24)))))
    recorder.store(0, 0, 8, 1)
    out.broken = None
    recorder.flush()
    assert out.events == [Store(5 * 4096, 8, 1)]
    assert [error.error.errno for error in out.failures if error.error] == [errno.ENOSPC]


def test_a_page_that_was_dropped_is_not_written_again_if_it_is_the_same() -> None:
    """A guest that links more tables than fit again and again must not have all of them written each time."""
    out = Out()
    recorder = out.recorder(pages=2, digests=64)
    for _ in range(3):
        for gfn in range(5, 15):
            recorder.table_read(gfn, page(gfn))
    assert out.events == [Store(gfn * 4096, 8, gfn) for gfn in range(5, 15)]
    out.events.clear()
    recorder.store(0, 5 * 4096 + 8, 8, 1)
    recorder.flush()
    recorder.table_read(6, page(6, 6))
    recorder.table_read(5, page(5, 1))
    recorder.table_read(5, page(5, 1))
    recorder.flush()
    assert out.events == [
        Store(5 * 4096 + 8, 8, 1),
        Fill(6 * 4096, 2, 6),
        Fill(6 * 4096 + 16, 510, 0),
        Store(5 * 4096, 8, 5),
        Store(5 * 4096 + 8, 8, 1),
        Fill(5 * 4096 + 16, 510, 0),
    ], "a page whose digest alone is known is written whole when it changed"


def test_frames_that_come_back_are_zeros_also_when_pages_were_dropped() -> None:
    out = Out()
    recorder = out.recorder(pages=1, digests=1)
    for gfn in (514, 515, 516, 5, 6, 7):
        recorder.table_read(gfn, page(1))
    recorder.frames_queried(512, 512, errors(3))
    recorder.frames_queried(512, 512, errors())
    out.events.clear()
    recorder.table_read(515, page())
    assert out.events == []


def test_the_same_again_adds_nothing() -> None:
    """The engine may read a page in pieces, and query a chunk for each of them."""
    out = Out()
    recorder = out.recorder()
    content, holes = page(1, 2), errors(4, 5)
    for _ in range(5):
        recorder.frames_queried(512, 512, holes)
        recorder.table_read(5, content)
    assert out.events == [Remove(516, 2), Store(5 * 4096, 8, 1), Store(5 * 4096 + 8, 8, 2)]


def test_what_is_known_of_other_chunks_costs_nothing() -> None:
    """Counted in Python's steps: the same for a chunk, whether a hundred chunks or none have holes already."""

    def steps(recorder: Recorder) -> int:
        count = 0

        def step(*_: object) -> object:
            nonlocal count
            count += 1
            return step

        sys.settrace(step)
        try:
            recorder.frames_queried(512, 512, errors(1))
        finally:
            sys.settrace(None)
        return count

    few, many = Out().recorder(), Out().recorder(holed_chunks=1000)
    for chunk in range(2, 102):
        many.frames_queried(512 * chunk, 512, errors(*range(512)))
    assert steps(many) == steps(few)


def test_too_many_chunks_with_holes_end_it() -> None:
    out = Out()
    recorder = out.recorder(holed_chunks=2)
    for chunk in (1, 2, 1, 3, 4):
        recorder.frames_queried(512 * chunk, 512, errors(1))
    assert [error.end for error in out.failures] == [End.HOLES]
    assert out.events == [Remove(513, 1), Remove(1025, 1)]


words = st.lists(st.sampled_from([0, 1, 2, 1 << 63, (1 << 64) - 1]), min_size=512, max_size=512)


@given(gfn=st.integers(0, (1 << 34) - 1), before=st.none() | words, after=words)
def test_the_lines_of_a_page_make_it(gfn: int, before: list[int] | None, after: list[int]) -> None:
    def packed(content: list[int]) -> bytes:
        return struct.pack("<512Q", *content)

    found = [None] * 512 if before is None else [*before]
    end = gfn * 4096
    for event in page_events(gfn, None if before is None else packed(before), packed(after)):
        assert isinstance(event, Store | Fill)
        assert event.gpa >= end, "no word is written twice"
        first, count = event.gpa % 4096 // 8, event.count if isinstance(event, Fill) else 1
        assert all(each != event.value for each in found[first : first + count]), "what did not change is not written"
        found[first : first + count] = [event.value] * count
        end = event.gpa + 8 * count
    assert found == after


def test_events_of_the_guest_wait_while_it_is_told_what_was_before() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.keep_waiting()
    recorder.store(0, 8192, 8, 1)
    recorder.note(Mmio(0x100, 4, 1), 3)
    recorder.store(0, 8192, 8, 2)
    recorder.flush()
    recorder.note(Mmio(0x104, 4, 1))
    assert out.events == [Mmio(0x100, 4, 1)] * 3 + [Mmio(0x104, 4, 1)]
    assert recorder.catch_up()
    recorder.flush()
    assert out.events[4:] == [Store(8192, 8, 1), Store(8192, 8, 2)]
    assert recorder.catch_up()
    recorder.store(0, 8192, 8, 3)
    recorder.flush()
    assert out.events[6:] == [Store(8192, 8, 3)]


def test_many_events_that_wait_are_written_in_slices_and_in_order() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.keep_waiting()
    for value in range(2 * CATCH_UP):
        recorder.store(0, 8192, 8, value)
    assert not recorder.catch_up()
    recorder.store(0, 8192, 8, 2 * CATCH_UP)
    assert not recorder.catch_up()
    assert recorder.catch_up()
    recorder.flush()
    assert [event.value for event in out.events if isinstance(event, Store)] == [*range(2 * CATCH_UP + 1)]


def test_too_many_events_that_wait_end_it() -> None:
    out = Out()
    recorder = out.recorder()
    recorder.keep_waiting()
    for value in range(MOST_WAITING + 2):
        recorder.store(0, 8192, 8, value)
    assert [failure.end for failure in out.failures] == [End.QUEUE]
    assert recorder.catch_up()
    recorder.flush()
    assert out.events == []
