"""Programs for engines, made by hand: rings and batches as i915 emits them, as bytes."""

from __future__ import annotations

import struct

NOOP = 0
USER_INTERRUPT = 0x02 << 23
ARB_CHECK = 0x05 << 23
ARB_OFF, ARB_ON = 0x08 << 23, 0x08 << 23 | 1
BATCH_END = 0x0A << 23
GGTT = 1 << 22

#: An empty PIPE_CONTROL, and one that invalidates and stores to the per-process page.
PIPE_CONTROLS = (0x7A000004, 0, 0, 0, 0, 0, 0x7A000004, 0x01245C1C, 0xD0, 0, 0, 0)
PIPE_CONTROL_SEQNO = (0x7A000004, 0x01104080, 0xFEE040, 0, 77, 0)


def dwords(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def store(address: int, *data: int, ggtt: bool = True) -> tuple[int, ...]:
    """MI_STORE_DATA_IMM of dwords."""
    return (0x20 << 23 | (GGTT if ggtt else 0) | (1 + len(data)), address & 0xFFFFFFFF, address >> 32, *data)


def start(address: int, *, ppgtt: bool = True, second: bool = False, predicate: bool = False) -> tuple[int, ...]:
    """MI_BATCH_BUFFER_START."""
    flags = ppgtt << 8 | second << 22 | predicate << 15
    return (0x31 << 23 | flags | 1, address & 0xFFFFFFFF, address >> 32)


def request(batch: int, seqno: int = 77) -> tuple[int, ...]:
    """A request on the render engine from its beginning to its end, as Linux 6.1 emits it."""
    return (
        *PIPE_CONTROLS,
        *store(0xFEE040, seqno - 1),
        *(NOOP, ARB_CHECK),
        *(ARB_OFF, *start(batch)),
        *PIPE_CONTROL_SEQNO,
        *(USER_INTERRUPT, ARB_ON),
        *(ARB_CHECK, NOOP),
    )


#: Their names, in order, without the batch.
REQUEST_NAMES = [
    *("PIPE_CONTROL", "PIPE_CONTROL", "MI_STORE_DATA_IMM", "MI_NOOP", "MI_ARB_CHECK", "MI_ARB_ON_OFF"),
    *("MI_BATCH_BUFFER_START", "PIPE_CONTROL", "MI_USER_INTERRUPT", "MI_ARB_ON_OFF", "MI_ARB_CHECK", "MI_NOOP"),
]


class Mapped:
    """Memory at some addresses of the two address spaces; the rest is not there."""

    def __init__(self, pieces: dict[tuple[bool, int], bytes]) -> None:
        self.pieces = pieces
        self.reads = 0
        self.bytes = 0

    def read(self, ppgtt: bool, address: int, size: int) -> bytes:
        self.reads += 1
        for (space, start_), data in self.pieces.items():
            if space is ppgtt and start_ <= address < start_ + len(data):
                found = data[address - start_ : address - start_ + size]
                self.bytes += len(found)
                return found
        return b""
