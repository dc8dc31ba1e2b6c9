"""The recorder by itself: what it writes, and in which order."""

from __future__ import annotations

import errno
import struct
from typing import Any

from xengt_dm._core import ffi
from xengt_dm.ppgtt.space import Mode
from xengt_dm.trace.events import Add, Dump, Event, Fill, GpuStore, Mmio, Remove, Store, Submit
from xengt_dm.trace.record import Recorder

NOTIFY = 0x78818
FRAMES = 1024
END = FRAMES * 4096


class Out:
    """Where the recorder writes; it may be broken."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.broken: OSError | None = None
        self.failures: list[OSError] = []
        self.registers: dict[int, int] = {}

    def write(self, event: Event) -> None:
        if self.broken:
            raise self.broken
        self.events.append(event)

    def flush(self) -> None: ...

    def recorder(self, pages: int = 64) -> Recorder:
        return Recorder(self, FRAMES, lambda at: self.registers.get(at, 0), NOTIFY, self.failures.append, pages)


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
    out.broken = OSError(errno.ENOSPC, "No space left on device")
    recorder.table_read(5, page(*struct.unpack("<3Q", bytes(range(24)))))
    recorder.store(0, 0, 8, 1)
    out.broken = None
    recorder.flush()
    assert out.events == [Store(5 * 4096, 8, 1)]
    assert [error.errno for error in out.failures] == [errno.ENOSPC]
