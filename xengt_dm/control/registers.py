"""What the registers of the device hold, by name and decoded: the answer of the command ``registers``."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from xengt_dm.control.json_stream import Pause
from xengt_dm.errors import DataError
from xengt_dm.gpu import Gpu
from xengt_dm.vgpu.registers.register import Register

#: What names of registers in configuration space begin with; the others are in BAR0.
PCI: Final = "pci."
#: A pattern that is longer names nothing.
LONGEST_PATTERN: Final = 100
_WILD: Final = frozenset("*?[")
#: Registers that are described at once, which takes some 200 us.
_AT_ONCE: Final = 16

#: A register by its name, and what returns its value.
_Shown: TypeAlias = tuple[str, Register, Callable[[Register], int]]


def listing(gpu: Gpu, pattern: str | None) -> Iterator[object]:
    """Returns those that ``pattern`` names, or all, for a lazy list; configuration space first, each by offset.

    A pattern is an offset, decimal or with 0x, a name with ``*``, ``?`` or ``[...]`` in it, or a part of a name.
    Reading changes nothing that a guest could see. Raises DataError if there is none.
    """
    chosen = _chooser(pattern)
    found = [(name, row, value) for name, row, value in _rows(gpu) if chosen(name, row)]
    if not found:
        raise DataError(f"no register of this device is called {pattern!r}; without a pattern all are listed")
    return _described_each(found)


def _described_each(found: list[_Shown]) -> Iterator[object]:
    """The elements of the answer, with a pause now and then in which the guest is served."""
    for number, (name, row, value) in enumerate(found, 1):
        yield _described(name, row, value(row))
        if number % _AT_ONCE == 0:
            yield Pause.PAUSE


def _rows(gpu: Gpu) -> Iterator[_Shown]:
    """Each register by its name, and what returns its value."""
    if gpu.config is not None:
        for row in gpu.config.rows:
            yield PCI + row.name, row, gpu.config.value
    for row in gpu.device.rows:
        yield row.name, row, gpu.device.value


def _chooser(pattern: str | None) -> Callable[[str, Register], bool]:
    if pattern is None:
        return lambda name, row: True
    lowered = pattern[:LONGEST_PATTERN].lower()
    offset = _number(lowered)
    if offset is not None:
        return lambda name, row: row.offset <= offset < row.end
    if _WILD & set(lowered):
        return lambda name, row: fnmatch.fnmatchcase(name.lower(), lowered)
    return lambda name, row: lowered in name.lower()


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _described(name: str, row: Register, value: int) -> dict[str, object]:
    fields = []
    for field in row.fields:
        held = field.of(value)
        fields.append(
            {"name": field.name, "high": field.high, "low": field.low, "value": held, "meaning": field.values.get(held)}
        )
    return {"name": name, "offset": row.offset, "size": row.size, "value": value, "fields": fields}
