"""One vCPU of the storm's guest: a driver that draws what it does next, and knows what it should find."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.storm.memory import Memory
from tests.storm.world import (
    CLEARED,
    CLEARED_BITS,
    FRAMES,
    MASKED,
    PLAIN_FRAMES,
    SHARED_LEAF,
    pool,
)
from tests.support.tables import ENTRIES, FRAME, address, pte
from xengt_dm._embedded import lib
from xengt_dm.hypervisor.embedded import Vcpu
from xengt_dm.instance import DEFAULT_BAR0
from xengt_dm.vgpu import registers as reg

_SIZES = (1, 2, 4, 8)
_CREATES = {4: reg.Notification.PPGTT_L4_CREATE, 3: reg.Notification.PPGTT_L3_CREATE}
_DESTROYS = {4: reg.Notification.PPGTT_L4_DESTROY, 3: reg.Notification.PPGTT_L3_DESTROY}


class Wrong(Exception):  # noqa: N818 - what the guest found
    """The guest found something else than it should."""


class Announcements:
    """The registers by which spaces are announced, which all vCPUs share, and what they should hold."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pdps = [0] * reg.PDP_COUNT
        self.notified = 0

    def announce(self, vcpu: Vcpu, roots: list[int], notification: reg.Notification, halves: bool) -> None:
        with self.lock:
            for n, root in enumerate(roots):
                gpa, at = root * FRAME, DEFAULT_BAR0 + reg.PDP0 + 8 * n
                if halves:
                    vcpu.mmio_write(at, 4, gpa & 0xFFFFFFFF)
                    vcpu.mmio_write(at + 4, 4, gpa >> 32)
                else:
                    vcpu.mmio_write(at, 8, gpa)
                self.pdps[n] = gpa
            vcpu.mmio_write(DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, int(notification))
            self.notified = int(notification)


@dataclass
class Space:
    """An address space: its mode, 4 or 3; its roots; its directories of leaves; how often it is announced."""

    mode: int
    roots: list[int]
    #: Directories of level 2. Those of an L3 space are its roots.
    directories: list[int]
    #: Of an L4 space: the only table of level 3.
    level3: int | None = None
    refs: int = 0
    leaves: set[int] = field(default_factory=set)

    @property
    def tables(self) -> set[int]:
        above = set() if self.level3 is None else {self.level3}
        return {*self.roots, *self.directories, *self.leaves} | above


class Driver:
    """The driver on one vCPU. Its frames are its own, but for the shared leaf, of which it has some entries' halves."""

    MOST_SPACES = 4
    MOST_REFS = 3
    LEAST_DATA = 60

    def __init__(self, vcpu: Vcpu, seed: int, announcements: Announcements, memory: Memory, forgetful: bool) -> None:
        self.vcpu = vcpu
        self._rng = random.Random(seed * 1000 + vcpu.index)
        self._announcements = announcements
        #: RAM and plain registers of this vCPU, and the shared leaf.
        self.memory = memory
        self.data = list(pool(vcpu.index))
        self.spaces: list[Space] = []
        self.masked = dict.fromkeys(MASKED[vcpu.index], 0)
        self.cleared = dict.fromkeys(CLEARED[vcpu.index], CLEARED_BITS)
        #: What the vCPU does now, for whoever wonders why it does not go on.
        self.doing = "nothing yet"
        #: Whether the device may forget what is written to it. Then nothing is read from it.
        self._forgetful = forgetful
        #: Whether it leaves the device alone.
        self.memory_only = False
        self._acts: dict[Callable[[], None], int] = {
            self._store: 24,
            self._entry: 12,
            self._shared: 6,
            self._vector: 4,
            self._modify: 6,
            self._rep_stos: 6,
            self._rep_movs: 8,
            self._link_leaf: 8,
            self._unlink_leaf: 4,
            self._fill_directory: 1,
            self._move_directory: 1,
            self._balloon: 3,
            self._look: 6,
        }
        self._device_acts: dict[Callable[[], None], int] = {
            **self._acts,
            self._new_space: 5,
            self._announce_again: 4,
            self._destroy: 5,
            self._add_directory: 2,
            self._remove_directory: 2,
            self._register: 10,
            self._masked: 6,
            self._clear: 2,
            self._device_to_memory: 0 if forgetful else 4,
            self._memory_to_device: 4,
        }

    def act(self) -> None:
        """Do the next thing. Raises Wrong."""
        acts = self._acts if self.memory_only else self._device_acts
        act = self._rng.choices([*acts], [*acts.values()])[0]
        self.doing = act.__name__.strip("_")
        act()

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
        size = self._rng.choice(_SIZES)
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
        size = self._rng.choice(_SIZES)
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
        size, count, down = self._rng.choice(_SIZES), self._rng.randrange(2, 48), self._rng.random() < 0.3
        first, value = self._run(self._target(), size, count), self._rng.getrandbits(8 * size)
        at = first + (count - 1) * size if down else first
        self.vcpu.rep_stos(at, size, count, value, down)
        self.memory.rep_stos(at, size, count, value, down)

    def _rep_movs(self) -> None:
        """Between two frames, or within one; then often so that source and destination overlap."""
        size, count, down = self._rng.choice(_SIZES), self._rng.randrange(2, 40), self._rng.random() < 0.4
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
        size = self._rng.choice(_SIZES)
        gfn = self._rng.choice([*pool(self.vcpu.index)])
        self._expect(gfn * FRAME + self._rng.randrange(FRAME // size) * size, size)

    def _expect(self, at: int, size: int) -> None:
        found, meant = self.vcpu.load(at, size), self.memory.value(at, size)
        if found != meant:
            raise Wrong(f"{size} bytes at {at:#x} read {found:#x}, and {meant:#x} was stored")

    # Tables

    def _new_table(self) -> int:
        """A frame of data becomes a directory without children."""
        gfn = self.data.pop(self._rng.randrange(len(self.data)))
        self.vcpu.fill(gfn * FRAME, ENTRIES, 0)
        self.memory.frames[gfn][:] = bytes(FRAME)
        return gfn

    def _set(self, gfn: int, slot: int, entry: int) -> None:
        """One store to a directory: whole, or its low half, because the high one is always 0."""
        kind = self._rng.random()
        if kind < 0.8:
            self.vcpu.store(address(gfn, slot), 8, entry)
        elif kind < 0.9:
            self.vcpu.store(address(gfn, slot), 4, entry)
        else:
            self.vcpu.cmpxchg(address(gfn, slot), 8, self.memory.value(address(gfn, slot), 8), entry)
        self.memory.store(address(gfn, slot), 8, entry)

    def _absent(self) -> int:
        return self._rng.choice((0, self._rng.getrandbits(30) << 1))

    def _directory(self) -> tuple[Space, int] | None:
        spaces = [space for space in self.spaces if space.directories]
        if not spaces:
            return None
        space = self._rng.choice(spaces)
        return space, self._rng.choice(space.directories)

    def _recount(self, space: Space) -> None:
        """Which leaves the directories of a space still link; the others are data now."""
        linked = {entry // FRAME for gfn in space.directories for entry in self.memory.entries(gfn) if entry & 1}
        self.data += sorted(space.leaves - linked)
        space.leaves &= linked

    def _link_leaf(self) -> None:
        chosen = self._directory()
        if chosen is None or len(self.data) < self.LEAST_DATA:
            return
        space, directory = chosen
        leaf = self.data.pop(self._rng.randrange(len(self.data)))
        self._set(directory, self._rng.randrange(ENTRIES), pte(leaf))
        space.leaves.add(leaf)
        self._recount(space)

    def _unlink_leaf(self) -> None:
        chosen = self._directory()
        if chosen is None:
            return
        space, directory = chosen
        slots = [slot for slot, entry in enumerate(self.memory.entries(directory)) if entry & 1]
        if slots:
            self._set(directory, self._rng.choice(slots), self._absent())
            self._recount(space)

    def _fill_directory(self) -> None:
        """Unlink many leaves with one instruction."""
        chosen = self._directory()
        if chosen is None:
            return
        space, directory = chosen
        first, count, entry = self._rng.randrange(ENTRIES - 128), self._rng.randrange(2, 128), self._absent()
        self.vcpu.rep_stos(address(directory, first), 8, count, entry)
        self.memory.rep_stos(address(directory, first), 8, count, entry, False)
        self._recount(space)

    def _move_directory(self) -> None:
        """Entries of a directory to other entries of it: leaves are linked twice, and others not any more."""
        chosen = self._directory()
        if chosen is None:
            return
        space, directory = chosen
        count = self._rng.randrange(2, 64)
        first = self._rng.randrange(64, ENTRIES - 128)
        to = first + self._rng.randrange(-64, 64)
        down = self._rng.random() < 0.5
        last = count - 1 if down else 0
        self._move(address(directory, to + last), address(directory, first + last), 8, count, down)
        self._recount(space)

    def _add_directory(self) -> None:
        """Link a directory that has leaves already, with one store: a job of many tables."""
        spaces = [space for space in self.spaces if space.level3 is not None and len(space.directories) < 3]
        if not spaces or len(self.data) < self.LEAST_DATA:
            return
        space = self._rng.choice(spaces)
        assert space.level3 is not None
        directory = self._new_table()
        for _ in range(self._rng.randrange(1, 8)):
            leaf = self.data.pop(self._rng.randrange(len(self.data)))
            self._set(directory, self._rng.randrange(ENTRIES), pte(leaf))
            space.leaves.add(leaf)
        slot = self._rng.choice([n for n, entry in enumerate(self.memory.entries(space.level3)) if not entry & 1])
        self._set(space.level3, slot, pte(directory))
        space.directories.append(directory)
        self._recount(space)

    def _remove_directory(self) -> None:
        """Unlink a directory with one store; its frame and its leaves' are used for something else then."""
        spaces = [space for space in self.spaces if space.level3 is not None and space.directories]
        if not spaces:
            return
        space = self._rng.choice(spaces)
        assert space.level3 is not None
        directory = self._rng.choice(space.directories)
        slot = list(self.memory.entries(space.level3)).index(pte(directory))
        self._set(space.level3, slot, self._absent())
        space.directories.remove(directory)
        self.data.append(directory)
        self._recount(space)

    # Spaces

    def _new_space(self) -> None:
        if len(self.spaces) >= self.MOST_SPACES or len(self.data) < self.LEAST_DATA:
            return
        if self._rng.random() < 0.7:
            root, level3, directory = self._new_table(), self._new_table(), self._new_table()
            self._set(level3, self._rng.randrange(ENTRIES), pte(directory))
            self._set(root, self._rng.randrange(ENTRIES), pte(level3))
            space = Space(4, [root], [directory], level3)
        else:
            roots = [self._new_table() for _ in range(reg.PDP_COUNT)]
            space = Space(3, roots, [*roots])
        self.spaces.append(space)
        self._announce(space, 1)

    def _announce(self, space: Space, by: int) -> None:
        kinds = _CREATES if by > 0 else _DESTROYS
        self._announcements.announce(self.vcpu, space.roots, kinds[space.mode], self._rng.random() < 0.5)
        space.refs += by

    def _announce_again(self) -> None:
        spaces = [space for space in self.spaces if space.refs < self.MOST_REFS]
        if spaces:
            self._announce(self._rng.choice(spaces), 1)

    def _destroy(self) -> None:
        """Take an announcement back; after the last one the frames are used for something else."""
        if not self.spaces:
            return
        space = self._rng.choice(self.spaces)
        self._announce(space, -1)
        if not space.refs:
            self.spaces.remove(space)
            self.data += sorted(space.tables)

    # The device

    def _plain(self) -> int:
        return self._rng.choice(PLAIN_FRAMES[self.vcpu.index])

    def _register(self) -> None:
        """A store to plain registers, by an instruction of any kind, and a look at others of them."""
        gfn, size = self._plain(), self._rng.choice(_SIZES)
        at = gfn * FRAME + self._rng.randrange(FRAME // size) * size
        if self._rng.random() < 0.7:
            value = self._rng.getrandbits(8 * size)
            self.vcpu.mmio_write(at, size, value)
            self.memory.store(at, size, value)
        else:
            count, value = self._rng.randrange(2, 64), self._rng.getrandbits(8 * size)
            at = gfn * FRAME + self._rng.randrange((FRAME - count * size) // size + 1) * size
            self.vcpu.rep_stos(at, size, count, value)
            self.memory.rep_stos(at, size, count, value, False)
        if not self._forgetful:
            self._expect(gfn * FRAME + self._rng.randrange(FRAME // size) * size, size)
            self._expect(at, size)

    def _masked(self) -> None:
        offset = self._rng.choice([*self.masked])
        value = self._rng.getrandbits(32)
        self.vcpu.mmio_write(DEFAULT_BAR0 + offset, 4, value)
        mask = value >> 16
        self.masked[offset] = self.masked[offset] & ~mask | value & mask
        self._check_row(self.masked, self._rng.choice([*self.masked]))

    def _clear(self) -> None:
        offset = self._rng.choice([*self.cleared])
        value = self._rng.getrandbits(16) << 16 | 1 << self._rng.randrange(16)
        self.vcpu.mmio_write(DEFAULT_BAR0 + offset, 4, value)
        self.cleared[offset] = value & 0xFFFF0000 | self.cleared[offset] & ~value & CLEARED_BITS
        self._check_row(self.cleared, self._rng.choice([*self.cleared]))

    def _check_row(self, rows: dict[int, int], offset: int) -> None:
        found = self.vcpu.mmio_read(DEFAULT_BAR0 + offset, 4)
        if found != rows[offset] and not self._forgetful:
            raise Wrong(f"the register at {offset:#x} reads {found:#x}, and should be {rows[offset]:#x}")

    def _device_to_memory(self) -> None:
        """``rep movs`` from registers to a page that traps, most often: a request with a pointer."""
        size, count, down = self._rng.choice((4, 8, 4, 1)), self._rng.randrange(2, 64), self._rng.random() < 0.3
        size = 4 if size == 8 else size
        last = (count - 1) * size if down else 0
        source = self._plain() * FRAME + self._rng.randrange(FRAME // size - count + 1) * size
        self._move(self._run(self._target(), size, count) + last, source + last, size, count, down)

    def _memory_to_device(self) -> None:
        size, count, down = self._rng.choice((4, 1)), self._rng.randrange(2, 64), self._rng.random() < 0.3
        last = (count - 1) * size if down else 0
        to = self._plain() * FRAME + self._rng.randrange(FRAME // size - count + 1) * size
        self._move(to + last, self._run(self._target(), size, count) + last, size, count, down)

    # Checks while the vCPU rests

    def check_registers(self, vcpu: Vcpu) -> list[str]:
        """What of the registers is not what was written last. ``vcpu``: this one, for another thread."""
        wrong = []
        for gfn in PLAIN_FRAMES[self.vcpu.index]:
            for at in range(gfn * FRAME, (gfn + 1) * FRAME, 8):
                if (found := vcpu.load(at, 8)) != self.memory.value(at, 8):
                    wrong.append(f"register {at - DEFAULT_BAR0:#x}: {found:#x}, not {self.memory.value(at, 8):#x}")
        for rows in (self.masked, self.cleared):
            for offset, meant in rows.items():
                if (found := vcpu.load(DEFAULT_BAR0 + offset, 4)) != meant:
                    wrong.append(f"register {offset:#x}: {found:#x}, not {meant:#x}")
        return wrong
