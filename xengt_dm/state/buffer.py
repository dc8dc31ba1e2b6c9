"""An instance's state as views of a buffer. The buffer may be a mapped file, or a bytearray in a test."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from xengt_dm.errors import DataError
from xengt_dm.state.layout import MAGIC, ROWS_BEFORE, VERSION, WORD, Capacities, Layout, size_of
from xengt_dm.state.life import Life
from xengt_dm.units import PAGE_SIZE

#: The fields of :class:`Header`, each in a word or two; magic and version stay where they are in every version.
_HEADER: Final = struct.Struct("<QI4x4Q16sQ")
HEADER_SIZE: Final = _HEADER.size
_SERVER_WORD: Final = HEADER_SIZE // WORD - 1
#: In place of the id of a server: none yet.
NO_SERVER: Final = (1 << 64) - 1
#: In place of the domain's uuid: it is not known.
NO_UUID: Final = bytes(16)


class Header(NamedTuple):
    """The header of a state. ``server``: the id of the ioreq server whose state this is, or NO_SERVER."""

    magic: int
    version: int
    size: int
    frames: int
    spaces: int
    domid: int
    uuid: bytes
    server: int

    @property
    def capacities(self) -> Capacities:
        """What the sizes of the state's regions depend on."""
        return Capacities(self.frames, self.spaces)


def read_header(data: bytes | memoryview) -> Header:
    """Returns the header at the beginning of ``data``, which has a page at least.

    Raises DataError if it is not one of this version, or contradicts itself; the message says how.
    """
    header = read_any_header(data)
    if header.version != VERSION:
        raise DataError(f"a state of version {header.version}; this program has version {VERSION}")
    return header


def read_any_header(data: bytes | memoryview) -> Header:
    """As :func:`read_header`, for a header of this version or of one that can be converted."""
    header = Header(*_HEADER.unpack_from(data))
    if header.magic != MAGIC:
        raise DataError(f"no state: it begins with {header.magic:#x}, not with {MAGIC:#x}")
    if header.version != VERSION and header.version not in ROWS_BEFORE:
        raise DataError(f"a state of version {header.version}; this program has version {VERSION}")
    if not header.capacities.possible:
        raise DataError(f"a state for {header.frames} frames and {header.spaces} spaces, which no instance has")
    new = header.version == VERSION
    size = Layout(header.capacities).size if new else size_of(header.version, header.capacities)
    if header.size != size:
        raise DataError(f"a state of {header.size} bytes; one of these capacities has {size}")
    return header


class State:
    """A buffer with a valid header, in views.

    ``journal``, ``protected`` and ``device`` are bytes; ``ranges``, ``spaces`` and ``words``, which is the whole
    buffer, are words of 8 bytes. ``life`` has names for its words. Raises DataError if the buffer's header is not that
    of this layout, or if the buffer is too small for what it says; the message says how.
    """

    def __init__(self, memory: memoryview) -> None:
        """``memory``: writable bytes that :meth:`create` has prepared at some time."""
        _require_writable(memory, PAGE_SIZE)
        header = read_header(memory)
        if memory.nbytes < header.size:
            raise DataError(f"a state of {header.size} bytes, of which {memory.nbytes} are there")
        self.layout = layout = Layout(header.capacities)
        self.memory: memoryview = memory[: layout.size]
        self.words = self.memory.cast("Q")
        self.life = Life(layout["life"].of(self.memory))
        self.journal = layout["journal"].of(self.memory)
        self.ranges = layout["ranges"].of(self.memory).cast("Q")
        self.spaces = layout["spaces"].of(self.memory).cast("Q")
        self.protected = layout["protected"].of(self.memory)
        self.device = layout["device"].of(self.memory)

    @classmethod
    def create(
        cls,
        memory: memoryview,
        capacities: Capacities,
        *,
        domid: int = 0,
        uuid: bytes = NO_UUID,
        server: int = NO_SERVER,
    ) -> State:
        """Writes a header into ``memory``, and returns the state. After the header the caller must have left zeros, or
        what a state of an earlier version has there.

        The magic is written last, so an interrupted creation leaves no valid state. Raises ValueError if ``memory`` is
        too small.
        """
        size = Layout(capacities).size
        _require_writable(memory, size)
        _HEADER.pack_into(memory, 0, 0, VERSION, size, *capacities, domid, uuid, server)
        struct.pack_into("<Q", memory, 0, MAGIC)
        return cls(memory)

    @property
    def header(self) -> Header:
        """The header as it is now."""
        return Header(*_HEADER.unpack_from(self.memory))

    @property
    def server(self) -> int | None:
        """The id of the ioreq server that the state is about; None until :meth:`is_of`."""
        server = self.words[_SERVER_WORD]
        return None if server == NO_SERVER else server

    def is_of(self, server: int) -> None:
        """Writes the server's id to the state. From here on a successor that finds this server may use the state."""
        self.words[_SERVER_WORD] = server


def _require_writable(memory: memoryview, size: int) -> None:
    if memory.readonly or memory.nbytes < size:
        raise ValueError(f"a state needs {size} writable bytes")
