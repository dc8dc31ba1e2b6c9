"""The aperture, BAR2, as ``core/vgpu/aperture.h`` has it. C serves what is plain; the rest is done here, in steps.

The bus makes accesses of at most 8 bytes.
"""

from __future__ import annotations

from typing import Final

from xengt_dm._core import ffi, lib
from xengt_dm.pointers import pointer_into
from xengt_dm.ppgtt.guest_frames import take_chunks
from xengt_dm.steps import Steps, complete
from xengt_dm.units import CData
from xengt_dm.vgpu.core import GpuCore
from xengt_dm.vgpu.streamer import PageTables

#: Of the first fence register in BAR0; the others follow.
FENCES: Final = 0x100000
_FENCE_SIZE: Final = 8


class Aperture:
    """BAR2 of the device that ``core`` is, with ``fences`` fence registers in ``bar0``."""

    def __init__(self, core: GpuCore, tables: PageTables, bar0: memoryview, fences: int) -> None:
        self._memory = core.pointer.memory
        self._core: Final = core
        self._tables = tables
        self._aperture = ffi.new("xd_aperture *")
        self._aperture.memory = ffi.addressof(core.pointer, "memory")
        self._aperture.fences = pointer_into("uint64_t *", bar0[FENCES : FENCES + _FENCE_SIZE * fences])
        self._aperture.fence_count = fences
        self._value = ffi.new("uint64_t *")
        #: An ``xd_registers *``, by which C serves it; good while this object is.
        self.registers: CData = ffi.new("xd_registers *", {"aperture": self._aperture})

    def read(self, offset: int, size: int) -> int:
        if lib.xd_aperture_splits(offset, size):
            return sum(self.read(offset + i, 1) << 8 * i for i in range(size))
        while lib.xd_aperture_read(self._aperture, offset, size, self._value) == lib.XD_GM_AGAIN:
            complete(self._tables.query_chunks(self._needed()))
        return int(self._value[0])

    def write(self, offset: int, size: int, value: int) -> Steps[None]:
        if lib.xd_aperture_splits(offset, size):
            for i in range(size):
                yield from self.write(offset + i, 1, value >> 8 * i & 0xFF)
            return
        while (result := lib.xd_aperture_write_table(self._aperture, offset, size, value)) == lib.XD_GM_AGAIN:
            yield from self._tables.query_chunks(self._needed())
        if result == lib.XD_GM_DIRECTORY:
            table = self._memory.table
            yield from self._tables.follow_gpu_store(table.result, table.gpa, table.size, table.value)

    def _needed(self) -> list[int]:
        need = self._memory.need
        chunks = list(take_chunks(need))
        need.count = 0
        return chunks
