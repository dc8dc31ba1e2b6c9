"""One vCPU of the storm's guest: a driver that draws what it does next, and knows what it should find."""

from __future__ import annotations

from collections.abc import Callable

from tests.storm.actor import SIZES, Actor
from tests.storm.history import History
from tests.storm.memory import Memory
from tests.storm.spaces import Announcements, Space
from tests.storm.world import CLEARED, CLEARED_BITS, MASKED, PLAIN_FRAMES
from tests.support.tables import ENTRIES, FRAME, address, pte
from xengt_dm.hypervisor.embedded import Vcpu
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.vgpu import registers as reg

_CREATES = {4: reg.Notification.PPGTT_L4_CREATE, 3: reg.Notification.PPGTT_L3_CREATE}
_DESTROYS = {4: reg.Notification.PPGTT_L4_DESTROY, 3: reg.Notification.PPGTT_L3_DESTROY}


class Driver(Actor):
    """The driver on one vCPU. Its frames are its own, but for the shared leaf, of which it has some entries' halves."""

    MOST_SPACES = 4
    MOST_REFS = 3
    LEAST_DATA = 60

    def __init__(self, vcpu: History, seed: int, announcements: Announcements, memory: Memory, forgetful: bool) -> None:
        super().__init__(vcpu, seed, memory)
        self._announcements = announcements
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
        gfn, size = self._plain(), self._rng.choice(SIZES)
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
            text = f"the register at {offset:#x} reads {found:#x}, and should be {rows[offset]:#x}"
            raise self._wrong(DEFAULT_BAR0 + offset, text)

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
                found, meant = vcpu.load(at, 8), self.memory.value(at, 8)
                if found != meant:
                    wrong += [f"register {at - DEFAULT_BAR0:#x}: {found:#x}, not {meant:#x}", *self.vcpu.of(at)]
        for rows in (self.masked, self.cleared):
            for offset, meant in rows.items():
                if (found := vcpu.load(DEFAULT_BAR0 + offset, 4)) != meant:
                    wrong.append(f"register {offset:#x}: {found:#x}, not {meant:#x}")
        return wrong
