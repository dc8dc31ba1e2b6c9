"""The names of a Skylake's registers by their offsets, for whoever shows what commands say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from xengt_dm.vgpu.registers import skylake

_DWORD: Final = 4


def register_names() -> Mapping[int, str]:
    """Returns the name of each dword; of a register of eight bytes, the upper half is named as such."""
    names: dict[int, str] = {}
    for row in skylake.REGISTERS:
        names[row.offset] = row.name
        if row.size > _DWORD:
            names[row.offset + _DWORD] = f"{row.name} (upper half)"
    return names
