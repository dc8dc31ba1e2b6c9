"""The virtual GPU: what its registers do.

Theory of operation
-------------------
A guest's access to BAR0 comes from the bus as an offset, a size and a value. The rows in :mod:`xengt_dm.vgpu.registers`
say which bits a write changes and what follows it; :mod:`xengt_dm.vgpu.mmio` applies them to the state buffer; the
behaviours that rows name are methods here, found by name in :data:`ON_READ` and :data:`ON_WRITE`.

    bus -> Vgpu.write -> Mmio.write -> state buffer, then behaviours -> AddressSpaces

The device keeps nothing but its state buffer (:mod:`xengt_dm.vgpu.state`). Constructing a :class:`Vgpu` reads that
buffer and changes nothing in it, so a successor of a process that died is the same device. What others derive from a
register, such as whether 64 KiB pages count, is derived again then. Whoever creates a fresh state calls
:meth:`Vgpu.reset` once.

Sans-io: no hypervisor, no clock, no addresses. The device knows offsets and never where its BAR is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import Steps, in_order
from xengt_dm.units import CData
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.mmio import Mmio, Written
from xengt_dm.vgpu.ports import AddressSpaces
from xengt_dm.vgpu.registers import pvinfo
from xengt_dm.vgpu.registers.register import Register
from xengt_dm.vgpu.state import UNASSIGNED, DeviceState

_MIB_SHIFT: Final = 20


def announcement(mode: Mode, roots: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """The register writes, (offset, size, value), by which a driver announces a space."""
    pdps = [(reg.PDP0 + 8 * n, 8, root) for n, root in enumerate(roots)]
    creates = {Mode.L4: reg.Notification.PPGTT_L4_CREATE, Mode.L3: reg.Notification.PPGTT_L3_CREATE}
    return [*pdps, (reg.G2V_NOTIFY, 4, creates[mode])]


class Vgpu:
    """A virtual Intel GPU of generation 8 or 9, as far as its page tables are concerned.

    ``vgt_id`` and ``graphics`` are what the guest is told in PVINFO after a reset. Accesses are of 1, 2, 4 or 8 bytes
    and lie within BAR0; the bus guarantees that.
    """

    def __init__(
        self,
        spaces: AddressSpaces,
        state: DeviceState,
        *,
        generation: int,
        vgt_id: int,
        graphics: reg.GraphicsMemory = reg.NO_GRAPHICS_MEMORY,
    ) -> None:
        self._spaces = spaces
        self._mmio = Mmio(state.bar0, reg.REGISTERS, ON_READ, ON_WRITE, UNASSIGNED)
        self._host_values = _host_values(generation, vgt_id, graphics)
        self._tell_page_sizes()

    @property
    def registers(self) -> CData:
        """The ``xd_registers *`` by which C serves what is plain of BAR0."""
        return self._mmio.plain.pointer

    def reset(self) -> None:
        """Give every register its reset value. Spaces that the guest announced stay."""
        self._mmio.reset(self._host_values)
        self._tell_page_sizes()

    def read(self, offset: int, size: int) -> int:
        """A read of BAR0 by the guest."""
        for register in self._mmio.refreshes(offset, size):
            ON_READ[register.on_read](self, register)
        return self._mmio.load(offset, size)

    def write(self, offset: int, size: int, value: int) -> Steps[None] | None:
        """A write to BAR0 by the guest; ``value`` fits ``size``. Returns None, or steps that do what is left."""
        rest = [ON_WRITE[written.register.on_write](self, written) for written in self._mmio.write(offset, size, value)]
        return in_order([steps for steps in rest if steps is not None]) if rest else None

    # Behaviours

    def _notify(self, written: Written) -> Steps[object] | None:
        """An address space is announced, or done with; its roots are what the pdp registers hold now."""
        pdps = tuple(self._mmio.load(reg.PDP0 + 8 * n, 8) for n in range(reg.PDP_COUNT))
        match written.new:
            case reg.Notification.PPGTT_L4_CREATE:
                return self._spaces.create_space(Mode.L4, pdps[:1])
            case reg.Notification.PPGTT_L4_DESTROY:
                return self._spaces.destroy_space(Mode.L4, pdps[:1])
            case reg.Notification.PPGTT_L3_CREATE:
                return self._spaces.create_space(Mode.L3, pdps)
            case reg.Notification.PPGTT_L3_DESTROY:
                return self._spaces.destroy_space(Mode.L3, pdps)
        self._spaces.ignore_notification()
        return None

    def _page_sizes(self, written: Written) -> None:
        """Whether 64 KiB pages count may have changed."""
        self._tell_page_sizes()

    def _invalidate_tlb(self, written: Written) -> Steps[object] | None:
        """An engine is to use no translations of before. Until then it may; so this is when shadows must follow.

        Which space an engine executes with is not known yet, so all of them are synced.
        """
        return self._spaces.submit_all()

    def _tell_page_sizes(self) -> None:
        field = self._mmio.load(reg.GAMW_ECO_DEV_RW_IA, 4) & reg.GAMW_64K_FIELD
        self._spaces.set_64k_pages(field == reg.GAMW_64K_FIELD)


#: What brings a register up to date before it is read, by the name that rows have for it.
ON_READ: Final[Mapping[str, Callable[[Vgpu, Register], None]]] = {}
#: What follows a write, by the name that rows have for it.
ON_WRITE: Final[Mapping[str, Callable[[Vgpu, Written], Steps[object] | None]]] = {
    "invalidate_tlb": Vgpu._invalidate_tlb,
    "notify": Vgpu._notify,
    "page_sizes": Vgpu._page_sizes,
}


def _host_values(generation: int, vgt_id: int, graphics: reg.GraphicsMemory) -> Mapping[str, int]:
    """The reset values that rows leave to the host, by the names that the rows have for them."""
    capabilities = pvinfo.CAPS_FULL_PPGTT | pvinfo.CAPS_HWSP_EMULATION
    if generation >= 9:
        capabilities |= pvinfo.CAPS_HUGE_GTT
    return {
        "vgt_id": vgt_id,
        "vgt_caps": capabilities,
        "mappable_size": graphics.low_mib << _MIB_SHIFT,
        "nonmappable_base": graphics.high_base_mib << _MIB_SHIFT,
        "nonmappable_size": graphics.high_mib << _MIB_SHIFT,
        "fence_num": graphics.fences,
    }
