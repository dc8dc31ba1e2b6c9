"""The registers of a BAR for C: which of them it may serve by itself (``core/serve/quick.h``).

A dword is *plain* if no access to it needs Python: no row in it has a behaviour, or bits that are not simply written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from xengt_dm._core import ffi
from xengt_dm.pointers import pointer_into
from xengt_dm.units import CData

_BITS = 32


class PlainRegisters:
    """What C needs to know of a BAR in ``memory``. ``reads``, ``writes``: the dwords that need Python; ``hole``: as in
    :class:`~xengt_dm.vgpu.mmio.Mmio`.
    """

    def __init__(self, memory: memoryview, reads: Collection[int], writes: Collection[int], hole: range) -> None:
        dwords = max((dword + 1 for dword in (*reads, *writes)), default=0)
        self._memory = memory
        self._bits = [_bitmap(dwords, each) for each in (reads, writes, ())]
        #: An ``xd_registers *``, good while this object is.
        self.pointer: CData = ffi.new(
            "xd_registers *",
            {
                "memory": pointer_into("char *", memory),
                "hole_start": hole.start,
                "hole_end": hole.stop,
                "dwords": dwords,
                "reads": self._bits[0],
                "writes": self._bits[1],
                "submits": self._bits[2],
            },
        )

    def submit_at(self, offset: int) -> None:
        """A write of bit 0 of this register of 4 bytes submits every live space, and the bit reads as zero again."""
        dword = offset // 4
        self._bits[2][dword // _BITS] |= 1 << dword % _BITS


def _bitmap(dwords: int, special: Iterable[int]) -> CData:
    words = ffi.new("uint32_t[]", dwords // _BITS + 1)
    for dword in special:
        words[dword // _BITS] |= 1 << dword % _BITS
    return words
