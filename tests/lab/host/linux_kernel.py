"""A kernel of the distribution, decompressed: an emulated guest would do that itself, but not as fast."""

import lzma
import struct
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import command
from .errors import LabError

# Linux's Documentation/arch/x86/boot.rst.
_HEADER = 0x1F1
_HEADER_JUMP = 0x201
_TYPE_OF_LOADER = 0x210
_PAYLOAD_OFFSET = 0x248
_SECTOR = 512
_UNKNOWN_LOADER = 0xFF
_XZ = b"\xfd7zXZ\0"
_ZSTD = b"\x28\xb5\x2f\xfd"
_CODE32_START = 0x214
# A 64-bit ELF file.
_ENTRY = 0x18
_PHOFF = 0x20
_PHNUM = 0x38
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_LOAD = 1
#: The same as in tests/lab/dom0/linux.py.
_START = 0x01000000


class Kernel(NamedTuple):
    """`image` is to be at 16 MiB; `parameters` is a page of boot parameters that say what kernel it is, where it is
    entered (by tests/lab/guest/linux.S, with 64 bits), and no more.
    """

    image: bytes
    parameters: bytes


def decompressed(file: Path) -> Kernel:
    """The kernel in a bzImage. Raises LabError."""
    packed = file.read_bytes()
    parameters = bytearray(4096)
    end = _HEADER_JUMP + 1 + packed[_HEADER_JUMP]
    parameters[_HEADER:end] = packed[_HEADER:end]
    parameters[_TYPE_OF_LOADER] = _UNKNOWN_LOADER
    offset, length = struct.unpack_from("<II", packed, _PAYLOAD_OFFSET)
    start = (packed[_HEADER] + 1) * _SECTOR + offset
    # Behind it is its length in 4 bytes.
    elf = _unpacked(packed[start : start + length - 4])
    parameters[_CODE32_START : _CODE32_START + 4] = elf[_ENTRY : _ENTRY + 4]
    return Kernel(_flat(elf), bytes(parameters))


def _unpacked(payload: bytes) -> bytes:
    if payload.startswith(_XZ):
        return lzma.decompress(payload)
    if payload.startswith(_ZSTD):
        with tempfile.TemporaryDirectory() as scratch:
            packed, plain = Path(scratch) / "packed", Path(scratch) / "plain"
            packed.write_bytes(payload)
            command.run(["zstd", "-q", "-d", packed, "-o", plain], what="decompressing the kernel")
            return plain.read_bytes()
    raise LabError("the kernel is compressed in a way that the lab does not know")


def _flat(elf: bytes) -> bytes:
    """What is to be in memory."""
    (table,) = struct.unpack_from("<Q", elf, _PHOFF)
    (count,) = struct.unpack_from("<H", elf, _PHNUM)
    image = bytearray()
    for number in range(count):
        kind, _, offset, _, physical, size, _, _ = _PROGRAM_HEADER.unpack_from(
            elf, table + number * _PROGRAM_HEADER.size
        )
        if kind == _LOAD:
            start = physical - _START
            image += bytes(max(0, start + size - len(image)))
            image[start : start + size] = elf[offset : offset + size]
    return bytes(image)
