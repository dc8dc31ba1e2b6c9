"""Power: requests that are granted at once, and the power unit's mailbox.

A driver waits for each answer. What is there within the write can never be late, however slow a trap is.
"""

from __future__ import annotations

from typing import Final

from xengt_dm.vgpu.behaviours.parts import OnWrites, Parts
from xengt_dm.vgpu.mmio import Written
from xengt_dm.vgpu.registers.display import WELL_REQUESTS
from xengt_dm.vgpu.registers.gt import (
    FORCEWAKES,
    PCODE_DATA,
    PCODE_DATA1,
    PCODE_ILLEGAL_COMMAND,
    PCODE_MAILBOX,
    PCODE_READY,
    PCODE_SUCCESS,
)

_ACKS: Final = dict(FORCEWAKES.values())
_COMMAND: Final = 0xFF
#: Commands that read something, and those that change something; i915_reg.h GEN6_PCODE_*, HSW_PCODE_*, GEN9_PCODE_*.
_READS: Final = {0x05, 0x06, 0x09, 0x0C, 0x10, 0x1A}
_WRITES: Final = {0x04, 0x07, 0x08, 0x11, 0x17, 0x19, 0x21}


def forcewake(parts: Parts, written: Written) -> None:
    """A domain is awake as soon as it is asked for."""
    parts.mmio.store(_ACKS[written.register.offset], 4, written.new)


def power_well(parts: Parts, written: Written) -> None:
    """A well is on as soon as it is requested, and off as soon as it is not."""
    requests = written.new & WELL_REQUESTS
    parts.mmio.store(written.register.offset, 4, requests | requests >> 1)


def pcode(parts: Parts, written: Written) -> None:
    """A command is executed within the write. Reads read zeros: there is one frequency and no voltage to tell of."""
    command = written.new & _COMMAND
    if not written.new & PCODE_READY:
        return
    if command in _READS:
        parts.mmio.store(PCODE_DATA, 4, 0)
        parts.mmio.store(PCODE_DATA1, 4, 0)
    result = PCODE_SUCCESS if command in _READS | _WRITES else PCODE_ILLEGAL_COMMAND
    parts.mmio.store(PCODE_MAILBOX, 4, written.new & ~PCODE_READY & ~_COMMAND | result)


ON_WRITE: Final[OnWrites] = {"forcewake": forcewake, "power_well": power_well, "pcode": pcode}
