"""The layout of an instance's state: one flat buffer with a version.

Everything that a successor must know is in this buffer: it is a file of the run directory, mapped shared, so whatever
was stored before a process was killed is there. :data:`ROWS` lists its regions in order. Each begins at a multiple of
PAGE_SIZE. Numbers are little-endian, as the hosts are.

The sizes of some regions depend on the domain and on the configuration. These figures are the *capacities*; the header
has them, so a buffer says itself how large it must be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final, NamedTuple

from xengt_dm.units import PAGE_SIZE

#: "xdmState", read as a little-endian number.
MAGIC: Final = int.from_bytes(b"xdmState", "little")
#: Changes with the layout and with the meaning of any byte in it. Versions 2 and later can be read
#: (:data:`ROWS_BEFORE`); version 1 was never in a file.
VERSION: Final = 3

WORD: Final = 8
#: A record of the journal, and how many there are: one for each vCPU that a domain can have.
JOURNAL_RECORD: Final = 512
JOURNAL_RECORDS: Final = 128
#: An entry of the ranges, and how many there are. Xen allows a server 256 of each kind, but it counts adjacent guard
#: ranges as one.
RANGE_ENTRY: Final = 2 * WORD
RANGE_ENTRIES: Final = 4096
#: An entry of the live address spaces.
SPACE_ENTRY: Final = 8 * WORD
#: More of these no configuration can ask for: shadow.max_spaces, and domain.frame_limit.
MOST_SPACES: Final = 1 << 16
MOST_FRAMES: Final = 1 << 34


class Region(NamedTuple):
    """``size`` bytes at ``offset`` of the buffer."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.size

    def of(self, buffer: memoryview) -> memoryview:
        """The bytes of this region in ``buffer``, for reading and writing."""
        return buffer[self.offset : self.end]


class Capacities(NamedTuple):
    """What the sizes of the regions depend on.

    ``frames``: no frame at or above this number is RAM. ``spaces``: how many address spaces may be live at once.
    """

    frames: int
    spaces: int

    @property
    def possible(self) -> bool:
        """Whether a configuration can ask for them."""
        return 0 < self.frames <= MOST_FRAMES and 0 < self.spaces <= MOST_SPACES


def _pages(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE


class Row(NamedTuple):
    """A region: its name, its bytes, what is in it, and whether its memory is reserved when a file of it is made."""

    name: str
    size: Callable[[Capacities], int]
    text: str
    reserved: bool = True


ROWS: Final = (
    Row("header", lambda _: PAGE_SIZE, "magic, version and sizes; the domain and the server that the state is of"),
    Row("life", lambda _: PAGE_SIZE, "mode, options, and how many daemons took the state over or died"),
    Row("journal", lambda _: JOURNAL_RECORDS * JOURNAL_RECORD, "a record for the request of each vCPU"),
    Row("ranges", lambda _: RANGE_ENTRIES * RANGE_ENTRY, "the address ranges of the ioreq server"),
    Row("spaces", lambda of: _pages(of.spaces * SPACE_ENTRY), "the live address spaces"),
    Row("protected", lambda of: _pages(-(-of.frames // 8)), "one bit for each frame that may be protected"),
    # The device, from here to the end. The three from "registers" on are BAR0, byte for byte.
    Row("pci_config", lambda _: PAGE_SIZE, "configuration space of the PCI function, then flags of the device"),
    Row("engines", lambda _: 4 * PAGE_SIZE, "room for a page for each of four engines"),
    Row("registers", lambda _: 2 << 20, "the registers of BAR0"),
    Row("unassigned", lambda _: 6 << 20, "never touched: no register is there", reserved=False),
    Row("ggtt", lambda _: 8 << 20, "the GGTT of BAR0"),
    Row("bounce", lambda _: 4 * PAGE_SIZE, "room for a page for each of four engines, for what it moves within a page"),
)
#: The rows of earlier versions. Each version begins with the rows of the one before, and zeros in what it adds mean
#: what held before. So a state is converted by adding zeros, and the numbers of words in its journal stay right.
#: Whoever changes the layout in another way removes the versions before: their states are refused, and the device
#: starts anew.
ROWS_BEFORE: Final[Mapping[int, tuple[Row, ...]]] = {2: ROWS[:-1]}
#: The parts of the region that belongs to the device alone.
DEVICE_PARTS: Final = ("pci_config", "engines", "registers", "unassigned", "ggtt", "bounce")
#: The regions whose words requests change through the journal. A successor lets it change nothing else.
JOURNALED: Final = ("spaces", "engines", "registers")


def size_of(version: int, capacities: Capacities) -> int:
    """Returns the bytes of a buffer of a version of :data:`ROWS_BEFORE`, with these capacities."""
    return sum(row.size(capacities) for row in ROWS_BEFORE[version])


def regions(rows: tuple[Row, ...], capacities: Capacities) -> dict[str, Region]:
    """Returns the regions of these rows by name, one after the other."""
    found, offset = {}, 0
    for row in rows:
        found[row.name] = Region(offset, row.size(capacities))
        offset = found[row.name].end
    return found


#: The parts of the device, from its beginning. They do not depend on capacities.
DEVICE: Final[Mapping[str, Region]] = regions(
    tuple(row for row in ROWS if row.name in DEVICE_PARTS), Capacities(frames=1, spaces=1)
)
DEVICE_SIZE: Final = DEVICE[DEVICE_PARTS[-1]].end


class Layout:
    """Where each region is in a buffer of these capacities."""

    def __init__(self, capacities: Capacities) -> None:
        self.capacities: Final = capacities

    @cached_property
    def regions(self) -> Mapping[str, Region]:
        """Every region by name, in order; and ``device``, which consists of those of :data:`DEVICE_PARTS`."""
        found = regions(ROWS, self.capacities)
        return {**found, "device": Region(found[DEVICE_PARTS[0]].offset, DEVICE_SIZE)}

    @property
    def size(self) -> int:
        """Bytes of the whole buffer."""
        return self.regions["device"].end

    def __getitem__(self, name: str) -> Region:
        return self.regions[name]

    def journaled(self) -> list[Region]:
        """The parts that requests change through the journal."""
        return [self.regions[name] for name in JOURNALED]

    def reserved(self) -> list[Region]:
        """The parts of a file whose memory must be reserved, in order; what is left out is never touched."""
        found: list[Region] = []
        for row in ROWS:
            region = self.regions[row.name]
            if not row.reserved:
                continue
            if found and found[-1].end == region.offset:
                found[-1] = Region(found[-1].offset, found[-1].size + region.size)
            else:
                found.append(region)
        return found
