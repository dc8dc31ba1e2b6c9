"""The live spaces for C, which submits some of them by itself (``core/ppgtt/submit.h``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xengt_dm._core import ffi, lib
from xengt_dm.units import CData

if TYPE_CHECKING:
    from xengt_dm.ppgtt.space import Space

_ROWS: Final[int] = lib.XD_SUBMIT_SPACES
_ALL: Final[int] = lib.XD_SUBMIT_ALL


class SpaceRows:
    """The rows of an ``xd_live_spaces``, ``pointer``, one for each live space. C has the first of them only."""

    def __init__(self) -> None:
        self.pointer: CData = ffi.new("xd_live_spaces *")
        self._spaces: list[Space] = []
        self._numbers: dict[Space, int] = {}

    def add(self, space: Space) -> None:
        """Adds a space, which is live from here on."""
        self._spaces.append(space)
        self._set(len(self._spaces) - 1)
        self.pointer.count = len(self._spaces)

    def remove(self, space: Space) -> None:
        """Removes a space. C has submitted none that :meth:`take_recent` has not returned."""
        number = self._numbers.pop(space)
        last = self._spaces.pop()
        if last is not space:
            self._spaces[number] = last
            self._set(number)
        self.pointer.count = len(self._spaces)

    def _set(self, number: int) -> None:
        space = self._spaces[number]
        self._numbers[space] = number
        if number < _ROWS:
            row = self.pointer.rows[number]
            row.gpas, row.roots, row.count = space.gpas, space.numbers, space.count

    def take_recent(self) -> Iterator[Space | None]:
        """Yields the spaces that C has submitted since the last call, the oldest first; None for all of them."""
        pointer = self.pointer
        recent = ffi.unpack(pointer.recent, pointer.recent_count)
        pointer.recent_count = 0
        for row in recent:
            yield None if row == _ALL else self._spaces[row]
