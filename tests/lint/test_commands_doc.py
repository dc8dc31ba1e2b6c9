"""docs/vgpu.md has the commands as the rows have them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from xengt_dm.vgpu.commands import COMMANDS, ENGINES, Command, Field, blitter, media, mi, render

PAGE = Path(__file__).resolve().parents[2] / "docs" / "vgpu.md"
BEGIN, END = "<!-- commands -->\n", "<!-- end of commands -->\n"
TABLES = {
    "MI": ("Bits 28:23", mi.COMMANDS),
    "Blitter": ("Bits 28:22", blitter.COMMANDS),
    "3D": ("Bits 31:16", render.COMMANDS),
    "Media": ("Bits 31:16", media.COMMANDS),
}


def tables() -> Iterator[str]:
    for title, (opcode, commands) in TABLES.items():
        yield f"## {title}\n\n"
        yield f"| {opcode} | Command | Length | Does | P | Engines | Fields |\n|---|---|---|---|---|---|---|\n"
        yield from map(row, commands)
        yield "\n"


def row(command: Command) -> str:
    does = {"nothing": "nothing", "skip": "skipped"}.get(command.does, "executed")
    opcode = command.match >> 16 if command.client == 3 else command.opcode
    cells = (
        f"{opcode:#06x}" if command.client == 3 else f"{opcode:#04x}",
        command.name,
        str(command.length),
        does,
        "P" if command.privileged else "",
        "all" if command.engines == ENGINES else " ".join(command.engines),
        "; ".join(fields(command)),
    )
    return f"| {' | '.join(cells)} |\n"


def fields(command: Command) -> Iterator[str]:
    yield from map(place, command.fields)
    if command.group is not None:
        first = command.group.first
        yield from (place(field, f"{first}+{field.dword}") for field in command.group.fields)


def place(field: Field, dword: str = "") -> str:
    where = f"{dword or field.dword}[{field.high}:{field.low}]" if field.high > field.low else None
    name = field.name or "/".join(field.values.values())
    return f"{where or f'{dword or field.dword}[{field.low}]'} {name}"


def parts(text: str) -> tuple[str, str, str]:
    before, _, rest = text.partition(BEGIN)
    written, _, after = rest.partition(END)
    return before, written, after


def test_the_page_has_the_tables() -> None:
    before, written, after = parts(PAGE.read_text())
    wanted = "".join(tables())
    if os.environ.get("XENGT_WRITE"):
        PAGE.write_text(f"{before}{BEGIN}{wanted}{END}{after}")
    assert written == wanted, "XENGT_WRITE=1 tests/run lint writes it anew"


def test_every_command_is_in_a_table() -> None:
    listed: Iterable[Command] = [command for _, commands in TABLES.values() for command in commands]
    assert sorted(map(str, listed)) == sorted(map(str, COMMANDS))
