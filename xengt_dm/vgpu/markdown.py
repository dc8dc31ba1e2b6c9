"""The tables of docs/registers.md, made from the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from xengt_dm.vgpu import pci
from xengt_dm.vgpu.registers import pvinfo
from xengt_dm.vgpu.registers.engine import ENGINES
from xengt_dm.vgpu.registers.register import EXTRA, Register
from xengt_dm.vgpu.registers.skylake import REGISTERS

#: By the name of a table: the block whose registers it has.
_BLOCKS: Final = {"render": "rcs0", "gt": "gt", "interrupts": "interrupts", "display": "display", "pvinfo": "pvinfo"}
_HEAD: Final = ("| offset | name | after a reset | the guest | source |", "|---|---|---|---|---|")


def tables() -> dict[str, str]:
    """Returns the tables by their names."""
    found = {"pci": _table(pci.rows(pvinfo.LEAST_APERTURE_MIB << 20))}
    shared, base = _of_every_engine()
    found["engine"] = _table(row._replace(offset=row.offset - base, name=row.name.partition(".")[2]) for row in shared)
    names = {row.name for row in shared}
    for table, block in _BLOCKS.items():
        found[table] = _table(row for row in REGISTERS if row.block == block and row.name not in names)
    others = {engine.name for engine in ENGINES[1:]}
    theirs = {row.name.partition(".")[2] for row in shared}
    found["others"] = _table(
        row for row in REGISTERS if row.block in others and row.name.partition(".")[2] not in theirs
    )
    return found


def _of_every_engine() -> tuple[list[Register], int]:
    """The registers of the first engine that all of them have, and its base."""
    first, base = ENGINES[0].name, ENGINES[0].base
    offsets = [{row.offset - each.base for row in REGISTERS if row.block == each.name} for each in ENGINES]
    common = set.intersection(*offsets)
    return [row for row in REGISTERS if row.block == first and row.offset - base in common and "." in row.name], base


def _table(rows: Iterable[Register]) -> str:
    ordered = sorted(rows, key=lambda row: row.offset)
    return "\n".join([*_HEAD, *map(_line, _runs(ordered))]) + "\n"


def _runs(rows: list[Register]) -> Iterator[list[Register]]:
    """Rows that differ in a number at the end of the name alone, one after the other."""
    for _, same in groupby(rows, key=_kind):
        yield list(same)


def _kind(row: Register) -> tuple[object, ...]:
    """The same for rows of a run. Registers that are called by their offsets are none."""
    stem = row.name.rstrip("0123456789")
    numbered = stem != row.name and not stem.endswith("RING_")
    place = "" if numbered else row.source
    return (stem, numbered or row.offset, row.size, row.reset, row.writable, row.masked, place)


def _line(run: list[Register]) -> str:
    first, last = run[0], run[-1]
    offset, name = f"{first.offset:#x}", first.name
    if first is not last:
        offset += f"..{last.offset:#x}"
        name += f"..{last.name[len(last.name.rstrip('0123456789')) :]}"
    reset = f"by the host: {first.reset}" if isinstance(first.reset, str) else f"{first.reset:#x}"
    return f"| {offset} | `{name}` | {reset} | {_access(first)} | {first.source} |"


def _access(row: Register) -> str:
    """What a write does, in words."""
    bits, words = row.bits, []
    if row.write_one_to_clear:
        words.append("clears by ones")
    elif not row.writable & bits:
        words.append("reads")
    elif row.masked:
        words.append("writes by mask")
    elif row.writable & bits == bits:
        words.append("writes")
    else:
        words.append(f"writes {row.writable & bits:#x}")
    words += [f"`{name}`" for name in (row.on_read, row.on_write) if name]
    if row.context:
        words.append("per context" + (" (extra)" if row.context == EXTRA else ""))
    if row.user:
        words.append("any batch")
    if row.served:
        words.append(f"served by {'C' if row.served == 'core' else row.served}")
    return ", ".join(words)
