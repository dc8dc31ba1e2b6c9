"""The file in the run directory in which daemons without a state recorded the address ranges of the ioreq server.

Today the ranges are in the state (:class:`xengt_dm.ioreq.ranges.RangesRegion`). A daemon that follows one of those
reads the file once.

The file ``ranges`` begins with a header of two words: MAGIC, and the number of entries that there is room for. Each
entry has two words: ``kind << 60 | first``, and ``last + 1``, or 0 if the entry is free. A file with another header or
size counts as no record.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from xengt_dm.errors import HostError
from xengt_dm.ioreq.ranges import Range, RangesRegion
from xengt_dm.run_dir.replace import take_away

FILE_NAME: Final = "ranges"
#: "XDRANGE1", read as a little-endian word.
MAGIC: Final = int.from_bytes(b"XDRANGE1", "little")
#: How many ranges fit.
ROOM: Final = 4094
_HEADER_WORDS: Final = 2
_WORDS: Final = _HEADER_WORDS + 2 * ROOM


class RangesFile:
    """The file ``ranges`` in a run directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def read(self) -> list[Range] | None:
        """Returns the recorded ranges, in the order of the file; None if there is no readable record."""
        try:
            # The domain's daemon owns the directory and may have been taken over, so this may be any kind of file.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                data = file.read(8 * _WORDS + 1)
        except OSError:
            return None
        if len(data) != 8 * _WORDS:
            return None
        words = memoryview(data).cast("Q")
        if tuple(words[:_HEADER_WORDS]) != (MAGIC, ROOM):
            return None
        return RangesRegion(words[_HEADER_WORDS:]).read()

    def clear(self) -> None:
        """Removes the file, or whatever is there. Does nothing if there is none. Raises HostError."""
        try:
            take_away(self._path)
        except OSError as error:
            raise HostError(f"remove {self._path}", None, error.errno or 0) from error
