"""Accesses to BAR0: what the rows of the register tables make of reads and writes.

Theory of operation
-------------------
BAR0 is memory in the state buffer, but for a *hole*: bytes there read as zero, what is written to them is dropped, and
their memory is never touched. Bytes that belong to no row, or to a row without special fields, read as stored; an
access to these is one load or one store. The other rows are in two tables by dword, one for reads and one for writes,
so that two or three look-ups tell whether an access touches any.

An access has 1, 2, 4 or 8 bytes and any alignment. It may touch a part of a row, or several rows; each row takes effect
on its own bytes only. The bytes that a write leaves are put together first and then stored in one go; of an aligned
access a process that is killed leaves either the old bytes or the new ones:

* a bit in ``writable`` takes the written value;
* a bit in ``write_one_to_clear`` becomes 0 if a 1 is written to it;
* every other bit keeps its value.

In a ``masked`` register bit n of 0 to 15 takes the written value only if bit n + 16 is written as 1 in the same access.
So a write that reaches only one of the two bytes that hold bits n and n + 16 does not change bit n.

Rows with ``on_write`` come back from :meth:`Mmio.write` as (register, old value, new value), in order of their offsets,
after everything is stored; rows with ``on_read`` come back from :meth:`Mmio.refreshes`. The caller looks up their
behaviours by name and calls them. So the rows are data only, and this module calls no other.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from xengt_dm.vgpu.plain import PlainRegisters
from xengt_dm.vgpu.registers.register import Register

_SIZES: Final = (1, 2, 4, 8)

#: Rows by the dwords that they lie in.
_Table = dict[int, tuple[Register, ...]]


class Written(NamedTuple):
    """A write to a register with ``on_write``: its whole value before and after."""

    register: Register
    old: int
    new: int


class Mmio:
    """The registers of a BAR, stored in ``memory``.

    ``on_read`` and ``on_write`` are the names of the behaviours that there are. Raises ValueError if a row makes no
    sense, overlaps another or the hole, or names a behaviour that there is not.
    """

    def __init__(
        self,
        memory: memoryview,
        rows: Iterable[Register],
        on_read: Container[str],
        on_write: Container[str],
        hole: range = range(0),
    ) -> None:
        """``hole``: the offsets of no memory; its bounds are multiples of 8."""
        self._hole_start: Final = hole.start
        self._hole_end: Final = hole.stop
        #: By offset.
        self.rows: Final = tuple(sorted(rows, key=lambda row: row.offset))
        for row in self.rows:
            if problem := _problem(row, memory.nbytes, hole, on_read, on_write):
                raise ValueError(f"register {row.name} at {row.offset:#x}: {problem}")
        for row, after in zip(self.rows, self.rows[1:], strict=False):
            if row.end > after.offset:
                raise ValueError(f"registers {row.name} and {after.name} overlap")
        if len({row.name for row in self.rows}) < len(self.rows):
            raise ValueError("two registers have one name")
        self._memory: Final = memory
        #: By size, for aligned accesses. They have the byte order of the host, which is little-endian as the guest is.
        self._views: Final = {1: memory.cast("B"), 2: memory.cast("H"), 4: memory.cast("I"), 8: memory.cast("Q")}
        self._reads: Final = _table(row for row in self.rows if row.on_read)
        self._writes: Final = _table(row for row in self.rows if not _is_plain(row))
        #: The registers for C.
        self.plain: Final = PlainRegisters(memory, self._reads, self._writes, hole)

    def reset(self, host_values: Mapping[str, int]) -> None:
        """Give every register its reset value; bytes of no row stay.

        ``host_values`` has the values that rows name. Raises KeyError if one is missing.
        """
        for row in self.rows:
            value = host_values[row.reset] if isinstance(row.reset, str) else row.reset
            self.store(row.offset, row.size, value)

    def image(self, host_values: Mapping[str, int], end: int) -> memoryview:
        """Returns what the memory below ``end`` is after a reset of zeros."""
        image = bytearray(end)
        for row in self.rows:
            if row.end <= end:
                value = host_values[row.reset] if isinstance(row.reset, str) else row.reset
                image[row.offset : row.end] = value.to_bytes(row.size, "little")
        return memoryview(bytes(image))

    def refreshes(self, offset: int, size: int) -> Sequence[Register]:
        """The registers whose values must be brought up to date before this read."""
        reads = self._reads
        return _touched(reads, offset, size) if reads else ()

    def load(self, offset: int, size: int) -> int:
        """What is stored."""
        if offset < self._hole_end and offset + size > self._hole_start:
            kept = self._outside_hole(offset, size)
            return int.from_bytes(self._memory[kept.start : kept.stop], "little") << 8 * (kept.start - offset)
        if offset & size - 1:
            return int.from_bytes(self._memory[offset : offset + size], "little")
        return self._views[size][offset // size]

    def store(self, offset: int, size: int, value: int) -> None:
        """Store ``value``, whatever the rows say. It must fit ``size``."""
        if offset < self._hole_end and offset + size > self._hole_start:
            kept = self._outside_hole(offset, size)
            data = value.to_bytes(size, "little")
            self._memory[kept.start : kept.stop] = data[kept.start - offset : kept.stop - offset]
        elif offset & size - 1:
            self._memory[offset : offset + size] = value.to_bytes(size, "little")
        else:
            self._views[size][offset // size] = value

    def fill(self, offset: int, data: memoryview) -> None:
        """Store all of ``data``, whatever the rows say. It must not touch the hole."""
        self._memory[offset : offset + data.nbytes] = data

    def _outside_hole(self, offset: int, size: int) -> range:
        """The offsets of an access that touches the hole, without those in it. The hole is larger than an access."""
        if offset < self._hole_start:
            return range(offset, self._hole_start)
        return range(self._hole_end, max(offset + size, self._hole_end))

    def write(self, offset: int, size: int, value: int) -> Sequence[Written]:
        """A write by the guest: store what the rows let through of ``value``, which must fit ``size``."""
        writes = self._writes
        first, last = offset >> 2, offset + size - 1 >> 2
        if first in writes or last in writes or (last - first > 1 and first + 1 in writes):
            return self._write_to_rows(offset, size, value)
        self.store(offset, size, value)
        return ()

    def _write_to_rows(self, offset: int, size: int, value: int) -> Sequence[Written]:
        rows = _touched(self._writes, offset, size)
        heard = [
            row
            for row in rows
            if row.on_write and (not row.whole or (offset <= row.offset and row.end <= offset + size))
        ]
        before = [self.load(row.offset, row.size) for row in heard]
        stored = self.load(offset, size)
        for row in rows:
            value = _let_through(row, offset, size, stored, value)
        self.store(offset, size, value)
        return [Written(row, old, self.load(row.offset, row.size)) for row, old in zip(heard, before, strict=True)]


def _let_through(row: Register, offset: int, size: int, stored: int, value: int) -> int:
    """``value``, written to ``size`` bytes at ``offset``, with the bits of ``row`` as they are after the write."""
    shift = 8 * (row.offset - offset)
    touched = _shifted((1 << 8 * size) - 1, -shift) & row.bits
    written = _shifted(value, -shift) & touched
    old = _shifted(stored, -shift) & touched
    writable = row.writable & touched
    if row.masked:
        writable &= written >> 16
    new = (old & ~writable | written & writable) & ~(written & row.write_one_to_clear)
    return value & ~_shifted(touched, shift) | _shifted(new, shift)


def _shifted(value: int, by: int) -> int:
    """``value`` shifted to the left, or to the right if ``by`` is negative."""
    return value << by if by >= 0 else value >> -by


def _is_plain(row: Register) -> bool:
    """Whether the row reads as stored and nothing follows a write."""
    writes_all = row.writable & row.bits == row.bits and not row.masked
    return writes_all and not row.on_write


def _table(rows: Iterable[Register]) -> _Table:
    table: _Table = {}
    for row in rows:
        for dword in range(row.offset >> 2, (row.end - 1 >> 2) + 1):
            table[dword] = (*table.get(dword, ()), row)
    return table


def _touched(table: _Table, offset: int, size: int) -> Sequence[Register]:
    """The rows that share a byte with the access, in order of their offsets."""
    end = offset + size
    found = [row for dword in range(offset >> 2, (end - 1 >> 2) + 1) for row in table.get(dword, ())]
    return [row for row in {row.offset: row for row in found}.values() if row.offset < end and offset < row.end]


def _problem(row: Register, limit: int, hole: range, on_read: Container[str], on_write: Container[str]) -> str | None:
    """What is wrong with a row by itself."""
    checks = (
        (row.size not in _SIZES, "its size is none of 1, 2, 4 and 8"),
        (row.offset % max(row.size, 1) != 0, "it is not aligned to its size"),
        (not 0 <= row.offset <= limit - row.size, "it is outside of the BAR"),
        (row.offset < hole.stop and row.end > hole.start, "it is in the hole"),
        (not row.source, "it has no source"),
        (isinstance(row.reset, int) and row.reset & ~row.bits != 0, "its reset value does not fit"),
        (row.writable & row.write_one_to_clear & row.bits != 0, "a bit cannot be both writable and write-one-to-clear"),
        (row.write_one_to_clear & ~row.bits != 0, "write_one_to_clear does not fit"),
        (row.masked and (row.size != 4 or row.write_one_to_clear != 0), "only plain bits of 4 bytes can be masked"),
        (row.masked and isinstance(row.reset, int) and row.reset >> 16 != 0, "bits 31:16 of a masked one read as zero"),
        (row.on_read != "" and row.on_read not in on_read, f"there is no behaviour {row.on_read!r} on read"),
        (row.on_write != "" and row.on_write not in on_write, f"there is no behaviour {row.on_write!r} on write"),
        (row.whole and not row.on_write, "nothing follows a whole write"),
    )
    return next((problem for wrong, problem in checks if wrong), None)
