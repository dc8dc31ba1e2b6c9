"""The commands for C: a set for each engine (``core/vgpu/commands.h``), made from the rows of :mod:`.commands`."""

from __future__ import annotations

from typing import Final, NamedTuple

from xengt_dm._core import ffi, lib
from xengt_dm.units import CData
from xengt_dm.vgpu.commands import COMMANDS, Client, Command, Length, rows, rule, takes

#: The name of each index in an xd_command_set.
_INDEXES: Final = {Client.MI: "mi", Client.BLITTER: "blitter", Client.RENDER: "render"}
#: What stands for the row of a command that has none.
_NO_ROW: Final = 0xFFFF
_PLACES: Final = {(row.name, row.engines): place for place, row in enumerate(COMMANDS)}


class _Entry(NamedTuple):
    """The members of an ``xd_command``, by its names."""

    length_mask: int
    length: int
    least: int
    does: int
    flags: int = 0
    row: int = _NO_ROW


class CommandSet:
    """What an engine decodes. ``pointer``: an ``xd_command_set *``, good while this object is."""

    def __init__(self, engine: str) -> None:
        places = {_Entry(0, 1, 1, lib.XD_DO_ERROR): 0}
        indexes = {name: _index(engine, client, places) for client, name in _INDEXES.items()}
        self._commands: CData = ffi.new("xd_command[]", [entry._asdict() for entry in places])
        self.pointer: CData = ffi.new("xd_command_set *", {"commands": self._commands, **indexes})


def _index(engine: str, client: Client, places: dict[_Entry, int]) -> list[int]:
    """The place of each opcode's entry; what is not in ``places`` yet is added to it."""
    count = 1 << (29 - client.opcode_shift)
    if not takes(engine, client):
        return [0] * count
    unnamed = {}
    index = []
    for opcode in range(count):
        length = rule(engine, client, opcode)
        if length not in unnamed:
            unnamed[length] = places.setdefault(_skipped(length), len(places))
        index.append(unnamed[length])
    for (of, opcode), row in rows(engine).items():
        if of is client:
            index[opcode] = places.setdefault(_entry(engine, row), len(places))
    return index


def _skipped(length: Length) -> _Entry:
    return _Entry(length.mask, length.base, 1, lib.XD_DO_SKIP)


def _entry(engine: str, row: Command) -> _Entry:
    does = row.does if engine in row.engines else "nothing"
    flags = lib.XD_COMMAND_PRIVILEGED if row.privileged else 0
    place = _PLACES[row.name, row.engines]
    return _Entry(row.length.mask, row.length.base, row.least, getattr(lib, f"XD_DO_{does.upper()}"), flags, place)
