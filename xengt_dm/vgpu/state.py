"""The device's state: the part of an instance's state that is the device (:mod:`xengt_dm.state.layout`).

The whole state of the device is in this memory, so a process that maps the same memory continues the same device. The
memory belongs to the caller: an instance passes a region of its state, a test passes a bytearray.
"""

from __future__ import annotations

from typing import Final

from xengt_dm.state.layout import DEVICE, DEVICE_SIZE, Region
from xengt_dm.vgpu.registers import BAR0_SIZE

#: Bytes of the device's state.
SIZE: Final = DEVICE_SIZE
#: BAR0 in the memory.
BAR0: Final = Region(DEVICE["registers"].offset, BAR0_SIZE)
assert DEVICE["ggtt"].end == BAR0.end
#: Offsets in BAR0 at which no register is. No memory is reserved for them, so they are never touched.
UNASSIGNED: Final = range(DEVICE["unassigned"].offset - BAR0.offset, DEVICE["unassigned"].end - BAR0.offset)


#: Behind the 256 bytes of configuration space.
_FLAGS: Final = 512


class DeviceState:
    """The device's memory, in parts. Zeros are a device that was never reset."""

    def __init__(self, memory: memoryview) -> None:
        """``memory``: at least :data:`SIZE` writable bytes."""
        if memory.readonly or memory.nbytes < SIZE:
            raise ValueError(f"a device state needs {SIZE} writable bytes")
        self.memory = memory
        self.bar0 = BAR0.of(memory)
        self.pci_config = DEVICE["pci_config"].of(memory)
        self._flags = self.pci_config[_FLAGS:]

    @property
    def probed(self) -> bool:
        """Whether a driver has looked for the device, and announced nothing since."""
        return bool(self._flags[0])

    @probed.setter
    def probed(self, probed: bool) -> None:
        self._flags[0] = probed
