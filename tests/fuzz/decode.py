"""Any bytes as a trace, so that what mutates bytes can mutate traces.

Every byte string is a valid trace, the same each time, and ends with a dump. A byte chooses what happens and the next
few with what; few frames, few indices and few flags, so that tables meet. Small changes of the bytes are small changes
of the trace: an event takes as many bytes whatever it says, and bytes that are missing are 0.
"""

from __future__ import annotations

from typing import Any

Trace = list[dict[str, Any]]

MAX_EVENTS = 400
RAM_FRAMES = (8, 24, 64, 600, 1100)
#: Tables live here; entries may point anywhere.
TABLE_FRAMES = 12
INDICES = (0, 1, 2, 15, 16, 17, 255, 511)
SIZES = (1, 2, 4, 8)
FLAGS = (0x003, 0x083, 0x001, 0x000, 0x803, 0x883, 0x01B, 0x1083, 0x019, 0x881, 0xFFF, 0x013)
VALUES = (0, (1 << 64) - 1, 0x4141414141414141, 0xFFFFC00000000000)
COUNTS = (1, 2, 3, 8, 32, 300, 512, 600)
REGISTERS = (0x4080, 0x78818, 0x78838, 0x7883C, 0x78840, 0x78848, 0x78850, 0x407C, 0x78814, 0x78834, 0x78000)
BYTES_PER_EVENT = 8


def decode(data: bytes) -> Trace:
    """The trace that ``data`` says: a header, at most MAX_EVENTS events, and a last dump."""
    head = data[:4].ljust(4, b"\0")
    frames = RAM_FRAMES[head[0] % len(RAM_FRAMES)]
    header: dict[str, Any] = {"trace": 1, "generation": 9 - head[1] % 2, "ram_frames": frames}
    if head[2]:
        first = head[2] % frames
        header["holes"] = [[first, min(1 + head[3] % 4, frames - first)]]
    trace: Trace = [header]
    end = min(len(data), 4 + MAX_EVENTS * BYTES_PER_EVENT)
    for number, position in enumerate(range(4, end, BYTES_PER_EVENT)):
        trace.append(_event(data[position : position + BYTES_PER_EVENT].ljust(BYTES_PER_EVENT, b"\0"), frames, number))
    trace.append({"op": "dump", "id": "last"})
    return trace


def _event(b: bytes, frames: int, number: int) -> dict[str, Any]:
    what = b[0] % 32
    vcpu = {"vcpu": 1} if b[0] & 0x80 else {}
    table = 1 + b[1] % TABLE_FRAMES
    gpa = table << 12 | INDICES[b[2] % len(INDICES)] << 3
    if what < 12:  # an entry
        return {"op": "store", "gpa": gpa, "size": 8, "value": _entry(b[3:8], frames), **vcpu}
    if what < 17:  # part of entries, perhaps over the page's end
        size = SIZES[b[3] % 4]
        value = _entry(b[4:8], frames) >> 8 * (b[3] >> 4 & 7) & ((1 << 8 * size) - 1)
        return {"op": "store", "gpa": gpa + (b[3] >> 2 & 7), "size": size, "value": value, **vcpu}
    if what < 19:
        return {"op": "fill", "gpa": gpa, "count": COUNTS[b[3] % 8], "value": _entry(b[4:8], frames), **vcpu}
    if what < 22:  # the usual registers with the usual values
        offset, value = 0x78818, 2 + b[3] % 4
        if b[1] % 4:
            offset, value = 0x78838 + 8 * (b[1] // 4 % 4), (1 + b[3] % TABLE_FRAMES) << 12 if b[3] else 0
        return {"op": "mmio", "offset": offset, "size": 4 + 4 * (b[2] % 2), "value": value, **vcpu}
    if what < 24:  # any register with any value
        size = 4 + 4 * (b[2] % 2)
        value = int.from_bytes(b[3:8], "little") & ((1 << 8 * size) - 1)
        offset = REGISTERS[b[1] % len(REGISTERS)] + (b[2] >> 6)
        return {"op": "mmio", "offset": offset, "size": size, "value": value, **vcpu}
    if what < 26:
        return {"op": "submit", **_space(b)}
    if what < 28:
        return {"op": "gpu_store", **_space(b), "va": _va(b), "value": _entry(b[4:8], frames)}
    if what < 30:
        op = "add" if b[2] & 1 else "remove"
        return {"op": op, "gfn": table if b[3] & 1 else b[3] * 5, "count": b[2] >> 1 & 3}
    if what < 31:  # somewhere else
        far = (0xF0078818, (frames << 12) - 3, 1 << 46, (1 << 64) - 8)[b[1] % 4]
        return {"op": "store", "gpa": far, "size": 8, "value": _entry(b[3:8], frames), **vcpu}
    return {"op": "dump", "id": number}


def _entry(b: bytes, frames: int) -> int:
    """Four bytes or more: which frame, which flags, what on top."""
    if b[0] >= 0xF0:
        return VALUES[b[1] % 4]
    frame = 1 + b[0] % TABLE_FRAMES if b[0] < 0xB0 else (b[1] << 3 | b[0] & 7) % (frames + 2)
    high = b[3] << 46 if b[3] >= 0xE0 else 0
    return frame << 12 | FLAGS[b[2] % len(FLAGS)] | high


def _space(b: bytes) -> dict[str, Any]:
    frames = [b[1] % (TABLE_FRAMES + 1), b[2] % (TABLE_FRAMES + 1), b[3] % (TABLE_FRAMES + 1)]
    if b[0] & 0x40:
        return {"mode": "l3", "root": [frame << 12 for frame in [*frames, 0]]}
    return {"mode": "l4", "root": frames[0] << 12 | (b[1] >> 4)}


def _va(b: bytes) -> int:
    """Nine bits a level from few places; now and then beyond what the mode can address."""
    va = (b[3] & 7) << 3
    for level in range(4):
        va |= INDICES[(b[1 + level % 3] >> 2 * (level // 3) + 2) % len(INDICES)] << 12 + 9 * level
    return va % (1 << 34) if b[0] & 0x40 else va
