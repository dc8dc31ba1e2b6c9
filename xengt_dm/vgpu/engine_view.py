"""A live engine, to be looked at: its ring, its batch and its context, as :mod:`.decode` takes them.

Nothing is changed by looking, and no shadow is synced: what the GPU could not read without that is not there. The
thread that serves the guest calls everything here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from xengt_dm._core import ffi, lib
from xengt_dm.units import PAGE_SIZE, CData
from xengt_dm.vgpu.commands import ENGINES
from xengt_dm.vgpu.decode import Limits, Ring, decode_batch, decode_image, decode_ring
from xengt_dm.vgpu.listing import Section

#: Offsets of an engine's registers, from its base.
_TAIL, _HEAD, _START, _CTL, _IPEHR = 0x30, 0x34, 0x38, 0x3C, 0x68
_OFFSET: Final = 0x1FFFFC
_SIZE: Final = 0x1FF000
_CONTEXT: Final = 0xFFFF_F000


class EngineView:
    """The engine with this number of a device, an ``xd_gpu *``. It is a :class:`~xengt_dm.vgpu.decode.Memory`."""

    def __init__(self, gpu: CData, number: int) -> None:
        self.name: Final = ENGINES[number]
        self._gpu = gpu
        self._number = number
        # Its own, so that neither the faults that the guest sees nor the translations of the engines change.
        memory = self._memory = ffi.new("xd_gpu_memory *")
        memory.shadow, memory.frames = gpu.memory.shadow, gpu.memory.frames
        memory.ggtt, memory.ggtt_entries = gpu.memory.ggtt, gpu.memory.ggtt_entries
        self._space = ffi.new("xd_gpu_space *")
        self._page = ffi.new("uint8_t[]", PAGE_SIZE)

    def read(self, ppgtt: bool, address: int, size: int) -> bytes:
        """As in the Protocol; pages beyond the first are read only if they are there."""
        lib.xd_gm_drop(self._memory)
        self._space[0] = self._gpu.engines[self._number].space
        if not ppgtt:
            self._space.level = 0
        elif not self._space.level:
            return b""
        data = b""
        while len(data) < size:
            length = min(size - len(data), PAGE_SIZE - (address + len(data)) % PAGE_SIZE)
            result = lib.xd_gm_read(self._memory, self._space, address + len(data), self._page, length)
            if result != lib.XD_GM_DONE:
                break
            data += bytes(ffi.buffer(self._page, length))
        return data

    def sections(self, whole: bool, limits: Limits) -> Iterator[Section]:
        """Yields what the engine executes: its ring from head to tail, or the ``whole`` ring; the batch that it
        is in, from where it is; and the image of its context.
        """
        page = self._gpu.pages[self._number]
        state = page.halves[page.current & 1]
        marks = {
            (bool(level.ppgtt), level.ip if number else self._register(_START) + level.ip): f"level {number}"
            for number, level in enumerate(list(state.levels)[: state.level + 1])
            if state.phase != lib.XD_PHASE_IDLE
        }
        ring = self._ring(whole)
        yield Section(self._title(state), decode_ring(self.name, ring, self, limits), marks)
        if state.phase == lib.XD_PHASE_IDLE:
            return
        if state.level:
            level = state.levels[state.level]
            items = decode_batch(self.name, self, bool(level.ppgtt), level.ip, limits)
            yield Section(f"{self.name}: the batch of level {state.level}, from where it is executed", items, marks)
        image = (state.active[state.active_index & 1].low & _CONTEXT) + PAGE_SIZE
        data = self.read(False, image, PAGE_SIZE)
        yield Section(f"{self.name}: the context image", decode_image(self.name, data, image))

    def _register(self, offset: int) -> int:
        at = self._gpu.registers + self._gpu.kinds[self._number].base + offset
        return int(ffi.cast("uint32_t *", at)[0])

    def _ring(self, whole: bool) -> Ring:
        start, ctl = self._register(_START), self._register(_CTL)
        head, tail = self._register(_HEAD) & _OFFSET, self._register(_TAIL) & _OFFSET
        size = (ctl & _SIZE) + PAGE_SIZE if ctl & 1 else 0
        data = self.read(False, start, size)
        if whole:  # a driver pads to the end and goes on at 0, so a command begins there
            head, tail = 0, len(data)
        return Ring(data, start, head, tail)

    def _title(self, state: CData) -> str:
        if state.phase == lib.XD_PHASE_IDLE:
            return f"{self.name}: idle"
        element = state.active[state.active_index & 1]
        head, tail = (self._register(each) & _OFFSET for each in (_HEAD, _TAIL))
        told = f"context {element.low & _CONTEXT:#x}, id {element.high:#x}, HEAD {head:#x}, TAIL {tail:#x}"
        return f"{self.name}: {told}, IPEHR {self._register(_IPEHR):#x}"
