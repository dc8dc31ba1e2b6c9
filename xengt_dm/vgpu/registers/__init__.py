"""The registers of the virtual GPU, as rows of data: a module for each block of the device.

``REGISTERS`` has the rows of a device that consists of its page tables, ``skylake.REGISTERS`` those of a whole GPU.
docs/development.md says how to add one.
"""

from __future__ import annotations

from typing import Final

from xengt_dm.vgpu.registers import page_sizes, pvinfo, tlb
from xengt_dm.vgpu.registers.page_sizes import GAMW_64K_FIELD, GAMW_ECO_DEV_RW_IA
from xengt_dm.vgpu.registers.pvinfo import (
    G2V_NOTIFY,
    NO_GRAPHICS_MEMORY,
    PDP0,
    PDP_COUNT,
    PVINFO,
    PVINFO_MAGIC,
    GraphicsMemory,
    Notification,
)
from xengt_dm.vgpu.registers.register import Register

__all__ = [
    "BAR0_SIZE",
    "G2V_NOTIFY",
    "GAMW_64K_FIELD",
    "GAMW_ECO_DEV_RW_IA",
    "NO_GRAPHICS_MEMORY",
    "PDP0",
    "PDP_COUNT",
    "PVINFO",
    "PVINFO_MAGIC",
    "REGISTERS",
    "GraphicsMemory",
    "Notification",
    "Register",
]

#: Bytes of BAR0 of a generation 8 or 9 device: registers in the lowest 2 MiB, the GGTT's entries in the upper half.
BAR0_SIZE: Final = 16 << 20

#: Those of a whole GPU are many, so whoever needs none of them does not import :mod:`xengt_dm.vgpu.registers.skylake`.
REGISTERS: Final[tuple[Register, ...]] = (*pvinfo.REGISTERS, *page_sizes.REGISTERS, *tlb.REGISTERS)
