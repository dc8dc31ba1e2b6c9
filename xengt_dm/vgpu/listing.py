"""What is decoded (:mod:`.decode`), as lines of text and as values for JSON.

A line for each dword, with the fields that begin in it, as people who debug drivers know it:

    00012000  18800101  MI_BATCH_BUFFER_START  level: 1, PPGTT
    00012004  00400000    address: 0x7f0000400000
    00012008  00007f00
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from xengt_dm.vgpu.commands import Field
from xengt_dm.vgpu.commands.command import Kind as FieldKind
from xengt_dm.vgpu.decode import Item, Kind

_DWORD: Final = 4
#: Of a command with more dwords than these, the rest is only counted.
MOST_LINES: Final = 64
_NO_NAMES: Final[Mapping[int, str]] = {}


class Shown(NamedTuple):
    """A field of a command: the dword that it begins in, its name, its value, and what people read."""

    dword: int
    name: str
    value: int
    text: str


class Section(NamedTuple):
    """A part of a listing. ``marks``: what to say at an address, by (whether PPGTT, address)."""

    title: str
    items: Iterator[Item]
    marks: Mapping[tuple[bool, int], str] = {}

    @property
    def named_marks(self) -> list[list[object]]:
        """The marks as JSON has them: space, address, text."""
        return [[space_name(ppgtt), address, text] for (ppgtt, address), text in self.marks.items()]


def fields(item: Item, registers: Mapping[int, str] = _NO_NAMES, most: int = MOST_LINES) -> Iterator[Shown]:
    """Yields the fields of a command, in the order of its dwords, those of the first ``most`` dwords.

    Flags that are not set are left out, and zeros in the header. ``registers``: names of registers, by their offsets.
    """
    if item.command is None:
        return
    for field in sorted(item.command.fields, key=lambda each: each.dword):
        yield from _show(field, item, 0, registers)
    group = item.command.group
    if group is None:
        return
    for first in range(group.first, min(len(item.dwords), most), group.size):
        for field in group.fields:
            yield from _show(field, item, first, registers)


def _show(field: Field, item: Item, first: int, registers: Mapping[int, str]) -> Iterator[Shown]:
    field = field._replace(dword=field.dword + first)
    value = field.of(item.dwords)
    if value is None:
        return
    if field.kind is FieldKind.FLAG:
        if value:
            yield Shown(field.dword, field.name, value, field.name)
        return
    if field.kind is FieldKind.HEX and not value and not field.dword:
        return
    text = _text(field, value, registers)
    yield Shown(field.dword, field.name, value, f"{field.name}: {text}" if field.name else text)


def _text(field: Field, value: int, registers: Mapping[int, str]) -> str:
    if value in field.values:
        return field.values[value]
    if field.kind is FieldKind.REGISTER and value in registers:
        return f"{value:#x} {registers[value]}"
    return str(value) if field.kind in (FieldKind.NUMBER, FieldKind.SIGNED) else f"{value:#x}"


def space_name(ppgtt: bool) -> str:
    return "ppgtt" if ppgtt else "ggtt"


def values(item: Item, registers: Mapping[int, str] = _NO_NAMES) -> dict[str, object]:
    """An item as JSON has it. Of a long command, the first :data:`MOST_LINES` dwords."""
    told: dict[str, object] = {
        "in": item.kind.value,
        "level": item.level,
        "space": space_name(item.ppgtt),
        "address": item.address,
        "command": item.command.name if item.command else None,
        "size": item.size,
        "dwords": list(item.dwords[:MOST_LINES]),
        "fields": [[shown.dword, shown.name, shown.value, shown.text] for shown in fields(item, registers)],
    }
    if item.repeats > 1:
        told["repeats"] = item.repeats
    for name in ("note", "problem"):
        if text := getattr(item, name):
            told[name] = text
    return told


def lines(told: Iterable[Mapping[str, Any]], marks: Mapping[tuple[str, int], str] = {}) -> Iterator[str]:
    """Yields the lines of a listing, from what :func:`values` returns. ``marks``: by (space, address)."""
    before: tuple[object, ...] | None = None
    for item in told:
        here = (item["in"], item["level"], item["space"], item["address"])
        if before != here:
            if before is not None:
                yield ""
            yield _heading(item)
        yield from _lines(item, marks)
        before = (*here[:3], item["address"] + _DWORD * item["size"] * item.get("repeats", 1))


def _heading(item: Mapping[str, Any]) -> str:
    """Stands where a listing begins, or goes on elsewhere than behind the command before."""
    if item["in"] == Kind.BATCH.value:
        return f"batch of level {item['level']} in the {item['space'].upper()} at {item['address']:#x}"
    return f"{item['in']} at {item['address']:#x}"


def _lines(item: Mapping[str, Any], marks: Mapping[tuple[str, int], str]) -> Iterator[str]:
    texts: dict[int, list[str]] = {}
    for dword, _, _, text in item["fields"]:
        texts.setdefault(dword, []).append(text)
    remarks = "; ".join(f"({item[each]})" for each in ("problem", "note") if item.get(each))
    for number, dword in enumerate(item["dwords"]):
        address = item["address"] + _DWORD * number
        said = ", ".join(texts.get(number, ()))
        if number == 0:
            said = "  ".join(filter(None, (_name(item), said, remarks)))
        elif said:
            said = f"  {said}"
        mark = marks.get((item["space"], address), "")
        yield f"{address:08x}  {dword:08x}  {said}{'  <-- ' if mark else ''}{mark}".rstrip()
    if not item["dwords"]:
        yield f"{item['address']:08x}  --------  {remarks}"
    elif len(item["dwords"]) < item["size"] and not item.get("problem"):
        yield f"{'':8}  ...       {item['size'] - len(item['dwords'])} dwords more"


def _name(item: Mapping[str, Any]) -> str:
    name = item["command"] or "?"
    return f"{name} x {item['repeats']}" if "repeats" in item else name
