"""The virtual GPU's registers, as data.

Offsets are bytes from the start of BAR0. Sources: ``i915_pvinfo.h`` of Linux 6.1 (``drivers/gpu/drm/i915``) for the
PVINFO page, ``gt/intel_gt_regs.h`` and ``gt/intel_gtt.c`` (``gtt_write_workarounds``) for 0x4080.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

#: BAR0 of a generation 8 or 9 device: registers in the lower half, the GGTT's entries in the upper.
BAR0_SIZE = 16 << 20

#: VGT_PVINFO_PAGE and VGT_PVINFO_SIZE.
PVINFO = 0x78000
PVINFO_SIZE = 0x1000

#: VGT_MAGIC: "vGTvGTvG" read as a little-endian number.
PVINFO_MAGIC = 0x4776544776544776

#: VGT_CAPS_FULL_PPGTT: the guest may use 4-level per-process page tables.
CAPS_FULL_PPGTT = 1 << 2
#: VGT_CAPS_HWSP_EMULATION: context status buffers are read from memory. i915 does not probe without it.
CAPS_HWSP_EMULATION = 1 << 3
#: VGT_CAPS_HUGE_GTT: the guest may use 64 KiB and 2 MiB pages.
CAPS_HUGE_GTT = 1 << 4

#: GAMW_ECO_DEV_RW_IA: its low 4 bits all set make the IPS bit of a page-directory entry count, on generation 9.
GAMW_ECO_DEV_RW_IA = 0x4080
GAMW_64K_FIELD = 0xF

#: vgt_if.g2v_notify.
G2V_NOTIFY = PVINFO + 0x818
#: vgt_if.pdp[n].lo; .hi is 4 bytes further, and there are four.
PDP0 = PVINFO + 0x838
PDP_COUNT = 4


class Notification(enum.IntEnum):
    """enum vgt_g2v_type."""

    PPGTT_L3_CREATE = 2
    PPGTT_L3_DESTROY = 3
    PPGTT_L4_CREATE = 4
    PPGTT_L4_DESTROY = 5
    EXECLIST_CONTEXT_CREATE = 6
    EXECLIST_CONTEXT_DESTROY = 7


class Register(NamedTuple):
    """``size`` bytes at ``offset`` that read as ``value`` from the start; the guest cannot write them if ``fixed``."""

    name: str
    offset: int
    size: int
    value: int
    fixed: bool


class GraphicsMemory(NamedTuple):
    """What the guest is told of its share of graphics memory, MiB: none, unless somebody says otherwise.

    There is no aperture behind it: a driver that asks finds a GGTT whose entries read as stored.
    """

    low_mib: int = 0
    high_mib: int = 0
    fences: int = 0

    @property
    def high_base_mib(self) -> int:
        """Where the hidden part begins: where a BAR for the low part ends, whose size is a power of two."""
        return 1 << (self.low_mib - 1).bit_length() if self.low_mib else 0


NO_GRAPHICS_MEMORY = GraphicsMemory()
_MIB_SHIFT = 20


def pvinfo_registers(generation: int, vgt_id: int, memory: GraphicsMemory = NO_GRAPHICS_MEMORY) -> tuple[Register, ...]:
    """What the guest finds in the PVINFO page; everything else there is zero and reads as stored."""
    caps = CAPS_FULL_PPGTT | CAPS_HWSP_EMULATION | (CAPS_HUGE_GTT if generation >= 9 else 0)
    return (
        Register("magic", PVINFO, 8, PVINFO_MAGIC, fixed=True),
        Register("version_major", PVINFO + 0x08, 2, 1, fixed=True),
        Register("version_minor", PVINFO + 0x0A, 2, 0, fixed=True),
        Register("vgt_id", PVINFO + 0x0C, 4, vgt_id, fixed=True),
        Register("vgt_caps", PVINFO + 0x10, 4, caps, fixed=True),
        Register("mappable_gmadr.base", PVINFO + 0x40, 4, 0, fixed=True),
        Register("mappable_gmadr.size", PVINFO + 0x44, 4, memory.low_mib << _MIB_SHIFT, fixed=True),
        Register("nonmappable_gmadr.base", PVINFO + 0x48, 4, memory.high_base_mib << _MIB_SHIFT, fixed=True),
        Register("nonmappable_gmadr.size", PVINFO + 0x4C, 4, memory.high_mib << _MIB_SHIFT, fixed=True),
        Register("fence_num", PVINFO + 0x50, 4, memory.fences, fixed=True),
        Register("cursor_x_hot", PVINFO + 0x830, 4, 0xFFFFFFFF, fixed=False),
        Register("cursor_y_hot", PVINFO + 0x834, 4, 0xFFFFFFFF, fixed=False),
    )
