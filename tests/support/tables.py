"""Frames, and the entries of tables that tests write into them."""

from __future__ import annotations

from typing import Final

from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE

FRAME: Final = PAGE_SIZE
#: Entries of a table.
ENTRIES: Final = 512
#: Bits of an entry: present and writable.
RW: Final = 3


def pte(gfn: int, bits: int = RW) -> int:
    """The page-table entry that names a frame: a table, or a page."""
    return gfn << PAGE_SHIFT | bits


def address(gfn: int, slot: int = 0) -> int:
    """The gpa of an entry of a table."""
    return gfn * FRAME + 8 * slot
