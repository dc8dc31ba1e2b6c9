"""The PVINFO page: it describes the virtual GPU to the guest, and the guest announces address spaces by it.

Source: ``drivers/gpu/drm/i915/i915_pvinfo.h`` of Linux 6.1, ``struct vgt_if`` unless a row says otherwise.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from xengt_dm.vgpu.registers.register import Register

#: VGT_PVINFO_PAGE, of 4 KiB.
PVINFO: Final = 0x78000

#: VGT_MAGIC: "vGTvGTvG" read as a little-endian number.
PVINFO_MAGIC: Final = 0x4776544776544776

#: VGT_CAPS_FULL_PPGTT: the guest may use 4-level per-process page tables.
CAPS_FULL_PPGTT: Final = 1 << 2
#: VGT_CAPS_HWSP_EMULATION: context status buffers are read from memory. i915 does not probe without it.
CAPS_HWSP_EMULATION: Final = 1 << 3
#: VGT_CAPS_HUGE_GTT: the guest may use 64 KiB and 2 MiB pages.
CAPS_HUGE_GTT: Final = 1 << 4

#: vgt_if.g2v_notify.
G2V_NOTIFY: Final = PVINFO + 0x818
#: vgt_if.pdp[n].lo; .hi is 4 bytes further, and there are four.
PDP0: Final = PVINFO + 0x838
PDP_COUNT: Final = 4


class Notification(enum.IntEnum):
    """enum vgt_g2v_type."""

    PPGTT_L3_CREATE = 2
    PPGTT_L3_DESTROY = 3
    PPGTT_L4_CREATE = 4
    PPGTT_L4_DESTROY = 5
    EXECLIST_CONTEXT_CREATE = 6
    EXECLIST_CONTEXT_DESTROY = 7


#: No driver has been seen with a smaller one.
LEAST_APERTURE_MIB: Final = 16


class GraphicsMemory(NamedTuple):
    """What the guest is told of its share of graphics memory, MiB: none by default.

    ``low_mib``: the part that it may map through the aperture, from address 0 on; ``high_mib``: the part that only the
    GPU reaches, behind the aperture. A driver uses nothing else of the GGTT (gt/intel_gtt.c intel_vgt_balloon).
    """

    low_mib: int = 0
    high_mib: int = 0
    fences: int = 0

    @property
    def aperture_mib(self) -> int:
        """The size of a BAR for the low part: a power of two, and not too small for a driver."""
        return max(1 << (self.low_mib - 1).bit_length() if self.low_mib else 0, LEAST_APERTURE_MIB)

    @property
    def high_base_mib(self) -> int:
        """Where the hidden part begins: where a BAR for the low part ends."""
        return self.aperture_mib if self.low_mib or self.high_mib else 0


NO_GRAPHICS_MEMORY: Final = GraphicsMemory()


def _row(
    name: str,
    offset: int,
    size: int = 4,
    *,
    reset: int | str = 0,
    read_only: bool = False,
    on_write: str = "",
    on_read: str = "",
    whole: bool = False,
) -> Register:
    source = f"i915_pvinfo.h, vgt_if.{name}"
    row = Register(name, PVINFO + offset, size, source, reset, on_read=on_read, on_write=on_write, whole=whole)
    row = row._replace(block="pvinfo")
    return row._replace(writable=0) if read_only else row


#: The rest of the page is zero at first and reads as stored.
REGISTERS: Final = (
    _row("magic", 0x00, 8, reset=PVINFO_MAGIC, read_only=True, on_read="probe"),
    _row("version_major", 0x08, 2, reset=1, read_only=True),
    _row("version_minor", 0x0A, 2, read_only=True),
    _row("vgt_id", 0x0C, reset="vgt_id", read_only=True),
    _row("vgt_caps", 0x10, reset="vgt_caps", read_only=True),
    _row("avail_rs.mappable_gmadr.base", 0x40, read_only=True),
    _row("avail_rs.mappable_gmadr.size", 0x44, reset="mappable_size", read_only=True),
    _row("avail_rs.nonmappable_gmadr.base", 0x48, reset="nonmappable_base", read_only=True),
    _row("avail_rs.nonmappable_gmadr.size", 0x4C, reset="nonmappable_size", read_only=True),
    _row("avail_rs.fence_num", 0x50, reset="fence_num", read_only=True),
    _row("g2v_notify", G2V_NOTIFY - PVINFO, on_write="notify", whole=True),
    _row("cursor_x_hot", 0x830, reset=0xFFFFFFFF),
    _row("cursor_y_hot", 0x834, reset=0xFFFFFFFF),
    *(_row(f"pdp[{n}]", PDP0 - PVINFO + 8 * n, 8) for n in range(PDP_COUNT)),
)
