"""Where everything is in the storm's guest: which frames and which registers belong to whom."""

from __future__ import annotations

from typing import Final

from tests.support.tables import FRAME
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.vgpu.registers.register import Register

VCPUS: Final = 2
FRAMES: Final = 1024
#: Frames of each vCPU, for its tables and its data.
POOL: Final = 192
_FIRST_POOL: Final = 64

#: Frames of a space that is announced once, before anything else, and never again; see Shared in guest.py.
SHARED_ROOT, SHARED_L3, SHARED_L2, SHARED_LEAF = range(640, 644)
#: The space that the operator's stand-in for the GPU stores through: an entry of its first leaf for each page of data,
#: and one of its second leaf for the first leaf.
GPU_ROOT, GPU_L3, GPU_L2, GPU_LEAF, GPU_SELF_LEAF = range(700, 705)
GPU_DATA: Final = range(710, 718)
#: Entries of the first leaf that the GPU stores to.
GPU_ENTRIES: Final = range(256, 288)

BAR0_FRAME: Final = DEFAULT_BAR0 // FRAME
#: Registers that no row describes, and entries of the GGTT: they read as stored.
PLAIN_FRAMES: Final = tuple((BAR0_FRAME + 0x40 + vcpu, BAR0_FRAME + 0x800 + vcpu) for vcpu in range(VCPUS))
#: Rows that only the storm's device has, for each vCPU: masked registers, and bits that a written 1 clears.
MASKED: Final = tuple(tuple(0x20000 + 0x100 * vcpu + 4 * n for n in range(4)) for vcpu in range(VCPUS))
CLEARED: Final = tuple(tuple(0x20080 + 0x100 * vcpu + 4 * n for n in range(4)) for vcpu in range(VCPUS))
CLEARED_BITS: Final = 0xFFFF
ROWS: Final = (
    *(
        Register(f"masked {offset:#x}", offset, source="the storm", masked=True, writable=0xFFFF)
        for each in MASKED
        for offset in each
    ),
    *(
        Register(
            f"cleared {offset:#x}",
            offset,
            source="the storm",
            reset=CLEARED_BITS,
            writable=0xFFFF0000,
            write_one_to_clear=CLEARED_BITS,
        )
        for each in CLEARED
        for offset in each
    ),
)


def pool(vcpu: int) -> range:
    """The frames of a vCPU."""
    first = _FIRST_POOL + vcpu * (POOL + 64)
    return range(first, first + POOL)
