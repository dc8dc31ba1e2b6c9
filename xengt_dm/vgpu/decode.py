"""Decodes what engines execute: rings, batches, and context images, which are programs as well. Pure: bytes come in.

What executing leaves, such as values of registers, is not known here, so nothing is evaluated: both outcomes of a
conditional command are followed, and a batch that has been decoded already is only named.

Bounds
------
Facts: what is decoded may be a hostile guest's, a hang's, or no commands at all. A batch can jump to any dword of
itself, so decoding each jump's target could take time that grows with the square of its size.

Decision: a listing ends after :attr:`Limits.dwords` dwords, whoever's they are, and follows at most
:attr:`Limits.jumps` jumps, no target twice. One command is held at a time, of at most 65,537 dwords.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from xengt_dm.units import PAGE_SIZE
from xengt_dm.vgpu.commands import ENGINES, Command, find, takes
from xengt_dm.vgpu.commands.command import ADDRESS_BITS

_DWORD: Final = 4
_ADDRESS_MASK: Final = (1 << ADDRESS_BITS) - 1
#: Batches called from the ring are of level 1, those called from them of level 2. There are no others.
_LAST_LEVEL: Final = 2
#: A branch that may not be taken is followed and then returned from; so many of them at once.
_MOST_NESTED: Final = 16


class Kind(enum.Enum):
    """What an item is decoded from."""

    RING = "ring"
    BATCH = "batch"
    IMAGE = "context image"


class Memory(Protocol):
    """What the GPU can read."""

    def read(self, ppgtt: bool, address: int, size: int) -> bytes:
        """Returns up to ``size`` bytes, a multiple of 4: those from ``address`` to the first that is not there."""
        ...


class Limits(NamedTuple):
    """How much is decoded at most."""

    dwords: int = 1 << 18
    jumps: int = 4096


DEFAULT: Final = Limits()


class Item(NamedTuple):
    """A command, or a run of plain MI_NOOP.

    ``dwords``: those that are there. ``size``: how many the command has. ``command``: None if it cannot be decoded.
    ``note``: what to know about it. ``problem``: why it cannot be executed; empty if it can.
    """

    kind: Kind
    level: int
    ppgtt: bool
    address: int
    dwords: Sequence[int]
    size: int = 1
    command: Command | None = None
    repeats: int = 1
    note: str = ""
    problem: str = ""


class Ring(NamedTuple):
    """A ring's bytes, and the part to decode: from ``head`` to before ``tail``, around the end if tail is not above.

    With ``tail`` equal to ``head``, that is nothing.
    """

    data: bytes
    address: int
    head: int
    tail: int


class Nothing:
    """A memory that has nothing, for who only decodes what he has in his hands."""

    def read(self, ppgtt: bool, address: int, size: int) -> bytes:
        return b""


def decode_ring(engine: str, ring: Ring, memory: Memory, limits: Limits = DEFAULT) -> Iterator[Item]:
    """Yields the commands of a ring, and those of the batches that they start."""
    return _Decoder(engine, memory, limits).run(_RingSource(ring))


def decode_batch(engine: str, memory: Memory, ppgtt: bool, address: int, limits: Limits = DEFAULT) -> Iterator[Item]:
    """Yields the commands of a batch of the first level, and those of the batches that it starts."""
    return _Decoder(engine, memory, limits).run(_Source(memory, ppgtt, address & _ADDRESS_MASK & ~3, 1))


def decode_image(engine: str, data: bytes, address: int) -> Iterator[Item]:
    """Yields the commands of a context image's page of registers, which a context switch executes and rewrites."""
    source = _Source(Flat(data, address), False, address, 0, Kind.IMAGE)
    return _Decoder(engine, Nothing(), Limits(len(data) // _DWORD, 0)).run(source)


class Flat:
    """Some bytes at an address, in both address spaces."""

    def __init__(self, data: bytes, address: int) -> None:
        self._data = data
        self._address = address

    def read(self, ppgtt: bool, address: int, size: int) -> bytes:
        start = address - self._address
        return self._data[start : start + size] if start >= 0 else b""


class _Source:
    """Where commands come from, dword by dword. Reads at most a page ahead of what is asked for."""

    def __init__(self, memory: Memory, ppgtt: bool, address: int, level: int, kind: Kind = Kind.BATCH) -> None:
        self._memory = memory
        #: What was read, and how much of that was decoded already.
        self._ahead = b""
        self._done = 0
        self.ppgtt = ppgtt
        self.address = address
        self.level = level
        self.kind = kind

    def peek(self, count: int) -> Sequence[int]:
        """Returns the next dwords, up to ``count``: fewer if the rest is not there."""
        missing = self._done + count * _DWORD - len(self._ahead)
        if missing > 0:
            self._ahead, self._done = self._ahead[self._done :], 0
            start = self.address + len(self._ahead)
            size = max(missing, PAGE_SIZE - start % PAGE_SIZE)
            self._ahead += self._memory.read(self.ppgtt, start, min(size, _ADDRESS_MASK + 1 - start))
        there = min(count, (len(self._ahead) - self._done) // _DWORD)
        return struct.unpack_from(f"<{there}I", self._ahead, self._done)

    def skip(self, count: int) -> None:
        """Goes on behind ``count`` dwords, all of which were looked at."""
        self._done += count * _DWORD
        self.address += count * _DWORD

    def plain_noops(self, most: int) -> int:
        """Returns how many of the next dwords are zero, up to ``most``, without looking further than a page."""
        if self.peek(1) != (0,):
            return 0
        there = self._ahead[self._done : self._done + most * _DWORD]
        return (len(there) - len(there.lstrip(b"\0"))) // _DWORD

    @property
    def ended(self) -> bool:
        """Whether there is nothing left, as it should be."""
        return False


class _RingSource(_Source):
    """The part of a ring that is to be decoded. A command may go on at the ring's beginning."""

    def __init__(self, ring: Ring) -> None:
        size = len(ring.data) // _DWORD * _DWORD
        head, tail = (min(max(each, 0), size) // _DWORD * _DWORD for each in (ring.head, ring.tail))
        data = ring.data[head:tail] if tail >= head else ring.data[head:size] + ring.data[:tail]
        super().__init__(Nothing(), False, ring.address + head, 0, Kind.RING)
        self._ahead = data
        self._start, self._end = ring.address, ring.address + size

    def skip(self, count: int) -> None:
        super().skip(count)
        if self.address >= self._end:
            self.address -= self._end - self._start

    @property
    def ended(self) -> bool:
        return self._done >= len(self._ahead)


class _Decoder:
    """Follows commands through the batches that they start."""

    def __init__(self, engine: str, memory: Memory, limits: Limits) -> None:
        if engine not in ENGINES:
            raise ValueError(f"no engine {engine}")
        self._engine = engine
        self._memory = memory
        self._limits = limits
        self._left = limits.dwords
        self._targets: set[tuple[bool, int]] = set()

    def run(self, first: _Source) -> Iterator[Item]:
        self._targets.add((first.ppgtt, first.address))
        sources = [first]
        while sources:
            source = sources[-1]
            if source.ended:
                sources.pop()
                continue
            if self._left <= 0:
                yield self._item(source, (), problem=f"not decoded: the limit of {self._limits.dwords} dwords")
                return
            yield self._next(sources, source)

    def _next(self, sources: list[_Source], source: _Source) -> Item:
        """Decodes one command, and changes ``sources`` to where the next one is."""
        if zeros := source.plain_noops(self._left):
            return self._noops(source, zeros)
        begin = source.peek(1)
        if not begin:
            sources.pop()
            return self._item(source, (), problem="nothing is there")
        command = find(self._engine, begin[0])
        if command is None:
            sources.pop()
            self._left -= 1
            return self._item(source, begin, problem=_no_client(self._engine, begin[0] >> 29))
        count = command.length.of(begin[0])
        self._left -= count
        dwords = source.peek(count)
        item = self._item(source, dwords, count, command)
        if len(dwords) < count:
            sources.pop()
            return item._replace(problem=f"ends after {len(dwords)} of {count} dwords")
        source.skip(count)
        if count < command.least:
            return item._replace(problem=f"has {count} dwords and needs {command.least}")
        if command.does in ("batch_buffer_start", "batch_buffer_end"):
            return item._replace(note=self._jump(sources, source, item))
        return item._replace(note=_note(self._engine, command, source))

    def _noops(self, source: _Source, zeros: int) -> Item:
        item = self._item(source, (0,), 1, find(self._engine, 0))._replace(repeats=zeros)
        source.skip(zeros)
        self._left -= zeros
        return item

    def _jump(self, sources: list[_Source], source: _Source, item: Item) -> str:
        """Ends a batch, or starts the next. Returns what is to be said about it."""
        header = item.dwords[0]
        if source.kind is Kind.IMAGE:
            sources.pop()
            return "the program ends here" if len(item.dwords) == 1 else "no context image has it"
        if len(item.dwords) == 1:
            if source.kind is Kind.RING:
                return "in a ring it does nothing"
            sources.pop()
            return ""
        call = bool(header >> 22 & 1) and source.level < _LAST_LEVEL
        level = source.level + 1 if source.kind is Kind.RING or call else source.level
        perhaps = bool(header >> 15 & 1)
        if level == source.level and not perhaps:
            sources.pop()
        target = (bool(header >> 8 & 1) or source.ppgtt, (item.dwords[1] | item.dwords[2] << 32) & _ADDRESS_MASK & ~3)
        if target in self._targets:
            return "goes back to what is above"
        if len(self._targets) > self._limits.jumps or len(sources) > _MOST_NESTED:
            return "not followed: too many jumps"
        self._targets.add(target)
        sources.append(_Source(self._memory, *target, level))
        return ""

    def _item(
        self, source: _Source, dwords: Sequence[int], count: int = 1, command: Command | None = None, problem: str = ""
    ) -> Item:
        where = (source.kind, source.level, source.ppgtt, source.address)
        return Item(*where, dwords, count, command, problem=problem)


def _no_client(engine: str, client: int) -> str:
    known = ", ".join(str(each) for each in range(8) if takes(engine, each))
    return f"not decodable: a header of client {client}, and {engine} has clients {known}"


def _note(engine: str, command: Command, source: _Source) -> str:
    if engine not in command.engines:
        return f"does nothing on {engine}"
    if command.privileged and source.kind is Kind.BATCH and source.ppgtt:
        return "does nothing without privilege"
    return ""
