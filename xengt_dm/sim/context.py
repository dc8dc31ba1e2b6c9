"""Images of contexts, as i915 lays them out for generation 9 (gt/intel_lrc.c, gt/intel_lrc_reg.h)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PAGE_DWORDS: Final = 1024
#: Pages of an image: that of the status, that of the registers; the render engine's has more.
PAGES: Final = 2
RENDER_PAGES: Final = 22
#: Places of values in the page of registers.
CONTEXT_CONTROL, HEAD, TAIL, START, CTL = 0x03, 0x05, 0x07, 0x09, 0x0B
INDIRECT_CTX, INDIRECT_CTX_OFFSET, CTX_TIMESTAMP = 0x1B, 0x1D, 0x23
PDP3_UDW, PDP0_UDW, PDP0_LDW = 0x25, 0x31, 0x33
POWER_STATE, MI_MODE, GPR0 = 0x43, 0x55, 0x69
END: Final = 0xAA

RESTORE_INHIBIT: Final = 1 << 0
INHIBIT_SYNC_SWITCH: Final = 1 << 3
#: The offset of the indirect context batch into the restore, gen9_lrc_indirect_ctx_offset.
INDIRECT_OFFSET: Final = 0x26 << 6
_LRI_FORCE_POSTED: Final = 0x22 << 23 | 1 << 12
_BATCH_BUFFER_END: Final = 0x0A << 23

_RING: Final = (0x244, 0x34, 0x30, 0x38, 0x3C, 0x168, 0x140, 0x110, 0x11C, 0x114, 0x118, 0x1C0, 0x1C4, 0x1C8)
_SPACE: Final = (0x3A8, 0x28C, 0x288, 0x284, 0x280, 0x27C, 0x278, 0x274, 0x270)
_ENGINE: Final = (0x28, 0x9C, 0xC0, 0x178, 0x17C, 0x358, 0x170, 0x150, 0x154, 0x158, 0x41C)
_GPRS: Final = tuple(range(0x600, 0x680, 4))


def _blocks(render: bool) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The commands of the page of registers: their places, and the registers that each loads."""
    return (
        (0x01, _RING),
        (0x21, _SPACE),
        (0x41, (0xC8 if render else 0x200,)),
        (0x51, (*_ENGINE, *_GPRS, 0x68)),
    )


def masked(bits: int, on: bool = True) -> int:
    """The value by which a masked register gets these bits set, or cleared."""
    return bits << 16 | (bits if on else 0)


def registers_page(base: int, *, render: bool, inherited: Sequence[int] = ()) -> list[int]:
    """The dwords of a fresh page of registers. ``inherited``: those of a recorded default image; else it is virgin."""
    page = list(inherited) or [0] * PAGE_DWORDS
    for at, offsets in _blocks(render):
        page[at] = _LRI_FORCE_POSTED | (2 * len(offsets) - 1)
        for i, offset in enumerate(offsets):
            page[at + 1 + 2 * i] = base + offset
    control = masked(INHIBIT_SYNC_SWITCH)
    if inherited:
        page[CONTEXT_CONTROL] = control | masked(RESTORE_INHIBIT, False)
    else:
        page[END] = _BATCH_BUFFER_END
        page[CONTEXT_CONTROL] = control | masked(RESTORE_INHIBIT)
    return page
