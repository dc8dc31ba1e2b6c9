"""Commands as lists of dwords, for guests of the embedded hypervisor: from the manuals, not the device's tables."""

from __future__ import annotations

from typing import Final

GGTT: Final = 1 << 22
STORE_QWORD: Final = 1 << 21
NOOP: Final = 0
ARB_CHECK: Final = 0x05 << 23
BATCH_END: Final = 0x0A << 23
USER_INTERRUPT: Final = 0x02 << 23
ARB_ON: Final = 0x08 << 23 | 1
ARB_OFF: Final = 0x08 << 23

_DWORD: Final = 0xFFFFFFFF


def split(value: int) -> list[int]:
    """The two dwords of a qword, low first."""
    return [value & _DWORD, value >> 32 & _DWORD]


def store(address: int, value: int, *, ggtt: bool = False) -> list[int]:
    """MI_STORE_DATA_IMM of a dword."""
    return [0x20 << 23 | (GGTT if ggtt else 0) | 2, *split(address), value & _DWORD]


def store_qwords(address: int, *values: int, ggtt: bool = False) -> list[int]:
    """MI_STORE_DATA_IMM of qwords."""
    header = 0x20 << 23 | (GGTT if ggtt else 0) | STORE_QWORD
    return [header | (2 * len(values) + 1), *split(address), *(part for value in values for part in split(value))]


def load_immediate(*pairs: tuple[int, int]) -> list[int]:
    """MI_LOAD_REGISTER_IMM."""
    return [0x22 << 23 | (2 * len(pairs) - 1), *(part for pair in pairs for part in pair)]


def store_register(register: int, address: int, *, ggtt: bool = False) -> list[int]:
    """MI_STORE_REGISTER_MEM."""
    return [0x24 << 23 | (GGTT if ggtt else 0) | 2, register, *split(address)]


def load_memory(register: int, address: int, *, ggtt: bool = False) -> list[int]:
    """MI_LOAD_REGISTER_MEM."""
    return [0x29 << 23 | (GGTT if ggtt else 0) | 2, register, *split(address)]


def load_register(source: int, target: int) -> list[int]:
    """MI_LOAD_REGISTER_REG."""
    return [0x2A << 23 | 1, source, target]


def batch_start(address: int, *, ppgtt: bool = True, second_level: bool = False, predicated: bool = False) -> list[int]:
    """MI_BATCH_BUFFER_START."""
    bits = ppgtt << 8 | second_level << 22 | predicated << 15
    return [0x31 << 23 | bits | 1, *split(address)]


def end_if_not_above(address: int, value: int, *, ggtt: bool = False) -> list[int]:
    """MI_CONDITIONAL_BATCH_BUFFER_END: ends the batch if the dword at ``address`` is at most ``value``."""
    return [0x36 << 23 | 1 << 21 | (GGTT if ggtt else 0) | 2, value, *split(address)]


def flush(address: int = 0, value: int = 0, *, ggtt: bool = True, index: bool = False, tlb: bool = False) -> list[int]:
    """MI_FLUSH_DW that stores a dword."""
    return [0x26 << 23 | 1 << 14 | index << 21 | tlb << 18 | 2, address & _DWORD | ggtt << 2, address >> 32, value]


def pipe_control(flags: int = 0, address: int = 0, value: int = 0) -> list[int]:
    """PIPE_CONTROL with these flags in its second dword."""
    return [0x7A000004, flags, *split(address), *split(value)]


#: Flags of PIPE_CONTROL.
WRITE_QWORD: Final = 1 << 14
WRITE_GGTT: Final = 1 << 24
WRITE_INDEX: Final = 1 << 21
TLB_INVALIDATE: Final = 1 << 18
NOTIFY: Final = 1 << 8


def semaphore_wait(address: int, value: int, how: int, *, ggtt: bool = False) -> list[int]:
    """MI_SEMAPHORE_WAIT that polls. ``how``: 0 above, 1 at least, 2 below, 3 at most, 4 equal, 5 not equal."""
    return [0x1C << 23 | 1 << 15 | how << 12 | (GGTT if ggtt else 0) | 2, value, *split(address)]


def atomic(
    operation: int, address: int, first: int = 0, second: int = 0, *, qword: bool = False, returns: bool = False
) -> list[int]:
    """MI_ATOMIC with its operands inline."""
    header = 0x2F << 23 | operation << 8 | qword << 19 | 1 << 18 | returns << 16
    low, high = split(first), split(second)
    return [header | 9, *split(address), low[0], high[0], low[1], high[1], 0, 0, 0, 0]


def copy(target: int, source: int, *, ggtt: int = 0) -> list[int]:
    """MI_COPY_MEM_MEM of a dword. ``ggtt``: GGTT for the source, 1 << 21 for the target."""
    return [0x2E << 23 | ggtt | 3, *split(target), *split(source)]


def math(*instructions: tuple[int, int, int]) -> list[int]:
    """MI_MATH of (operation, first operand, second operand)."""
    return [0x1A << 23 | (len(instructions) - 1), *(op << 20 | a << 10 | b for op, a, b in instructions)]
