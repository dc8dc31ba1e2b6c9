"""The device behind BAR0: registers that read as stored, and the few that do something.

Sans-io. The device knows offsets into its BAR and never where the BAR is; what its registers cause goes to an engine.
Its state is plain data (:class:`DeviceState`), so that it can be kept and put back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from xengt_dm.ppgtt.space import Mode
from xengt_dm.vgpu import registers as reg

_PAGE = 4096


def announcement(mode: Mode, roots: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """The register writes, (offset, size, value), by which a driver announces a space."""
    pdps = [(reg.PDP0 + 8 * n, 8, root) for n, root in enumerate(roots)]
    creates = {Mode.L4: reg.Notification.PPGTT_L4_CREATE, Mode.L3: reg.Notification.PPGTT_L3_CREATE}
    return [*pdps, (reg.G2V_NOTIFY, 4, creates[mode])]


class AddressSpaces(Protocol):
    """What the registers of the device can ask for; :class:`xengt_dm.ppgtt.engine.Engine` is one."""

    def create_space(self, mode: Mode, roots: tuple[int, ...]) -> None: ...

    def destroy_space(self, mode: Mode, roots: tuple[int, ...]) -> bool: ...

    def set_64k_pages(self, enabled: bool) -> None: ...

    def ignore_notification(self) -> None: ...


@dataclass(slots=True)
class DeviceState:
    """All that the device remembers: pages of BAR0 by page number, those that were ever touched."""

    pages: dict[int, bytearray] = field(default_factory=dict)

    def read(self, offset: int, size: int) -> int:
        """``size`` bytes, little-endian; they may lie in two pages."""
        page, start = divmod(offset, _PAGE)
        held = self.pages.get(page)
        if start + size <= _PAGE:
            return int.from_bytes(held[start : start + size], "little") if held is not None else 0
        low = _PAGE - start
        return self.read(offset, low) | self.read(offset + low, size - low) << (8 * low)

    def write(self, offset: int, size: int, value: int) -> None:
        for i, byte in enumerate((value & (1 << 8 * size) - 1).to_bytes(size, "little")):
            page, start = divmod(offset + i, _PAGE)
            self.pages.setdefault(page, bytearray(_PAGE))[start] = byte


class Device:
    """A virtual Intel GPU of generation 8 or 9, as far as its page tables are concerned.

    Accesses are of 1, 2, 4 or 8 bytes and lie within :data:`~xengt_dm.vgpu.registers.BAR0_SIZE`; the bus sees to that.
    """

    def __init__(
        self,
        spaces: AddressSpaces,
        generation: int,
        vgt_id: int,
        memory: reg.GraphicsMemory = reg.NO_GRAPHICS_MEMORY,
    ) -> None:
        self._spaces = spaces
        self.state = DeviceState()
        self._fixed: set[int] = set()
        for register in reg.pvinfo_registers(generation, vgt_id, memory):
            self.state.write(register.offset, register.size, register.value)
            if register.fixed:
                self._fixed.update(range(register.offset, register.offset + register.size))

    def read(self, offset: int, size: int) -> int:
        return self.state.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Store, except over what is fixed, then do what the registers touched are for."""
        touched = range(offset, offset + size)
        if self._fixed.isdisjoint(touched):
            self.state.write(offset, size, value)
        else:
            for i in touched:
                if i not in self._fixed:
                    self.state.write(i, 1, value >> 8 * (i - offset))
        if reg.G2V_NOTIFY in touched and reg.G2V_NOTIFY + 3 in touched:
            self._notified(self.state.read(reg.G2V_NOTIFY, 4))
        if touched.start < reg.GAMW_ECO_DEV_RW_IA + 4 and touched.stop > reg.GAMW_ECO_DEV_RW_IA:
            enabled = self.state.read(reg.GAMW_ECO_DEV_RW_IA, 4) & reg.GAMW_64K_FIELD == reg.GAMW_64K_FIELD
            self._spaces.set_64k_pages(enabled)

    def _notified(self, value: int) -> None:
        """``g2v_notify``, written as a whole: spaces come and go with what the pdp registers hold now."""
        pdps = tuple(self.state.read(reg.PDP0 + 8 * n, 8) for n in range(reg.PDP_COUNT))
        match value:
            case reg.Notification.PPGTT_L4_CREATE:
                self._spaces.create_space(Mode.L4, pdps[:1])
            case reg.Notification.PPGTT_L4_DESTROY:
                self._spaces.destroy_space(Mode.L4, pdps[:1])
            case reg.Notification.PPGTT_L3_CREATE:
                self._spaces.create_space(Mode.L3, pdps)
            case reg.Notification.PPGTT_L3_DESTROY:
                self._spaces.destroy_space(Mode.L3, pdps)
            case _:
                self._spaces.ignore_notification()
