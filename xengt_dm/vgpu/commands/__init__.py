"""The commands of generation 9 engines, as rows of data: a module for each part of an engine.

``COMMANDS`` has all rows. :mod:`xengt_dm.vgpu.command_table` makes of them what C executes, and
:mod:`xengt_dm.vgpu.decode` what people read. docs/vgpu.md lists them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from xengt_dm.vgpu.commands import blitter, media, mi, render
from xengt_dm.vgpu.commands.command import BLITTER, ENGINES, Client, Command, Field, Group, Kind, Length

__all__ = [
    "COMMANDS",
    "ENGINES",
    "Client",
    "Command",
    "Field",
    "Group",
    "Kind",
    "Length",
    "find",
    "rows",
    "rule",
    "takes",
]

COMMANDS: Final[tuple[Command, ...]] = (*mi.COMMANDS, *blitter.COMMANDS, *render.COMMANDS, *media.COMMANDS)


def takes(engine: str, client: int) -> bool:
    """Whether an engine has this client: the blitter has no 3D pipeline, and nobody else a blitter."""
    if client == Client.MI:
        return True
    return client == (Client.BLITTER if engine in BLITTER else Client.RENDER)


def rows(engine: str) -> Mapping[tuple[Client, int], Command]:
    """The rows that an engine decodes, by client and opcode.

    Of MI, these are all: a command that only other engines have does nothing, by its own length.
    """
    return _BY_ENGINE[engine]


def rule(engine: str, client: Client, opcode: int) -> Length:
    """The length of a command that has no row. It is passed over, as rendering is."""
    if client is Client.MI:
        return mi.rule(opcode)
    return blitter.rule(opcode) if client is Client.BLITTER else media.rule(engine, opcode)


def find(engine: str, header: int) -> Command | None:
    """Returns the command that a header begins on an engine, None if the engine cannot decode it.

    An opcode that no manual names gets a row made for it.
    """
    return _find(engine, header >> 16)


@functools.lru_cache(maxsize=1024)
def _find(engine: str, upper: int) -> Command | None:
    """``upper``: bits 31:16 of the header, which have the whole opcode, whatever the client."""
    if not takes(engine, upper >> 13):
        return None
    client = Client(upper >> 13)
    shift = client.opcode_shift - 16
    opcode = (upper >> shift) & ((1 << (13 - shift)) - 1)
    row = _BY_ENGINE[engine].get((client, opcode))
    return row or Command(_unknown(client, opcode), client, opcode, rule(engine, client, opcode))


def _unknown(client: Client, opcode: int) -> str:
    if client is Client.MI:
        return f"MI opcode {opcode:#04x}"
    if client is Client.BLITTER:
        return f"blitter opcode {opcode:#04x}"
    return f"opcode {0x6000 | opcode:#06x}"


_BY_ENGINE: Final[Mapping[str, Mapping[tuple[Client, int], Command]]] = {
    engine: {(row.client, row.opcode): row for row in COMMANDS if row.client is Client.MI or engine in row.engines}
    for engine in ENGINES
}
