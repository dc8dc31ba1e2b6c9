"""The run directory of one instance: records for a successor, and what other programs read.

The directory is ``<base>/<domid>``. These files can be in it:

``server-id``     the id of the ioreq server, see :mod:`xengt_dm.run_dir.server_id`
``state``         all else that a successor must know, see :mod:`xengt_dm.state.file`
``stats``         the stats page, see :mod:`xengt_dm.stats.page`
``control.sock``  the control socket, see :mod:`xengt_dm.control.server`
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from xengt_dm.errors import HostError
from xengt_dm.units import parse_domid

DEFAULT_BASE = Path("/run/xengt-dm")
#: How long removing a directory may take. A million files take some 10 s; a process that goes on to make files is left.
REMOVE_SECONDS: Final = 120.0
_A_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def instance_directory(base: Path, domid: int) -> Path:
    """Returns the path of an instance's run directory. The directory need not exist."""
    return base / str(domid)


def open_directory(base: Path, domid: int) -> Path:
    """Creates the run directory of an instance, with mode 0700, if it does not exist. Returns its path.

    Raises HostError if the directory cannot be created.
    """
    directory = instance_directory(base, domid)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"mkdir {directory}", domid, error.errno or 0) from error
    return directory


def instance_domids(base: Path) -> list[int]:
    """Returns the domains that have a run directory, in order. There is none if ``base`` does not exist.

    Raises OSError if ``base`` cannot be listed.
    """
    try:
        names = [entry.name for entry in base.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(domid for name in names if (domid := parse_domid(name)) is not None)


def remove_directory(base: Path, domid: int) -> list[str]:
    """Removes the run directory of an instance. Returns the names of what was in it, in order.

    The instance's user may have put anything there. No link is followed. A daemon that ends may remove its own files
    meanwhile. Raises HostError if something remains.
    """
    directory = instance_directory(base, domid)
    try:
        top = os.open(directory, _A_DIRECTORY)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"remove {directory}", domid, error.errno or 0) from error
    try:
        names = sorted(os.listdir(top))
        _empty(top)
        with suppress(FileNotFoundError):
            directory.rmdir()
    except OSError as error:
        raise HostError(f"remove {directory}", domid, error.errno or 0) from error
    finally:
        os.close(top)
    return names


def _empty(top: int) -> None:
    """Removes all that is in an open directory. Raises OSError, and TimeoutError if there is always more.

    Facts: directories may be nested as deep as there is memory. To follow them down takes a descriptor or a call for
    each level, or a path of any length; to come up again by ".." may end elsewhere if somebody moves them meanwhile.
    What is done: a directory in a directory is first moved up into the first one, under a name that is free.
    Cost: one rename for each directory.
    """
    deadline = time.monotonic() + REMOVE_SECONDS
    moved = itertools.count()
    while names := os.listdir(top):
        for name in names:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if _unlinked(name, top):
                continue
            inner = os.open(name, _A_DIRECTORY, dir_fd=top)
            try:
                for each in os.listdir(inner):
                    if not _unlinked(each, inner):
                        _move_up(each, inner, top, moved)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _unlinked(name: str, directory: int) -> bool:
    """Removes what is no directory, if it is still there; returns False for a directory."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


def _move_up(name: str, inner: int, top: int, moved: Iterator[int]) -> None:
    while True:
        new = f".{next(moved)}.removed"
        try:
            os.stat(new, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, new, src_dir_fd=inner, dst_dir_fd=top)
            return
