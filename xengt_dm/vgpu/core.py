"""The device for C: the ``xd_gpu`` (``core/vgpu/gpu.h``), made of the rows and the state.

The rows of the register tables say which registers a command may change and how, which ones a batch without privilege
may load, and which ones a context has besides those that a driver writes into its image.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Final

from xengt_dm._core import ffi, lib
from xengt_dm.pointers import pointer_into
from xengt_dm.state.layout import DEVICE
from xengt_dm.units import CData
from xengt_dm.vgpu.command_table import CommandSet
from xengt_dm.vgpu.registers import skylake
from xengt_dm.vgpu.registers.engine import ENGINES
from xengt_dm.vgpu.registers.interrupts import GT_BANKS
from xengt_dm.vgpu.registers.register import EXTRA, Register

#: What is executed inside of the write that submits it, and in a slice: about 200 microseconds.
SLICE_BUDGET: Final = 200_000
#: The engines' ids in fault registers; gt/intel_engine_types.h RCS0_HW and so on.
_FAULT_IDS: Final = {"rcs0": 0, "vcs0": 1, "bcs0": 2, "vecs0": 3}
#: GGMS=1: 2 MiB of entries.
GGTT_ENTRIES: Final = (2 << 20) // 8
_PCI_COMMAND: Final = 4
_DWORD: Final = 0xFFFFFFFF


class GpuCore:
    """``shadow``: the ``xd_shadow *`` of the guest. ``memory``: the device's state, :data:`.state.SIZE` bytes.

    ``checks_bus_master``: whether engines touch memory only while the PCI function may.
    """

    def __init__(
        self,
        shadow: CData,
        memory: memoryview,
        rows: Iterable[Register] = skylake.REGISTERS,
        *,
        checks_bus_master: bool = False,
    ) -> None:
        self._memory = memory
        rows = tuple(rows)
        self._kept: list[object] = [shadow]
        #: An ``xd_gpu *``, good while this object is.
        self.pointer: CData = ffi.new("xd_gpu *")
        gpu = self.pointer
        gpu.memory.shadow, gpu.memory.frames = shadow, shadow.frames
        gpu.registers = self._region("char *", "registers")
        gpu.ggtt = gpu.memory.ggtt = self._region("uint64_t *", "ggtt")
        gpu.memory.ggtt_entries = GGTT_ENTRIES
        gpu.pages = self._region("xd_engine_page *", "engines")
        gpu.bounce = self._region("uint8_t *", "bounce")
        if checks_bus_master:
            gpu.pci_command = self._region("uint8_t *", "pci_config") + _PCI_COMMAND
        gpu.run_inside = SLICE_BUDGET
        gpu.level_triggered = True
        rules = list(_rules(rows))
        gpu.rules, gpu.rule_count = self._keep(ffi.new("xd_register_rule[]", rules)), len(rules)
        for number, engine in enumerate(ENGINES):
            kind = gpu.kinds[number]
            bank, shift = _interrupts_of(engine.name)
            kind.base, kind.bank, kind.shift, kind.id = engine.base, bank, shift, _FAULT_IDS[engine.name]
            own = [row for row in rows if row.block == engine.name]
            kind.allowed, kind.allowed_count = self._offsets(row for row in own if row.user)
            kind.extra, kind.extra_count = self._offsets(row for row in own if row.context == EXTRA)
            kind.commands = _commands_of(engine.name).pointer
        lib.xd_cs_adopt(gpu)

    def reset(self) -> None:
        """As a fresh device: no engine has a list."""
        for engine in range(len(ENGINES)):
            lib.xd_execlists_reset(self.pointer, engine)

    def _region(self, kind: str, name: str) -> CData:
        return pointer_into(kind, DEVICE[name].of(self._memory))

    def _keep(self, data: CData) -> CData:
        self._kept.append(data)
        return data

    def _offsets(self, rows: Iterable[Register]) -> tuple[CData, int]:
        """The offsets of all dwords of the rows, sorted, and how many."""
        found = sorted(offset for row in rows for offset in range(row.offset, row.end, 4))
        return self._keep(ffi.new("uint32_t[]", found or [0])), len(found)


@functools.cache
def _commands_of(name: str) -> CommandSet:
    """What an engine decodes: the same for all guests, and never freed."""
    return CommandSet(name)


def _interrupts_of(name: str) -> tuple[int, int]:
    """The bank of an engine's interrupts, and the bit at which they begin."""
    return next((bank, shift) for bank, engines in enumerate(GT_BANKS) for each, shift in engines if each == name)


def _rules(rows: Iterable[Register]) -> Iterator[tuple[int, int, int, int, int]]:
    """What a command must know of registers that are not plain, by dword: the members of an ``xd_register_rule``."""
    for row in sorted(rows, key=lambda row: row.offset):
        if row.size < 4:
            continue
        reset = row.reset if isinstance(row.reset, int) else 0
        for shift in range(0, 8 * row.size, 32):
            rule = (
                row.offset + shift // 8,
                row.writable >> shift & _DWORD,
                row.write_one_to_clear >> shift & _DWORD,
                reset >> shift & _DWORD,
                row.masked,
            )
            if rule[1:] != (_DWORD, 0, 0, False):
                yield rule
