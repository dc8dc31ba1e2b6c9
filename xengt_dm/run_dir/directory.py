"""The run directory of one instance: what outlives the process, and what others read.

``<base>/<domid>/server-id``   the ioreq server's id, decimal, from before the first claim until it is destroyed
``<base>/<domid>/stats``       the stats page (``xd_stats``), written by this process alone
``<base>/<domid>/control.sock``  the control socket
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from xengt_dm._core import ffi
from xengt_dm.errors import HostError
from xengt_dm.units import CData

DEFAULT_BASE = Path("/run/xengt-dm")


def instance_directory(base: Path, domid: int) -> Path:
    return base / str(domid)


def open_directory(base: Path, domid: int) -> Path:
    """Make the directory of an instance, for its user only. Raises HostError if that is not possible."""
    directory = instance_directory(base, domid)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"mkdir {directory}", domid, error.errno or 0) from error
    return directory


class ServerIdFile:
    """The id of the ioreq server on disk; written whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "server-id"

    def read(self) -> int | None:
        """The recorded id; None if there is none, or if the file holds anything but an id."""
        try:
            text = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return int(text) if text.isdecimal() and len(text) <= 5 and int(text) <= 0xFFFF else None

    def write(self, server: int) -> None:
        new = self._path.with_suffix(".new")
        with new.open("w", encoding="ascii") as file:
            file.write(f"{server}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def clear(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()


def read_counters(counters: CData) -> dict[str, int]:
    """All counters by name; ``traps`` is the sum of the two kinds."""
    names = [name for name, field in ffi.typeof("xd_counters").fields if field.type.kind == "primitive"]
    values = {name: int(getattr(counters, name)) for name in names}
    return {"traps": values["store_traps"] + values["mmio_traps"], **values}
