"""The text in which i915 tells of a hang, made by hand as Linux 6.1 ``i915_gpu_error.c`` makes it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from tests.support.gpu_programs import ARB_CHECK, BATCH_END, dwords, request

BATCH = 0x7FFF_0000_1000
RING = 0xFE0000
IMAGE = 0xFD0000


def digits(data: bytes) -> str:
    """Dword by dword, in base 85."""
    out = []
    for (value,) in struct.iter_unpack("<I", data):
        group = ""
        for _ in range(5):
            value, digit = divmod(value, 85)
            group = chr(ord("!") + digit) + group
        out.append("z" if group == "!!!!!" else group)
    return "".join(out)


def kept(engine: str, name: str, address: int, data: bytes, *, packed: bool = True) -> str:
    """An object that the driver kept."""
    if packed:
        data = zlib.compress(data)
        data += bytes(-len(data) % 4)
    heading = f"{engine} --- {name} = 0x{address >> 32:08x} {address & 0xFFFFFFFF:08x}\n"
    return f"{heading}{':' if packed else '~'}{digits(data)}\n"


REGISTERS = f"""\
  CCID:  0x00000020
  START: 0x{RING:08x}
  HEAD:  0x00200150 [0x00000100]
  TAIL:  0x00000198 [0x00000178, 0x00000198]
  CTL:   0x00000001
  MODE:  0x00000000
  ACTHD: 0x00007fff 00001004
  IPEHR: 0x18800101
  batch: [0x00007fff_00001000, 0x00007fff_00002000]
"""


def error_state(objects: Mapping[str, bytes] | None = None, registers: str = REGISTERS, *, packed: bool = True) -> str:
    """A hang of the render engine in a batch of ours."""
    if objects is None:
        ring = bytearray(4096)
        ring[0x100 : 0x100 + 4 * len(request(BATCH))] = dwords(*request(BATCH))
        image = bytearray(8192)
        image[4096 : 4096 + 20] = dwords(0, 0x11001001, 0x2244, 0x90009, BATCH_END)
        objects = {"ring": bytes(ring), "batch": dwords(ARB_CHECK, 0x02800000, BATCH_END), "HW context": bytes(image)}
    places = {"ring": RING, "batch": BATCH, "HW context": IMAGE}
    text = "GPU HANG: ecode 9:1:fffffffe, in client [123]\nKernel: 6.1.0-56 x86_64\nrcs0 command stream:\n" + registers
    for name, data in objects.items():
        text += kept("rcs0", name, places.get(name, 0x1000), data, packed=packed)
    return text
