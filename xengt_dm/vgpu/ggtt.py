"""The aperture, BAR2: what the guest's CPU reads and writes there is memory, by fences and the entries of the GGTT.

An access that touches an entry which names no RAM reads zeros, or is dropped. The bus makes accesses of at most 8
bytes.
"""

from __future__ import annotations

from typing import Final

from xengt_dm._core import ffi, lib
from xengt_dm.ppgtt.guest_frames import take_chunks
from xengt_dm.steps import Steps, complete
from xengt_dm.vgpu.core import GpuCore
from xengt_dm.vgpu.fences import Fences
from xengt_dm.vgpu.streamer import PageTables


class Aperture:
    """BAR2 of the device that ``core`` is."""

    def __init__(self, core: GpuCore, tables: PageTables, fences: Fences) -> None:
        self._memory = core.pointer.memory
        self._core: Final = core
        self._tables = tables
        self._fences = fences
        self._space = ffi.new("xd_gpu_space *")
        self._bytes = ffi.new("uint8_t[8]")

    def read(self, offset: int, size: int) -> int:
        if self._fences.splits(offset, size):
            return sum(self.read(offset + i, 1) << 8 * i for i in range(size))
        offset = self._fences.place(offset)
        memory = ffi.addressof(self._core.pointer, "memory")
        lib.xd_gm_drop(memory)
        while lib.xd_gm_read(memory, self._space, offset, self._bytes, size) == lib.XD_GM_AGAIN:
            complete(self._tables.query_chunks(self._needed()))
        self._forget_fault()
        return int.from_bytes(ffi.buffer(self._bytes, size), "little")

    def write(self, offset: int, size: int, value: int) -> Steps[None]:
        if self._fences.splits(offset, size):
            for i in range(size):
                yield from self.write(offset + i, 1, value >> 8 * i & 0xFF)
            return
        offset = self._fences.place(offset)
        memory = ffi.addressof(self._core.pointer, "memory")
        while True:
            lib.xd_gm_drop(memory)
            result = lib.xd_gm_write_table(memory, self._space, offset, value, size)
            if result != lib.XD_GM_AGAIN:
                break
            yield from self._tables.query_chunks(self._needed())
        self._forget_fault()
        if result == lib.XD_GM_DIRECTORY:
            table = self._memory.table
            yield from self._tables.follow_gpu_store(table.result, table.gpa, table.size, table.value)

    def _needed(self) -> list[int]:
        need = self._memory.need
        chunks = list(take_chunks(need))
        need.count = 0
        return chunks

    def _forget_fault(self) -> None:
        """It is not one of an engine."""
        self._memory.fault.valid = 0
