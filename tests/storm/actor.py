"""What a vCPU of the storm's guest does to memory: every kind of store, and what it should leave."""

from __future__ import annotations

import random

from tests.storm.history import History
from tests.storm.memory import Memory
from tests.storm.spaces import Space
from tests.storm.world import FRAMES, SHARED_LEAF, pool
from tests.support.tables import ENTRIES, FRAME, address, pte
from xengt_dm._embedded import lib

SIZES = (1, 2, 4, 8)


class Wrong(Exception):  # noqa: N818 - what the guest found
    """The guest found something else than it should."""


class Actor:
    """A vCPU, its frames, and what they should hold. Each method that does something draws what exactly."""

    def __init__(self, vcpu: History, seed: int, memory: Memory) -> None:
        self.vcpu = vcpu
        self._rng = random.Random(seed * 1000 + vcpu.index)
        #: RAM and plain registers of this vCPU, and the shared leaf.
        self.memory = memory
        #: Frames that no space has, and may hold anything.
        self.data = list(pool(vcpu.index))
        self.spaces: list[Space] = []

    # Where to

    @property
    def _leaves(self) -> list[int]:
        return [leaf for space in self.spaces for leaf in sorted(space.leaves)]

    def _any_bytes(self) -> set[int]:
        """The frames that may hold anything."""
        return {*self.data, *self._leaves}

    def _target(self) -> int:
        """A frame for anything, most often a leaf."""
        leaves = self._leaves
        if leaves and self._rng.random() < 0.85:
            return self._rng.choice(leaves)
        return self._rng.choice(self.data)

    def _at(self, gfn: int, size: int) -> int:
        """An address in a frame; now and then not aligned, and then over the frame's end if that may be."""
        if self._rng.random() < 0.8:
            return gfn * FRAME + self._rng.randrange(FRAME // size) * size
        over = size - 1 if gfn + 1 in self._any_bytes() else 0
        return gfn * FRAME + self._rng.randrange(FRAME - size + 1 + over)

    def _run(self, gfn: int, size: int, count: int) -> int:
        """Where a run of elements in a frame begins; over the frame's end now and then, if that may be."""
        bytes_ = size * count
        most = FRAME - bytes_
        if gfn + 1 in self._any_bytes() and self._rng.random() < 0.3:
            most = FRAME - size
        return gfn * FRAME + self._rng.randrange(max(most, 0) // size + 1) * size

    # Memory

    def _store(self) -> None:
        size = self._rng.choice(SIZES)
        at, value = self._at(self._target(), size), self._rng.getrandbits(8 * size)
        self.vcpu.store(at, size, value)
        self.memory.store(at, size, value)

    def _entry(self) -> None:
        """What a driver does most: some entries of a leaf, one after the other."""
        gfn, first = self._target(), self._rng.randrange(ENTRIES - 8)
        for slot in range(first, first + self._rng.randrange(1, 8)):
            entry = pte(self._rng.randrange(FRAMES), self._rng.choice((0x83, 0x3, 0x1, 0)))
            self.vcpu.store(address(gfn, slot), 8, entry)
            self.memory.store(address(gfn, slot), 8, entry)

    def _shared(self) -> None:
        """Half an entry of the shared leaf, whose other half is another vCPU's."""
        at = address(SHARED_LEAF, self._rng.randrange(ENTRIES)) + 4 * self.vcpu.index
        value = self._rng.getrandbits(32)
        self.vcpu.store(at, 4, value)
        self.memory.store(at, 4, value)

    def _vector(self) -> None:
        size = self._rng.choice((16, 32, 64))
        at, data = self._at(self._target(), size), self._rng.randbytes(size)
        self.vcpu.store_bytes(at, data)
        self.memory.write(at, data)

    def _modify(self) -> None:
        size = self._rng.choice(SIZES)
        at = self._target() * FRAME + self._rng.randrange(FRAME // size) * size
        old, value = self.memory.value(at, size), self._rng.getrandbits(8 * size)
        kind = self._rng.randrange(4)
        if kind == 0:
            self.vcpu.xchg(at, size, value)
        elif kind == 1:
            self.vcpu.cmpxchg(at, size, old, value)
        elif kind == 2:
            self.vcpu.modify(lib.XD_MODIFY_XOR, at, size, value)
            value ^= old
        else:
            self.vcpu.modify(lib.XD_MODIFY_ADD, at, size, value)
            value += old
        self.memory.store(at, size, value)

    def _rep_stos(self) -> None:
        size, count, down = self._rng.choice(SIZES), self._rng.randrange(2, 48), self._rng.random() < 0.3
        first, value = self._run(self._target(), size, count), self._rng.getrandbits(8 * size)
        at = first + (count - 1) * size if down else first
        self.vcpu.rep_stos(at, size, count, value, down)
        self.memory.rep_stos(at, size, count, value, down)

    def _rep_movs(self) -> None:
        """Between two frames, or within one; then often so that source and destination overlap."""
        size, count, down = self._rng.choice(SIZES), self._rng.randrange(2, 40), self._rng.random() < 0.4
        to = self._run(self._target(), size, count)
        if self._rng.random() < 0.5:
            source = to + self._rng.randrange(-12, 13) * size
            lowest, end = to // FRAME * FRAME, (to // FRAME + 1) * FRAME
            source = min(max(source, lowest), max(end - size * count, lowest))
            if source + size * count > end:  # it goes on in the next frame, which may hold anything, too
                source = to
        else:
            source = self._run(self._target(), size, count)
        last = (count - 1) * size if down else 0
        self._move(to + last, source + last, size, count, down)

    def _move(self, to: int, source: int, size: int, count: int, down: bool) -> None:
        self.vcpu.rep_movs(to, source, size, count, down)
        self.memory.rep_movs(to, source, size, count, down)

    def _balloon(self) -> None:
        """Give frames back, and have them again, zero."""
        first = self._rng.choice(self.data)
        there = set(self.data)
        count = 1
        while count < 6 and first + count in there:
            count += 1
        self.vcpu.remove(first, count)
        self.vcpu.add(first, count)
        for gfn in range(first, first + count):
            self.memory.frames[gfn][:] = bytes(FRAME)

    def _look(self) -> None:
        """Load something back."""
        size = self._rng.choice(SIZES)
        gfn = self._rng.choice([*pool(self.vcpu.index)])
        self._expect(gfn * FRAME + self._rng.randrange(FRAME // size) * size, size)

    def _expect(self, at: int, size: int) -> None:
        found, meant = self.vcpu.load(at, size), self.memory.value(at, size)
        if found != meant:
            raise self._wrong(at, f"{size} bytes at {at:#x} read {found:#x}, and {meant:#x} was stored")

    def _wrong(self, at: int, text: str) -> Wrong:
        return Wrong("\n".join([text, "what the vCPU did there:", *self.vcpu.of(at)]))
