"""Memory that vanishes: an error for who asked, in whatever thread, and death for whoever touches it unasked."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.tables import FRAME
from xengt_dm._core import ffi, lib
from xengt_dm.units import CData


@pytest.fixture(autouse=True)
def guard() -> None:
    assert lib.xd_guard_install() == 0


class Vanishing:
    """Four pages of which the last two are gone: the file that backs them was cut."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(4 * FRAME)
            self.memory = mmap.mmap(file.fileno(), 4 * FRAME)
            self.memory[:] = bytes(range(256)) * (4 * FRAME // 256)
            os.ftruncate(file.fileno(), 2 * FRAME)
        self.at: CData = ffi.from_buffer("char[]", self.memory, require_writable=True)


@pytest.fixture
def vanishing() -> Vanishing:
    return Vanishing()


GONE = 2 * FRAME


def test_every_way_to_touch_a_page_that_is_gone(vanishing: Vanishing) -> None:
    at = vanishing.at
    value = ffi.new("uint64_t *", 0x55)
    page = ffi.new("char[4096]")
    for offset in (GONE, GONE + 1, GONE + FRAME - 8, GONE + FRAME, 4 * FRAME - 8):
        for size in range(1, 9):
            assert lib.xd_store(at + offset, 0, size) == -errno.EFAULT
            assert lib.xd_load(at + offset, size, value) == -errno.EFAULT
        assert lib.xd_read(page, at + offset, 8) == -errno.EFAULT
        assert lib.xd_write(at + offset, page, 8) == -errno.EFAULT
    assert lib.xd_read(page, at + GONE, FRAME) == -errno.EFAULT
    words = ffi.new("uint64_t[512]")
    assert lib.xd_read_words(words, ffi.cast("uint64_t *", at + GONE), 512) == -errno.EFAULT
    assert lib.xd_read_words(words, ffi.cast("uint64_t *", at + GONE - FRAME), 512) == 0
    assert bytes(ffi.buffer(words)) == vanishing.memory[:FRAME]
    assert lib.xd_write(at + GONE, page, FRAME) == -errno.EFAULT


def test_over_the_edge(vanishing: Vanishing) -> None:
    """What begins on a page that is there and ends on one that is not."""
    page = ffi.new("char[4096]")
    value = ffi.new("uint64_t *")
    assert lib.xd_read(page, vanishing.at + GONE - 100, 200) == -errno.EFAULT
    assert lib.xd_store(vanishing.at + GONE - 4, 0, 8) == -errno.EFAULT
    assert lib.xd_load(vanishing.at + GONE - 4, 8, value) == -errno.EFAULT
    assert lib.xd_load(vanishing.at + GONE - 8, 8, value) == 0


@examples(60)
@given(offset=st.integers(0, GONE - 9), size=st.integers(0, 8), value=st.integers(0, (1 << 64) - 1))
def test_what_is_there_is_read_and_written(offset: int, size: int, value: int) -> None:
    vanishing = Vanishing()
    before = bytes(vanishing.memory[:GONE])
    data = value.to_bytes(8, "little")[:size]
    assert lib.xd_store(vanishing.at + offset, value, size) == 0
    assert vanishing.memory[:GONE] == before[:offset] + data + before[offset + size :]
    loaded = ffi.new("uint64_t *", 0xDEAD)
    assert lib.xd_load(vanishing.at + offset, size, loaded) == 0
    assert loaded[0] == int.from_bytes(data, "little")
    copy = ffi.new("char[]", size + 1)
    assert lib.xd_read(copy, vanishing.at + offset, size) == 0
    assert bytes(ffi.buffer(copy)) == data + b"\0"
    assert lib.xd_write(vanishing.at + offset, ffi.from_buffer(bytes(size)), size) == 0
    assert vanishing.memory[offset : offset + size] == bytes(size)


def test_more_than_eight_bytes_are_no_one_access(vanishing: Vanishing) -> None:
    assert lib.xd_store(vanishing.at, 0, 9) == -errno.EINVAL
    assert lib.xd_load(vanishing.at, 9, ffi.new("uint64_t *")) == -errno.EINVAL


def test_installing_twice_is_once() -> None:
    assert lib.xd_guard_install() == 0
    assert lib.xd_guard_install() == 0


def test_two_threads_at_once() -> None:
    """The escape is the thread's own: faults on both sides at the same time, with good accesses in between."""
    rounds = 5000
    barrier = threading.Barrier(2)
    wrong: list[object] = []

    def hammer() -> None:
        vanishing = Vanishing()
        value = ffi.new("uint64_t *")
        page = ffi.new("char[4096]")
        barrier.wait(60)
        for i in range(rounds):
            results = (
                lib.xd_load(vanishing.at + GONE + i % 512 * 8, 8, value),
                lib.xd_store(vanishing.at + i % 512 * 8, i, 8),
                lib.xd_read(page, vanishing.at + GONE - 8, 64),
                lib.xd_load(vanishing.at + i % 512 * 8, 8, value),
            )
            if results != (-errno.EFAULT, 0, -errno.EFAULT, 0) or value[0] != i:
                wrong.append((i, results, value[0]))

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


SETUP = """
import faulthandler, mmap, os, tempfile
from xengt_dm._core import ffi, lib
file = tempfile.TemporaryFile()
file.truncate(8192)
memory = mmap.mmap(file.fileno(), 8192)
at = ffi.from_buffer("char[]", memory)
page = ffi.new("char[4096]")
assert lib.xd_guard_install() == 0
os.ftruncate(file.fileno(), 4096)
assert lib.xd_read(page, at + 4096, 4096) < 0
"""


def death_of(what: str, before: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import faulthandler\n{before}\n{SETUP}\n{what}\nprint('alive')\n"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "bug",
    [
        "ffi.memmove(page, at + 4096, 1)",  # no guard at all
        "lib.xd_read(at + 4096, page, 64)",  # on the side of the copy that is not announced
        "lib.xd_write(page, at + 4096, 64)",
        "os.kill(os.getpid(), 7)",  # somebody else sends the signal
    ],
)
def test_a_bug_is_not_forgiven(bug: str) -> None:
    done = death_of(bug)
    assert done.returncode == -signal.SIGBUS
    assert "alive" not in done.stdout


def test_memory_that_was_never_there_is_a_bug() -> None:
    """SIGSEGV, which AddressSanitizer turns into an abort."""
    done = death_of("lib.xd_read(page, ffi.cast('char *', 4096), 8)")
    assert -done.returncode in (signal.SIGSEGV, signal.SIGABRT)


def test_who_handled_the_signal_before_us_still_does() -> None:
    done = death_of("ffi.memmove(page, at + 4096, 1)", before="faulthandler.enable()")
    assert done.returncode == -signal.SIGBUS
    assert "Bus error" in done.stderr


def test_who_ignored_the_signal_before_us_dies_too() -> None:
    """A fault that is ignored would come back for ever."""
    done = death_of("ffi.memmove(page, at + 4096, 1)", before="import signal; signal.signal(7, signal.SIG_IGN)")
    assert done.returncode == -signal.SIGBUS
