"""Numbers, sizes and tables as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from xengt_dm.printable import printable

#: No cell makes a column wider than this. A cell may be a text of another process, in one of very many rows.
WIDTH_LIMIT: Final = 100

UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: int) -> str:
    """Bytes in the largest unit that they fill: ``4 KiB``, ``1.5 MiB``."""
    power = min(max(count.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    return f"{_decimal(count / (1 << 10 * power))} {UNITS[power]}"


def _decimal(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``5 h 2 min``, ``9 d 4 h``."""
    whole = max(int(seconds), 0)
    for unit, smaller, length, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 space``, ``1,234 spaces``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def root(value: int | Sequence[int]) -> str:
    """The root of an address space, or its four."""
    return f"{value:#x}" if isinstance(value, int) else ",".join(f"{each:#x}" for each in value)


def access(writable: int) -> str:
    """Returns ``rw`` for a writable page, ``ro`` for another one."""
    return "rw" if writable else "ro"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines with aligned columns. A heading that ends in ``>`` is that of a column aligned to the right.

    A cell of more than WIDTH_LIMIT characters moves the rest of its own line only.
    """
    right = [heading.endswith(">") for heading in headings]
    lines = [[heading.rstrip(">") for heading in headings], *([printable(cell) for cell in row] for row in rows)]
    widths = [min(max(map(len, column)), WIDTH_LIMIT) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if flush_right else cell.ljust(width)
            for cell, width, flush_right in zip(line, widths, right, strict=True)
        )
        yield "  ".join(cells).rstrip()
