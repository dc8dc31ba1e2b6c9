"""The layout of the device's state: one flat buffer with a version.

Everything that the device remembers is in this buffer and nowhere else, so a process that maps the same buffer is the
same device. Who owns the memory is not this module's business: an instance passes an anonymous mapping, a test a
bytearray. A page that nobody touches is never allocated, so the layout can leave room where the device has nothing yet.

Regions marked as reserved in :data:`LAYOUT` are room for parts that do not exist: nothing reads or writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from xengt_dm.errors import DataError
from xengt_dm.units import PAGE_SIZE
from xengt_dm.vgpu.registers import BAR0_SIZE

#: "xdmState" read as a little-endian number.
MAGIC: Final = 0x6574_6174_536D_6478
#: Changes with the layout and with the meaning of any byte in it.
VERSION: Final = 1
_HEADER = struct.Struct("<QIQ")


class Region(NamedTuple):
    """``size`` bytes at ``offset`` of the buffer."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size

    def of(self, buffer: memoryview) -> memoryview:
        """The bytes of this region in ``buffer``, for reading and writing."""
        return buffer[self.offset : self.end]


def _layout(sizes: Iterable[tuple[str, int]]) -> dict[str, Region]:
    """The regions one after the other."""
    regions, offset = {}, 0
    for name, size in sizes:
        regions[name] = Region(offset, size)
        offset += size
    return regions


#: Every region by name. The last three make up BAR0, byte for byte.
LAYOUT: Final = _layout(
    (
        ("header", PAGE_SIZE),
        ("pci_config", PAGE_SIZE),  # reserved: configuration space of the PCI function
        ("engines", 4 * PAGE_SIZE),  # reserved: a page for each of four engines
        ("spaces", 16 * PAGE_SIZE),  # reserved: the live address spaces
        ("registers", 2 << 20),
        ("unassigned", 6 << 20),  # no register is there; reads as stored
        ("ggtt", 8 << 20),  # reads as stored; entries have no effect
    )
)
#: BAR0 in the buffer.
BAR0: Final = Region(LAYOUT["registers"].offset, BAR0_SIZE)
assert LAYOUT["ggtt"].end == BAR0.end
#: Bytes of the whole buffer.
SIZE: Final = BAR0.end


class DeviceState:
    """A buffer with a valid header, in parts.

    Raises DataError if the buffer's header is not that of this layout; the message says how it differs.
    """

    def __init__(self, buffer: memoryview) -> None:
        """``buffer``: at least :data:`SIZE` writable bytes that :meth:`create` has prepared at some time."""
        _check_buffer(buffer)
        magic, version, size = _HEADER.unpack_from(buffer)
        if magic != MAGIC:
            raise DataError(f"no device state: it begins with {magic:#x}, not with {MAGIC:#x}")
        if version != VERSION:
            raise DataError(f"a device state of version {version}; this program has version {VERSION}")
        if size != SIZE:
            raise DataError(f"a device state of {size} bytes; this program's has {SIZE}")
        self.bar0 = BAR0.of(buffer)

    @classmethod
    def create(cls, buffer: memoryview) -> DeviceState:
        """Write the header into ``buffer``, whose :data:`SIZE` bytes the caller must have set to zero.

        The magic is written last, so an interrupted creation leaves no valid state.
        """
        _check_buffer(buffer)
        _HEADER.pack_into(buffer, 0, 0, VERSION, SIZE)
        struct.pack_into("<Q", buffer, 0, MAGIC)
        return cls(buffer)


def _check_buffer(buffer: memoryview) -> None:
    if buffer.readonly or buffer.nbytes < SIZE:
        raise ValueError(f"a device state needs {SIZE} writable bytes")
