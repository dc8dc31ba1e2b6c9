"""The file in the run directory that records the id of the instance's ioreq server.

A successor reads the id and adopts the server, so the file exists from before the first claim until the server is
destroyed. It holds the id as a decimal number and a newline.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class ServerIdFile:
    """The file ``server-id`` in a run directory.

    :meth:`write` replaces the file in one step, so a reader finds the whole id or no file. Its file operations raise
    OSError.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "server-id"

    def read(self) -> int | None:
        """Returns the recorded id, or None if there is no readable file or it does not hold an id."""
        try:
            text = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return int(text) if text.isdecimal() and len(text) <= 5 and int(text) <= 0xFFFF else None

    def write(self, server: int) -> None:
        """Records ``server`` and waits until the file is on disk (fsync)."""
        new = self._path.with_suffix(".new")
        with new.open("w", encoding="ascii") as file:
            file.write(f"{server}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def clear(self) -> None:
        """Removes the file. Does nothing if there is none."""
        with suppress(FileNotFoundError):
            self._path.unlink()
