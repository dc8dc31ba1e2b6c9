"""The stats page (``xd_stats``): a daemon writes it, everybody else maps it read-only and takes a copy.

The reader trusts nothing: the file may be cut short under its feet, be of another program or version, or be what a
daemon left that is no more. The directory it lies in belongs to the daemon's user, which may be less than the reader's:
so no link is followed, and nothing is opened that could block. Every word is read in one access, so no count is torn;
two counts may be of two moments, which no reader of rates can tell from a scrape a moment later.
"""

from __future__ import annotations

import mmap
import os
import stat
import time
from pathlib import Path

from xengt_dm import __version__
from xengt_dm._core import ffi, lib
from xengt_dm.stats.table import LeftOut
from xengt_dm.units import CData

FILE_NAME = "stats"
_PROC = Path("/proc")


class PageError(Exception):
    """A page that is of no use, and why."""

    def __init__(self, reason: LeftOut) -> None:
        super().__init__(reason.value)
        self.reason = reason


def process_start(pid: int, proc: Path = _PROC) -> int | None:
    """When a process started, in clock ticks since the host did (proc(5), starttime); None if there is none."""
    try:
        line = (proc / str(pid) / "stat").read_bytes()
        return int(line.rpartition(b")")[2].split()[19])  # field 22; the second is a name in parentheses
    except (OSError, IndexError, ValueError):
        return None


class StatsPage:
    """The stats page as this process writes it; ``pointer`` is ``xd_stats *``.

    Without a ``directory`` it is private memory, for a demonstration or a test. Else it takes the place of a
    predecessor's, if there is one, and counts it. Raises OSError.
    """

    def __init__(self, directory: Path | None, domid: int) -> None:
        predecessors = 0
        if directory is None:
            self._memory = mmap.mmap(-1, lib.XD_STATS_SIZE)
        else:
            predecessors = _predecessors(directory, domid)
            new = directory / f"{FILE_NAME}.new"
            new.unlink(missing_ok=True)
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(fd, 0o644)  # counts are no secret, and an exporter needs no privilege to read them
                os.truncate(fd, lib.XD_STATS_SIZE)
                self._memory = mmap.mmap(fd, lib.XD_STATS_SIZE)
            finally:
                os.close(fd)
        self.pointer: CData = ffi.cast("xd_stats *", ffi.from_buffer(self._memory))
        page = self.pointer
        page.domid = domid
        page.pid = os.getpid()
        page.process_start = process_start(os.getpid()) or 0
        page.start_time = int(time.time())
        page.predecessors = predecessors
        page.program = __version__.encode()[: lib.XD_STATS_PROGRAM - 1]
        page.heartbeat_ns = lib.xd_now()
        lib.xd_stats_publish(page)
        if directory is not None:
            new.replace(directory / FILE_NAME)

    @property
    def counters(self) -> CData:
        """``xd_counters *``."""
        return ffi.addressof(self.pointer, "counters")

    def describe(self, *, vcpus: int, generation: int, max_tables: int, relaxed: bool, quiesced: bool) -> None:
        """What the daemon is just now; said again and again, which shows that its event loop is alive."""
        page = self.pointer
        page.vcpus = vcpus
        page.generation = generation
        page.max_tables = max_tables
        page.relaxed = relaxed
        page.quiesced = quiesced
        page.heartbeat_ns = lib.xd_now()

    def end(self) -> None:
        """The farewell: whoever looks at the page from here on knows that its daemon ended in order."""
        self.pointer.ended = 1


def _predecessors(directory: Path, domid: int) -> int:
    try:
        page = copy_page(directory / FILE_NAME)
    except PageError:
        return 0
    return int(page.predecessors) + 1 if page.domid == domid else 0


def copy_page(path: Path) -> CData:
    """A copy of the page in a file, as ``xd_stats *``, whoever wrote it and whether that is still there or not.

    Raises PageError.
    """
    lib.xd_guard_install()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise PageError(LeftOut.MISSING) from None
    except OSError:
        raise PageError(LeftOut.UNREADABLE) from None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise PageError(LeftOut.FOREIGN)
        if about.st_size != lib.XD_STATS_SIZE:
            raise PageError(LeftOut.TRUNCATED)
        return _copy(fd)
    except OSError:
        raise PageError(LeftOut.UNREADABLE) from None
    finally:
        os.close(fd)


def _copy(fd: int) -> CData:
    words = ffi.new("uint64_t[]", lib.XD_STATS_SIZE // 8)
    try:
        memory = mmap.mmap(fd, lib.XD_STATS_SIZE, prot=mmap.PROT_READ)
    except ValueError:  # the file was cut short after we had looked at its size
        raise PageError(LeftOut.TRUNCATED) from None
    with memory:
        source = ffi.from_buffer("uint64_t[]", memory)
        error = lib.xd_read_words(words, source, len(words))
        ffi.release(source)
    if error:
        raise PageError(LeftOut.TRUNCATED)
    if not lib.xd_stats_valid(ffi.cast("xd_stats *", words), lib.XD_STATS_SIZE):
        raise PageError(LeftOut.FOREIGN)
    page = ffi.new("xd_stats *")
    ffi.memmove(page, words, ffi.sizeof("xd_stats"))
    return page


def read_page(directory: Path, domid: int, proc: Path = _PROC) -> CData:
    """A copy of the page of a daemon that serves ``domid`` now, as ``xd_stats *``. Raises PageError."""
    page = copy_page(directory / FILE_NAME)
    if page.domid != domid:
        raise PageError(LeftOut.FOREIGN)
    if page.ended:
        raise PageError(LeftOut.ENDED)
    if process_start(page.pid, proc) != page.process_start:
        raise PageError(LeftOut.STALE)
    return page
