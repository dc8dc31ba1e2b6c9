"""The file ``state`` in the run directory: an instance's state, which outlives its daemon.

Facts: the directory and the file belong to the instance's user, and a daemon of that user reads what a guest wrote. A
guest that took over such a daemon may have left anything there: another kind of file, a link, any content. It may also
truncate the file while a later daemon has it mapped; then an access to the mapping raises SIGBUS.
What follows: the file must be opened and read as if an attacker had made it.
Decision: a daemon opens it as the instance's user, after it has given up root. :func:`open_state` follows no link and
never blocks. It checks the file that it opened, locks it, and maps it. :meth:`StateFile.read` first checks a copy of
the header: a file of a size that the domain cannot have is not looked at any further, because each look at a hole takes
memory. The rest is read by a C function that survives SIGBUS. A file with any fault is not used, and
:attr:`StateFile.problem` says why.
Cost: if the file is truncated while a daemon serves, the daemon dies of SIGBUS. Its successor finds a file of the wrong
size, and starts without it.

The lock is on the directory and on the file, for as long as the process lives. So one daemon serves a domain, whatever
happens to the file.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from xengt_dm._core import ffi, lib
from xengt_dm.errors import BusyError, DataError, HostError
from xengt_dm.run_dir.replace import kind_of, make, put, take_away
from xengt_dm.state.buffer import HEADER_SIZE, NO_SERVER, NO_UUID, Header, State, read_any_header
from xengt_dm.state.layout import MOST_FRAMES, MOST_SPACES, VERSION, Capacities, Layout
from xengt_dm.units import PAGE_SIZE, CData

FILE_NAME: Final = "state"
_NEW: Final = f"{FILE_NAME}.new"
#: What st_blocks counts, stat(2).
_BLOCK: Final = 512
_LARGEST: Final = Layout(Capacities(MOST_FRAMES, MOST_SPACES)).size
_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def uuid_bytes(uuid: str | None) -> bytes:
    """Returns the 16 bytes by which a state names a domain; NO_UUID if the uuid is not known."""
    return NO_UUID if uuid is None else bytes.fromhex(uuid.replace("-", ""))


def problem_of(about: os.stat_result, users: Collection[int]) -> str | None:
    """Returns what fstat shows to be wrong with a file; None if nothing is. ``users``: the uids that may own it."""
    mode = about.st_mode
    if not stat.S_ISREG(mode):
        return f"it is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}"
    if about.st_nlink != 1:
        return f"it has {about.st_nlink} links"
    if about.st_uid not in users:
        return f"it belongs to user {about.st_uid}"
    if stat.S_IMODE(mode) & 0o077:
        return f"others may use it: its mode is {stat.S_IMODE(mode):04o}"
    if not PAGE_SIZE <= about.st_size <= _LARGEST or about.st_size % PAGE_SIZE:
        return f"no state has {about.st_size} bytes"
    return None


class StateFile:
    """The file of one instance, locked; a :class:`~xengt_dm.state.store.StateStore`. :func:`open_state` makes it."""

    def __init__(self, directory: Path, descriptor: int, domid: int, uuid: str | None) -> None:
        self._path = directory / FILE_NAME
        self._directory = descriptor
        self._domid = domid
        self._uuid = uuid_bytes(uuid)
        #: The mapped file, be it one that was found or one that was made; and the descriptor that has its lock.
        self._memory: mmap.mmap | None = None
        self._locked: int | None = None
        #: Why the file that was found counts as none; None if there was none, or if nothing is wrong with it.
        self.problem: str | None = None

    @property
    def left_server(self) -> int | None:
        """See :class:`~xengt_dm.state.store.StateStore`."""
        with suppress(DataError):
            header = self._header()
            if header is not None and header.server != NO_SERVER:
                return header.server
        return None

    @property
    def certain(self) -> bool:
        """See :class:`~xengt_dm.state.store.StateStore`."""
        with suppress(DataError):
            header = self._header()
            return header is not None and header.uuid == self._uuid != NO_UUID
        return False

    def read(self, frames: int) -> State | None:
        """See :class:`~xengt_dm.state.store.StateStore`. To be called once."""
        try:
            header = self._header()
            if header is None:
                return None
            if header.frames != frames:
                raise DataError(f"a state for {header.frames} frames; the domain has {frames}")
            return self._checked(header)
        except DataError as error:
            self.refuse(str(error))
            return None

    def _header(self) -> Header | None:
        """A copy of the header of the file that was found, if it is about this domain; None if none was found.

        Raises DataError. Nothing else of the file is looked at, since the sizes of all else are in the header, and a
        look at a hole in the file takes memory.
        """
        if self._memory is None or self._locked is None:
            return None
        try:
            page = os.pread(self._locked, PAGE_SIZE, 0)
        except OSError as error:
            raise DataError(f"it cannot be read: {error.strerror}") from error
        if len(page) < PAGE_SIZE:
            raise DataError("it was cut while it was read")
        header = read_any_header(page)
        if header.size != len(self._memory):
            raise DataError(f"a state of {header.size} bytes in a file of {len(self._memory)}")
        if header.domid != self._domid:
            raise DataError(f"a state of domain {header.domid}")
        if NO_UUID != header.uuid != self._uuid != NO_UUID:
            raise DataError("a state of an earlier domain with this id")
        return header

    def _checked(self, header: Header) -> State:
        """The state in the mapping, which may be of any content, and of less than its size; ``header`` is right."""
        memory, locked = self._memory, self._locked
        assert memory is not None
        assert locked is not None
        layout = Layout(header.capacities)
        if header.version != VERSION:
            content = _copied(memory, header.size)
            try:
                return self._make(layout, header.domid, header.uuid, header.server, content)
            except OSError as error:
                raise DataError(f"a state of version {header.version}, not converted: {error.strerror}") from error
        _touch(memory, layout["device"].offset)  # all that successors look at before the device serves
        try:
            # A hole would be SIGBUS on a full file system. To reserve what is there already takes milliseconds.
            if os.fstat(locked).st_blocks * _BLOCK < sum(region.size for region in layout.reserved()):
                _reserve(locked, layout)
        except OSError as error:
            raise DataError(f"its memory cannot be reserved: {error.strerror}") from error
        return State(memoryview(memory))

    def refuse(self, problem: str) -> None:
        """See :class:`~xengt_dm.state.store.StateStore`."""
        self.problem = problem
        self._forget()

    def create(self, capacities: Capacities) -> State:
        """Makes a file, which replaces whatever is there; see :class:`~xengt_dm.state.store.StateStore`."""
        try:
            return self._make(Layout(capacities), self._domid, self._uuid)
        except OSError as error:
            raise HostError(f"make {self._path}", self._domid, error.errno or 0) from error

    def _make(
        self,
        layout: Layout,
        domid: int,
        uuid: bytes,
        server: int = NO_SERVER,
        content: bytes | bytearray = bytes(HEADER_SIZE),
    ) -> State:
        """Make a file, of ``content`` and then zeros, but for its header; it replaces whatever is there.

        Until it is complete, what was there stays. Raises OSError.
        """
        self._forget()
        try:
            descriptor = make(_NEW, 0o600, self._directory)
            self._locked = descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, layout.size)
            _reserve(descriptor, layout)
            self._memory = mmap.mmap(descriptor, layout.size)
            memory = memoryview(self._memory)
            memory[HEADER_SIZE : len(content)] = content[HEADER_SIZE:]
            state = State.create(memory, layout.capacities, domid=domid, uuid=uuid, server=server)
            put(_NEW, FILE_NAME, self._directory)
        except OSError:
            with suppress(OSError):
                take_away(_NEW, self._directory)
            raise
        return state

    def remove(self) -> None:
        """Removes the file, after an orderly end. Does nothing if there is none. Raises HostError."""
        try:
            take_away(FILE_NAME, self._directory)  # the watcher and ``reap`` remove it as well, when a domain is gone
        except OSError as error:
            raise HostError(f"remove {self._path}", self._domid, error.errno or 0) from error

    def close(self) -> None:
        """Gives the locks back. The views of the state stay usable. Safe to call twice."""
        self._forget()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self, users: Collection[int]) -> None:
        """See :func:`open_state`."""
        kind = kind_of(FILE_NAME, self._directory)
        if kind is not None and kind != stat.S_IFREG:  # so that no other is opened, unless it has just taken its place
            self.problem = f"it is {_KINDS.get(kind, 'no regular file')}"
            return
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            self._locked = os.open(FILE_NAME, flags, dir_fd=self._directory)
        except FileNotFoundError:
            return
        except OSError as error:
            self.problem = f"it cannot be opened: {error.strerror}"
            return
        about = os.fstat(self._locked)
        problem = problem_of(about, users)
        if problem is None:
            _lock(self._locked, self._path, self._domid)
            try:
                self._memory = mmap.mmap(self._locked, about.st_size)
            except (OSError, ValueError) as error:  # ValueError: it was cut after fstat
                problem = f"it cannot be mapped: {error}"
        if problem is not None:
            self.refuse(problem)

    def _forget(self) -> None:
        """Releases the lock. The file is unmapped when its last view is freed."""
        self._memory = None
        if self._locked is not None:
            fcntl.flock(self._locked, fcntl.LOCK_UN)  # the mapping has a copy of the descriptor
            os.close(self._locked)
            self._locked = None


def open_state(directory: Path, domid: int, users: Collection[int], uuid: str | None = None) -> StateFile:
    """Opens, locks and maps the file in a run directory, without reading it. Returns the file.

    ``users``: who may own the file. ``uuid``: the domain's, None if it is not known. Raises BusyError if another
    process has the lock, and HostError if ``directory`` cannot be opened.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"open {directory}", domid, error.errno or 0) from error
    file = StateFile(directory, descriptor, domid, uuid)
    try:
        _lock(descriptor, directory, domid)
        file.open(users)
    except BaseException:
        file.close()
        raise
    return file


def _lock(descriptor: int, path: Path, domid: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(
            f"a daemon has locked {path}, so it serves domain {domid} or is about to; stop it first: "
            f"xengt-dm stop --domid {domid}"
        ) from None


def _reserve(descriptor: int, layout: Layout) -> None:
    """Reserves memory for all regions that are ever touched. Raises OSError."""
    for region in layout.reserved():
        os.posix_fallocate(descriptor, region.offset, region.size)


def _copied(memory: mmap.mmap, size: int) -> bytearray:
    """The first ``size`` bytes of a mapped file. Raises DataError if the file has fewer by now."""
    copy = bytearray(size)
    _read(ffi.from_buffer("char[]", copy), memory, range(0, size, size))
    return copy


def _touch(memory: mmap.mmap, size: int) -> None:
    """Looks at each of the first pages of a mapped file. Raises DataError if the file has fewer by now."""
    _read(ffi.new("char[]", PAGE_SIZE), memory, range(0, size, PAGE_SIZE))


def _read(to: CData, memory: mmap.mmap, offsets: range) -> None:
    """Copies as many bytes as there are between two of the offsets, from each of them, to ``to``."""
    error = lib.xd_guard_install()
    if error:
        raise OSError(-error, os.strerror(-error))
    source = ffi.from_buffer("char[]", memory)
    try:
        for offset in offsets:
            if lib.xd_read(to, source + offset, offsets.step):
                raise DataError("it was cut while it was read")
    finally:
        ffi.release(source)
