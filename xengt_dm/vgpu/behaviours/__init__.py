"""What registers do: the behaviours that rows of the register tables name, a module for each block of the device."""

from __future__ import annotations

from typing import Final

from xengt_dm.vgpu.behaviours import engine, power, pvinfo, resets, tlb
from xengt_dm.vgpu.behaviours.parts import OnReads, OnWrites

#: What brings a register up to date before it is read, by the name that rows have for it.
ON_READ: Final[OnReads] = {**pvinfo.ON_READ, **engine.ON_READ}
#: Those of them that notice what the guest does; they must not run for others who look.
OF_THE_GUEST: Final = frozenset(pvinfo.ON_READ)
#: What follows a write, by the name that rows have for it.
ON_WRITE: Final[OnWrites] = {
    **pvinfo.ON_WRITE,
    **engine.ON_WRITE,
    **resets.ON_WRITE,
    **power.ON_WRITE,
    **tlb.ON_WRITE,
}
