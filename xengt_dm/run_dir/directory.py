"""The run directory of one instance: records for a successor, and what other programs read.

The directory is ``<base>/<domid>``. These files can be in it:

``server-id``     the id of the ioreq server, see :mod:`xengt_dm.run_dir.server_id`
``state``         all else that a successor must know, see :mod:`xengt_dm.state.file`
``stats``         the stats page, see :mod:`xengt_dm.stats.page`
``control.sock``  the control socket, see :mod:`xengt_dm.control.server`
"""

from __future__ import annotations

from pathlib import Path

from xengt_dm.errors import HostError
from xengt_dm.units import parse_domid

DEFAULT_BASE = Path("/run/xengt-dm")


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

    It follows no links, since the instance's user may have put anything there. Raises HostError if something remains.
    """
    import shutil  # a daemon seldom needs it

    directory = instance_directory(base, domid)
    try:
        names = sorted(entry.name for entry in directory.iterdir())
        shutil.rmtree(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"remove {directory}", domid, error.errno or 0) from error
    return names
