"""The virtual GPU: what its registers do.

Theory of operation
-------------------
A guest's access to BAR0 comes from the bus as an offset, a size and a value. The rows in :mod:`xengt_dm.vgpu.registers`
say which bits a write changes and what follows it; :mod:`xengt_dm.vgpu.mmio` applies them to the state buffer; the
behaviours that rows name are functions in :mod:`xengt_dm.vgpu.behaviours`, found by name.

    bus -> Vgpu.write -> Mmio.write -> state buffer, then behaviours -> AddressSpaces, Engines

There are two models of the device (:class:`Model`): one that consists of its page tables, and a whole Skylake GT2.

The device keeps nothing but its state buffer (:mod:`xengt_dm.vgpu.state`). Constructing a :class:`Vgpu` reads that
buffer and changes nothing in it, so a successor of a process that died is the same device. What others derive from a
register, such as whether 64 KiB pages count, is derived again then. Whoever creates a fresh state calls
:meth:`Vgpu.reset` once.

Sans-io: no hypervisor, no addresses. The device knows offsets and never where its BAR is; its clock is given to it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from xengt_dm._core import lib
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import Steps, in_order
from xengt_dm.units import CData
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.behaviours import OF_THE_GUEST, ON_READ, ON_WRITE
from xengt_dm.vgpu.behaviours.parts import Parts
from xengt_dm.vgpu.behaviours.pvinfo import tell_page_sizes
from xengt_dm.vgpu.mmio import Mmio
from xengt_dm.vgpu.ports import AddressSpaces, Engines, NoEngines
from xengt_dm.vgpu.registers import pvinfo, skylake
from xengt_dm.vgpu.registers.register import Register
from xengt_dm.vgpu.registers.tlb import TLB_INVALIDATE
from xengt_dm.vgpu.state import UNASSIGNED, DeviceState

_MIB_SHIFT: Final = 20


class Model(enum.Enum):
    """What the device is, by the names that the configuration has."""

    #: Page tables and their announcements; the rest of BAR0 reads as it was written.
    PPGTT = "ppgtt"
    #: A Skylake GT2 of generation 9, with four engines.
    SKYLAKE = "skylake"


def announcement(mode: Mode, roots: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """The register writes, (offset, size, value), by which a driver announces a space."""
    pdps = [(reg.PDP0 + 8 * n, 8, root) for n, root in enumerate(roots)]
    creates = {Mode.L4: reg.Notification.PPGTT_L4_CREATE, Mode.L3: reg.Notification.PPGTT_L3_CREATE}
    return [*pdps, (reg.G2V_NOTIFY, 4, creates[mode])]


class Vgpu:
    """A virtual Intel GPU of generation 8 or 9.

    ``vgt_id`` and ``graphics`` are what the guest is told in PVINFO after a reset. ``engines`` execute what the guest
    submits. ``clock`` returns nanoseconds. Accesses are of 1, 2, 4 or 8 bytes and lie within BAR0; the bus guarantees
    that.
    """

    def __init__(
        self,
        spaces: AddressSpaces,
        state: DeviceState,
        *,
        generation: int,
        vgt_id: int,
        graphics: reg.GraphicsMemory = reg.NO_GRAPHICS_MEMORY,
        model: Model = Model.PPGTT,
        engines: Engines | None = None,
        clock: Callable[[], int] = lib.xd_now,
    ) -> None:
        self._mmio = Mmio(state.bar0, _rows(model), ON_READ, ON_WRITE, UNASSIGNED)
        self._host_values = _host_values(generation, vgt_id, graphics, model)
        image = self._mmio.image(self._host_values, skylake.RESET_END)
        self._engines: Final[Engines] = NoEngines(spaces) if engines is None else engines
        self._parts = Parts(self._mmio, spaces, self._engines, clock, image, state)
        self._mmio.plain.pointer.gpu = self._engines.pointer
        if engines is None:
            for offset in TLB_INVALIDATE:
                self._mmio.plain.submit_at(offset)
        tell_page_sizes(self._parts)

    @property
    def registers(self) -> CData:
        """The ``xd_registers *`` by which C serves what is plain of BAR0."""
        return self._mmio.plain.pointer

    def reset(self) -> None:
        """Give every register its reset value. Spaces that the guest announced stay."""
        self._mmio.reset(self._host_values)
        tell_page_sizes(self._parts)

    def read(self, offset: int, size: int) -> int:
        """A read of BAR0 by the guest."""
        served = self._engines.read(offset, size)
        if served is not None:
            return served
        for register in self._mmio.refreshes(offset, size):
            ON_READ[register.on_read](self._parts, register)
        return self._mmio.load(offset, size)

    def write(self, offset: int, size: int, value: int) -> Steps[None] | None:
        """A write to BAR0 by the guest; ``value`` fits ``size``. Returns None, or steps that do what is left."""
        served, steps = self._engines.write(offset, size, value)
        if served:
            return steps
        done = self._mmio.write(offset, size, value)
        rest = [ON_WRITE[written.register.on_write](self._parts, written) for written in done]
        return in_order([steps for steps in rest if steps is not None]) if rest else None

    @property
    def rows(self) -> Sequence[Register]:
        """Its registers, by offset."""
        return self._mmio.rows

    def value(self, row: Register) -> int:
        """What a register reads as now. The device takes no notice that somebody looked."""
        if row.on_read in OF_THE_GUEST:
            return self._mmio.load(row.offset, row.size)
        return self.read(row.offset, row.size)


def _rows(model: Model) -> tuple[Register, ...]:
    return skylake.REGISTERS if model is Model.SKYLAKE else reg.REGISTERS


def _host_values(generation: int, vgt_id: int, graphics: reg.GraphicsMemory, model: Model) -> Mapping[str, int]:
    """The reset values that rows leave to the host, by the names that the rows have for them."""
    capabilities = pvinfo.CAPS_FULL_PPGTT | pvinfo.CAPS_HWSP_EMULATION
    if generation >= 9 and model is Model.PPGTT:
        capabilities |= pvinfo.CAPS_HUGE_GTT
    return {
        "vgt_id": vgt_id,
        "vgt_caps": capabilities,
        "mappable_size": graphics.low_mib << _MIB_SHIFT,
        "nonmappable_base": graphics.high_base_mib << _MIB_SHIFT,
        "nonmappable_size": graphics.high_mib << _MIB_SHIFT,
        "fence_num": graphics.fences,
    }


def graphics_told(state: DeviceState) -> reg.GraphicsMemory:
    """Returns what the guest was told of its graphics memory, which it cannot change."""
    rows = {row.name: row for row in pvinfo.REGISTERS}

    def told(name: str) -> int:
        row = rows[name]
        return int.from_bytes(state.bar0[row.offset : row.end], "little")

    return reg.GraphicsMemory(
        told("avail_rs.mappable_gmadr.size") >> _MIB_SHIFT,
        told("avail_rs.nonmappable_gmadr.size") >> _MIB_SHIFT,
        told("avail_rs.fence_num"),
    )
