"""What a daemon leaves on record for a successor, kept in the test's memory."""

from __future__ import annotations

from collections.abc import Iterable

from xengt_dm.ioreq.ranges import Range


class IdRecord:
    """The id of a server."""

    certain = True

    def __init__(self, server: int | None = None) -> None:
        self.server = server

    def read(self) -> int | None:
        return self.server

    def write(self, server: int) -> None:
        self.server = server

    def clear(self) -> None:
        self.server = None


class RangeRecord:
    """The ranges of a server; None if there is no record."""

    def __init__(self, ranges: Iterable[Range] | None = None) -> None:
        self.ranges = None if ranges is None else set(ranges)

    def read(self) -> list[Range] | None:
        return None if self.ranges is None else sorted(self.ranges)

    def start(self, ranges: Iterable[Range]) -> None:
        self.ranges = set(ranges)

    def add(self, added: Range) -> bool:
        assert self.ranges is not None
        new = added not in self.ranges
        self.ranges.add(added)
        return new

    def remove(self, removed: Range) -> None:
        assert self.ranges is not None
        self.ranges.discard(removed)

    def clear(self) -> None:
        self.ranges = None
