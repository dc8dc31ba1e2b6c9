"""What a behaviour of a register works on, and what it is.

A behaviour has a name, which rows of the register tables give as ``on_read`` or ``on_write``. The first kind brings the
stored value up to date before it is read; the second follows a write, and may return steps that do what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from xengt_dm.steps import Steps
from xengt_dm.vgpu.mmio import Mmio, Written
from xengt_dm.vgpu.ports import AddressSpaces, Engines
from xengt_dm.vgpu.registers.engine import ENGINES
from xengt_dm.vgpu.registers.register import Register
from xengt_dm.vgpu.state import DeviceState


class Parts(NamedTuple):
    """The device, as behaviours see it. ``clock`` returns nanoseconds since some moment in the past.

    ``reset_image``: the memory of BAR0 after a full reset, from offset 0 on.
    """

    mmio: Mmio
    spaces: AddressSpaces
    engines: Engines
    clock: Callable[[], int]
    reset_image: memoryview
    state: DeviceState


OnRead: TypeAlias = Callable[[Parts, Register], None]
OnWrite: TypeAlias = Callable[[Parts, Written], Steps[object] | None]
OnReads: TypeAlias = Mapping[str, OnRead]
OnWrites: TypeAlias = Mapping[str, OnWrite]

_NUMBERS: Final = {engine.name: number for number, engine in enumerate(ENGINES)}


def engine_of(register: Register) -> int:
    """Returns the number of the engine that a register belongs to, its place in ENGINES."""
    return _NUMBERS[register.block]
