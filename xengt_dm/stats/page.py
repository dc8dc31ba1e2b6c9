"""The stats page (``xd_stats``, cffi_build/core/base/stats.h): one writer, the daemon, and any number of readers.

A reader maps the file read-only and takes a copy. It trusts nothing in it:

* The file may shrink while it is read, so the copy is made by a guarded C function.
* The file may belong to another program or version, or its daemon may have died, so the header is checked.
* The run directory belongs to the daemon's user, who may have fewer privileges than the reader. So the reader follows
  no symbolic link and opens nothing that could block.

Each counter is one aligned 64-bit word, read in one access, so no single value is torn. Two counters of one copy may
be a few microseconds apart.
"""

from __future__ import annotations

import enum
import mmap
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from xengt_dm import __version__
from xengt_dm._core import ffi, lib
from xengt_dm.errors import HostError
from xengt_dm.run_dir.replace import make, put, take_away
from xengt_dm.units import CData

FILE_NAME = "stats"
_PROC = Path("/proc")


class PageProblem(enum.Enum):
    """Why a stats page cannot be used. The value is the ``reason`` label of ``xengt_exporter_pages_left_out``."""

    ENDED = "ended"
    FOREIGN = "foreign"
    MISSING = "missing"
    STALE = "stale"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"


#: What each problem means, for docs/metrics.md.
PROBLEM_TEXT: Final = {
    PageProblem.ENDED: "the daemon stopped in order; this is no fault",
    PageProblem.FOREIGN: "the file belongs to another program, another version or another domain",
    PageProblem.MISSING: "the run directory has no stats page",
    PageProblem.STALE: "the daemon died: its process does not exist, or its pid now belongs to another process",
    PageProblem.TRUNCATED: "the file is shorter or longer than one page",
    PageProblem.UNREADABLE: "permission denied, or an error of the file system",
}


class PageError(Exception):
    """A stats page cannot be used. ``reason`` says why."""

    def __init__(self, reason: PageProblem) -> None:
        super().__init__(reason.value)
        self.reason = reason


def process_start(pid: int, proc: Path = _PROC) -> int | None:
    """Returns when a process started, in clock ticks since the host booted, or None if there is no such process.

    Source: ``starttime`` in proc(5), /proc/PID/stat.
    """
    try:
        line = (proc / str(pid) / "stat").read_bytes()
        return int(line.rpartition(b")")[2].split()[19])  # field 22; the second is a name in parentheses
    except (OSError, IndexError, ValueError):
        return None


class StatsPage:
    """The stats page that this process writes. ``pointer`` is ``xd_stats *``.

    With ``directory`` the page is a file there, which replaces the page of a predecessor and counts that predecessor.
    Without it the page is private memory, for a demonstration or a test. The constructor raises HostError.
    """

    def __init__(self, directory: Path | None, domid: int) -> None:
        predecessors = 0
        if directory is None:
            self._memory = mmap.mmap(-1, lib.XD_STATS_SIZE)
        else:
            predecessors = _predecessors(directory, domid)
            new = directory / f"{FILE_NAME}.new"
            self._memory = _new_file(new, domid)
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
            _put(new, directory / FILE_NAME, domid)

    @property
    def counters(self) -> CData:
        """The counters, as ``xd_counters *``."""
        return ffi.addressof(self.pointer, "counters")

    def describe(self, *, vcpus: int, generation: int, max_tables: int, relaxed: bool, quiesced: bool) -> None:
        """Writes the daemon's present state and the heartbeat.

        The event loop must call this regularly: the age of the heartbeat shows whether the loop is alive.
        """
        page = self.pointer
        page.vcpus = vcpus
        page.generation = generation
        page.max_tables = max_tables
        page.relaxed = relaxed
        page.quiesced = quiesced
        page.heartbeat_ns = lib.xd_now()

    def served(self) -> dict[str, int]:
        """Returns how many bursts there were, and how many requests C and Python served in them."""
        page = self.pointer
        return {
            "bursts": int(page.bursts),
            "in_c": int(page.burst_requests),
            "in_python": int(page.handed_requests),
        }

    def end(self) -> None:
        """Marks the page: from now on readers know that the daemon stopped in order."""
        self.pointer.ended = 1


def _new_file(path: Path, domid: int) -> mmap.mmap:
    """Returns the memory of a new page file. Raises HostError.

    The space is reserved: a page of a sparse file is made when it is first touched, and on a full file system that is
    SIGBUS.
    """
    try:
        fd = make(path, 0o644)
        try:
            os.fchmod(fd, 0o644)  # counters are not secret, and an exporter needs no privilege to read them
            os.posix_fallocate(fd, 0, lib.XD_STATS_SIZE)
            return mmap.mmap(fd, lib.XD_STATS_SIZE)
        finally:
            os.close(fd)
    except OSError as error:
        with suppress(OSError):
            take_away(path)
        raise HostError(f"make {path}", domid, error.errno or 0) from error


def _put(new: Path, path: Path, domid: int) -> None:
    try:
        put(new, path)
    except OSError as error:
        raise HostError(f"replace {path}", domid, error.errno or 0) from error


def _predecessors(directory: Path, domid: int) -> int:
    try:
        page = copy_page(directory / FILE_NAME)
    except PageError:
        return 0
    return int(page.predecessors) + 1 if page.domid == domid else 0


def copy_page(path: Path) -> CData:
    """Returns a copy of the page in a file, as ``xd_stats *``. The daemon that wrote it need not be alive.

    Raises PageError.
    """
    lib.xd_guard_install()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise PageError(PageProblem.MISSING) from None
    except OSError:
        raise PageError(PageProblem.UNREADABLE) from None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise PageError(PageProblem.FOREIGN)
        if about.st_size != lib.XD_STATS_SIZE:
            raise PageError(PageProblem.TRUNCATED)
        return _copy(fd)
    except OSError:
        raise PageError(PageProblem.UNREADABLE) from None
    finally:
        os.close(fd)


def _copy(fd: int) -> CData:
    words = ffi.new("uint64_t[]", lib.XD_STATS_SIZE // 8)
    try:
        memory = mmap.mmap(fd, lib.XD_STATS_SIZE, prot=mmap.PROT_READ)
    except ValueError:  # the file shrank after fstat
        raise PageError(PageProblem.TRUNCATED) from None
    with memory:
        source = ffi.from_buffer("uint64_t[]", memory)
        error = lib.xd_read_words(words, source, len(words))
        ffi.release(source)
    if error:
        raise PageError(PageProblem.TRUNCATED)
    if not lib.xd_stats_valid(ffi.cast("xd_stats *", words), lib.XD_STATS_SIZE):
        raise PageError(PageProblem.FOREIGN)
    page = ffi.new("xd_stats *")
    ffi.memmove(page, words, ffi.sizeof("xd_stats"))
    return page


def read_page(directory: Path, domid: int, proc: Path = _PROC) -> CData:
    """Returns a copy of the page of the daemon that serves ``domid`` now, as ``xd_stats *``.

    ``proc`` is the mounted procfs, in which the daemon's process is looked up. Raises PageError.
    """
    page = copy_page(directory / FILE_NAME)
    if page.domid != domid:
        raise PageError(PageProblem.FOREIGN)
    if page.ended:
        raise PageError(PageProblem.ENDED)
    if process_start(page.pid, proc) != page.process_start:
        raise PageError(PageProblem.STALE)
    return page
