"""One address space of the virtual GPU."""

from __future__ import annotations

import enum

from xengt_dm._core import ffi
from xengt_dm.units import CData


class Mode(enum.Enum):
    """How the GPU walks: 48-bit legacy with one root, or 32-bit legacy with four page-directory pointers."""

    L4 = "l4"
    L3 = "l3"

    @property
    def root_level(self) -> int:
        return 4 if self is Mode.L4 else 2

    @property
    def root_count(self) -> int:
        return 1 if self is Mode.L4 else 4


#: What tells one space from another: its roots, low 12 bits cleared. How many there are tells the mode.
SpaceKey = tuple[int, ...]


def space_key(mode: Mode, roots: tuple[int, ...]) -> SpaceKey:
    """The key of the space with these root addresses; ValueError if their number does not fit the mode."""
    if len(roots) != mode.root_count:
        raise ValueError(f"an {mode.value} space has {mode.root_count} root(s), not {len(roots)}")
    return tuple(root & ~0xFFF for root in roots)


class Space:
    """An address space: how often the guest created it, and the shadows of its roots (0: none)."""

    __slots__ = ("count", "gpas", "mode", "numbers", "refs", "roots")

    def __init__(self, mode: Mode, roots: SpaceKey) -> None:
        self.mode = mode
        self.roots = roots
        self.count = len(roots)
        self.refs = 1
        self.gpas: CData = ffi.new("uint64_t[4]", roots)
        self.numbers: CData = ffi.new("uint32_t[4]")
