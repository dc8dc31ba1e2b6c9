"""An engine's mode, its units and its clock."""

from __future__ import annotations

from typing import Final

from xengt_dm.steps import Steps
from xengt_dm.vgpu.behaviours.parts import OnReads, OnWrites, Parts, engine_of
from xengt_dm.vgpu.mmio import Written
from xengt_dm.vgpu.registers.engine import MODE_IDLE, STOP_RING
from xengt_dm.vgpu.registers.gt import TIMESTAMP_MHZ
from xengt_dm.vgpu.registers.register import Register

_ALL_DONE: Final = 0xFFFFFFFF
#: RING_INSTDONE while the engine works: its ring is not done.
_RING_BUSY: Final = 0xFFFFFFFE
_TIMESTAMP_BITS: Final = 36
_NS_PER_US: Final = 1000


def mode_idle(parts: Parts, register: Register) -> None:
    """MODE_IDLE is set while the engine has nothing to execute, or is stopped."""
    value = parts.mmio.load(register.offset, 4)
    idle = value & STOP_RING or parts.engines.is_idle(engine_of(register))
    parts.mmio.store(register.offset, 4, value | MODE_IDLE if idle else value & ~MODE_IDLE)


def mi_mode(parts: Parts, written: Written) -> Steps[None] | None:
    """STOP_RING stops the engine before the write is answered, and lets it go on when it is cleared."""
    number = engine_of(written.register)
    if written.new & STOP_RING:
        parts.engines.stop(number)
    elif written.old & STOP_RING:
        return parts.engines.go_on(number)
    return None


def instdone(parts: Parts, register: Register) -> None:
    """Whether the engine works."""
    idle = parts.engines.is_idle(engine_of(register))
    parts.mmio.store(register.offset, 4, _ALL_DONE if idle else _RING_BUSY)


def ticks(nanoseconds: int) -> int:
    """What RING_TIMESTAMP reads at a moment of the clock."""
    return (nanoseconds * TIMESTAMP_MHZ // _NS_PER_US) & (1 << _TIMESTAMP_BITS) - 1


def timestamp(parts: Parts, register: Register) -> None:
    """The clock, in ticks."""
    parts.mmio.store(register.offset, 8, ticks(parts.clock()))


ON_READ: Final[OnReads] = {"mode_idle": mode_idle, "instdone": instdone, "timestamp": timestamp}
ON_WRITE: Final[OnWrites] = {"mi_mode": mi_mode}
