"""Makes files in a run directory whose user may have put anything at their names.

Facts: the directory belongs to the instance's user, and a guest that took over a daemon may have left a FIFO, a device,
a link, a socket or a full directory there. To open a FIFO blocks; to open a link or a device stores to something else;
rename(2) puts no file in the place of a directory; and a directory may have more in it than can be deleted in time.
What we do: whatever is at the name is taken away before a file is made there, and nothing that was there is opened. A
directory that is not empty is renamed, with its contents, to a name that is free: that takes no time. Whoever removes
the run directory (:func:`xengt_dm.run_dir.directory.remove_directory`) removes it as well.

``directory``: a descriptor of the directory that a relative path is in. Functions raise OSError.
"""

from __future__ import annotations

import itertools
import os
import stat
from contextlib import suppress
from pathlib import Path


def kind_of(path: Path | str, directory: int | None = None) -> int | None:
    """Returns the type of a directory entry, as in st_mode, without following a link; None if there is none."""
    try:
        return stat.S_IFMT(os.stat(path, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def take_away(path: Path | str, directory: int | None = None) -> None:
    """Has nothing be at ``path``. Does nothing if there is nothing."""
    with suppress(FileNotFoundError):
        if kind_of(path, directory) != stat.S_IFDIR:
            os.unlink(path, dir_fd=directory)
            return
        try:
            os.rmdir(path, dir_fd=directory)
        except OSError:  # ENOTEMPTY, for the most part
            _rename_away(path, directory)


def make(path: Path | str, mode: int, directory: int | None = None) -> int:
    """Makes an empty file in the place of whatever is at ``path``. Returns a descriptor, for reading and writing."""
    take_away(path, directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(path, flags, mode, dir_fd=directory)


def put(new: Path | str, path: Path | str, directory: int | None = None) -> None:
    """Renames ``new`` to ``path``, in one step unless there is a directory, which is taken away first."""
    if kind_of(path, directory) == stat.S_IFDIR:
        take_away(path, directory)
    os.replace(new, path, src_dir_fd=directory, dst_dir_fd=directory)


def _rename_away(path: Path | str, directory: int | None) -> None:
    beside = Path(path).parent
    for number in itertools.count():
        free = beside / f".{number}.in-the-way"
        if kind_of(free, directory) is None:
            os.rename(path, free, src_dir_fd=directory, dst_dir_fd=directory)
            return
