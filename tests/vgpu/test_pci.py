"""The PCI function: its configuration space, where its BARs are, and how it interrupts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pci_probe import MASTER, MEMORY, FoundBar, hvmloader, linux_msi, linux_sizes
from xengt_dm.units import sbdf
from xengt_dm.vgpu.pci import CONFIG_SIZE, ConfigSpace, Function, InterruptSource, rows

MIB = 1 << 20
COMMAND, STATUS = 0x04, 0x06
LOW, HIGH = 0xF0000000, 0xE1_F000_0000
MESSAGE = (0x12_FEE3_7000, 0x4700)


class World:
    """A function, and what it asks of the outside."""

    def __init__(self, aperture: int = 16 * MIB, memory: bytearray | None = None) -> None:
        self.memory = memory or bytearray(4096)
        self.places: dict[int, int | None] = {}
        self.moves: list[tuple[int, int | None]] = []
        self.messages: list[tuple[int, int]] = []
        self.lines: list[bool] = []
        self.config = ConfigSpace(memoryview(self.memory), aperture)
        if memory is None:
            self.config.reset()
        self.source = InterruptSource(self.config, self)
        self.function = Function(self.config, self, self.source)
        self.sizes = {0: 16 * MIB, 2: aperture}

    def read(self, register: int, size: int) -> int:
        return self.function.read(register, size)

    def write(self, register: int, size: int, value: int) -> None:
        self.function.write(register, size, value)

    def place(self, bar: int, address: int | None) -> None:
        self.moves.append((bar, address))
        self.places[bar] = address
        placed = [(at, at + self.sizes[each]) for each, at in self.places.items() if at is not None]
        assert all(a[1] <= b[0] or b[1] <= a[0] for a, b in itertools.combinations(placed, 2)), "BARs overlap"

    def inject_msi(self, address: int, data: int) -> bool:
        self.messages.append((address, data))
        return True

    def set_intx(self, function: int, pin: int, asserted: bool) -> None:
        assert (function, pin) == (sbdf(0, 2, 0), 0)
        if asserted != (self.lines[-1] if self.lines else False):  # as Xen, which has a bit for each line
            self.lines.append(asserted)


@pytest.fixture
def world() -> World:
    return World()


def found(aperture: int = 16 * MIB) -> list[FoundBar]:
    return [FoundBar(0x10, 16 * MIB, True), FoundBar(0x18, aperture, True)]


# What is there


def test_identity(world: World) -> None:
    """As drivers match it: i915 by vendor, device, function 0 and revision; Linux by class."""
    assert world.read(0x00, 4) == 0x19128086
    assert world.read(0x08, 4) == 0x03000007
    assert world.read(0x0E, 1) == 0
    assert world.read(0x2C, 2) == 0x8086
    assert world.read(0x3D, 1) == 1


def test_what_i915_reads(world: World) -> None:
    assert world.read(0x50, 2) >> 6 & 3 == 1, "GGMS: 2 MiB of entries, 1 GiB of graphics memory"
    assert world.read(0x50, 2) >> 8 == 0, "no stolen memory"
    assert world.read(0x5C, 4) == 0
    assert world.read(0xFC, 4) == 0


def test_what_no_row_has_is_zero_and_stays_so(world: World) -> None:
    known = {at for row in rows(16 * MIB) for at in range(row.offset, row.end)}
    others = set(range(CONFIG_SIZE)) - known
    assert len(others) > 100
    for at in others:
        world.write(at, 1, 0xFF)
    assert {world.read(at, 1) for at in others} == {0}


#: The bits that a guest can change, by register, from the PCI specification and the sizes.
WRITABLE = {
    **dict.fromkeys((0x0C, 0x3C), 0xFF),
    0x04: 0x07,
    0x05: 0x05,
    0x13: 0xFF,
    0x1B: 0xFF,
    **dict.fromkeys((*range(0x14, 0x18), *range(0x1C, 0x20)), 0xFF),
    0x92: 0x01,
    0x94: 0xFC,
    **dict.fromkeys(range(0x95, 0x9E), 0xFF),
}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_bits_that_the_guest_can_change(size: int) -> None:
    for at in range(0, CONFIG_SIZE, size):
        world = World()
        before = world.memory[:CONFIG_SIZE]
        world.write(at, size, (1 << 8 * size) - 1)
        changed = {i: world.memory[i] ^ before[i] for i in range(CONFIG_SIZE) if world.memory[i] != before[i]}
        assert changed == {i: WRITABLE[i] for i in range(at, at + size) if i in WRITABLE}, hex(at)


# Addresses


def test_hvmloader(world: World) -> None:
    places = iter([LOW, LOW + 16 * MIB])
    assert hvmloader(world, lambda bar: next(places)) == found()
    assert world.moves == [(0, LOW), (2, LOW + 16 * MIB)]
    assert world.read(0x3C, 1) == 10
    assert world.read(0xFC, 4) == 0
    assert world.read(COMMAND, 2) == MEMORY | MASTER
    assert world.config.bus_master


def test_hvmloader_above_4_gib(world: World) -> None:
    places = iter([HIGH, HIGH + 16 * MIB])
    assert hvmloader(world, lambda bar: next(places)) == found()
    assert world.places == {0: HIGH, 2: HIGH + 16 * MIB}


@pytest.mark.parametrize("aperture", [16 * MIB, 64 * MIB, 2048 * MIB])
def test_sizes(aperture: int) -> None:
    world = World(aperture)
    assert hvmloader(world, lambda bar: {0x10: LOW, 0x18: 0x8000000000}[bar.register]) == found(aperture)
    world.moves.clear()
    assert linux_sizes(world) == {0x10: 16 * MIB, 0x18: aperture}
    assert world.moves == [(0, None), (2, None), (0, LOW), (2, 0x8000000000)]


def test_linux_keeps_addresses(world: World) -> None:
    hvmloader(world, lambda bar: LOW + 2 * MIB * (bar.register - 0x10))
    before = world.memory[:CONFIG_SIZE]
    linux_sizes(world)
    assert world.memory[:CONFIG_SIZE] == before
    assert world.places == {0: LOW, 2: LOW + 16 * MIB}


def test_sizing_while_it_decodes_takes_no_firmware_away(world: World) -> None:
    """A driver that leaves the memory bit set writes all ones to the lower half."""
    hvmloader(world, lambda bar: LOW + 2 * MIB * (bar.register - 0x10))
    world.moves.clear()
    world.write(0x10, 4, 0xFFFFFFFF)
    assert world.read(0x10, 4) == 0xFF000004
    world.write(0x10, 4, LOW | 4)
    assert world.moves == [(0, None), (0, LOW)]


@pytest.mark.parametrize("address", [0, 1 << 52, (1 << 64) - 16 * MIB])
def test_addresses_that_are_none(world: World, address: int) -> None:
    hvmloader(world, lambda bar: LOW + 2 * MIB * (bar.register - 0x10))
    world.write(COMMAND, 2, 0)
    world.write(0x10, 4, address & 0xFFFFFFFF)
    world.write(0x14, 4, address >> 32)
    world.write(COMMAND, 2, MEMORY)
    assert world.places == {0: None, 2: LOW + 16 * MIB}


def test_the_decode_bit(world: World) -> None:
    hvmloader(world, lambda bar: LOW + 2 * MIB * (bar.register - 0x10))
    world.moves.clear()
    world.write(COMMAND, 2, MASTER)
    world.write(COMMAND, 2, MASTER)
    assert world.moves == [(0, None), (2, None)]
    world.write(COMMAND + 1, 1, 4)  # INTX_DISABLE: its other byte
    world.write(COMMAND, 1, MEMORY)
    assert world.moves[2:] == [(0, LOW), (2, LOW + 16 * MIB)]
    assert not world.config.bus_master


def test_a_bar_moves_by_halves(world: World) -> None:
    hvmloader(world, lambda bar: HIGH + 2 * MIB * (bar.register - 0x10))
    world.moves.clear()
    world.write(0x1C, 4, 0x12)
    world.write(0x18, 4, 0xD0000000)
    assert world.moves == [(2, 0x12_F100_0000), (2, 0x12_D000_0000)]


def test_of_two_bars_at_one_address_the_first_is_there(world: World) -> None:
    hvmloader(world, lambda bar: LOW + 2 * MIB * (bar.register - 0x10))
    world.moves.clear()
    world.write(0x10, 4, LOW + 16 * MIB)
    assert world.moves == [(2, None), (0, LOW + 16 * MIB)]
    world.write(0x10, 4, LOW)
    assert world.moves[2:] == [(0, LOW), (2, LOW + 16 * MIB)]


writes = st.tuples(
    st.sampled_from([0x04, 0x10, 0x14, 0x18, 0x1C, 0x12, 0x16, 0x07, 0x05]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0, 2, 6, 0xFF000000, 0xFFFFFFFF, LOW, LOW + 16 * MIB, 0x7FFFFFFF]) | st.integers(0, (1 << 32) - 1),
)


@given(st.lists(writes, max_size=20))
def test_whatever_is_written_bars_are_where_configuration_space_says(done: list[tuple[int, int, int]]) -> None:
    """And never at one place at a time (World.place), and so for a successor."""
    world = World()
    for at, size, value in done:
        world.write(at, size, value & (1 << 8 * size) - 1)
        wanted = world.config.addresses
        assert {bar: world.places.get(bar) for bar in (0, 2)} == wanted
        for bar, register in ((0, 0x10), (2, 0x18)):
            if wanted[bar] is not None:
                assert world.read(COMMAND, 2) & MEMORY
                assert wanted[bar] == world.read(register, 4) & ~0xF | world.read(register + 4, 4) << 32
        successor = World(memory=bytearray(world.memory))
        assert successor.config.addresses == wanted
        assert successor.moves == []


# Interrupts


def enable(world: World) -> None:
    hvmloader(world, lambda bar: LOW + 2 * MIB * (bar.register - 0x10))
    linux_msi(world, *MESSAGE)


def test_messages(world: World) -> None:
    """All 64 bits of the address, as the guest wrote them; one for each edge."""
    enable(world)
    world.source.signal(True)
    world.source.signal(False)
    world.source.signal(True)
    world.source.signal(True)
    assert world.messages == [MESSAGE] * 3
    assert world.lines == []


@pytest.mark.parametrize(("register", "value"), [(COMMAND, MEMORY), (0x92, 0)])
def test_no_messages(world: World, register: int, value: int) -> None:
    """Without bus mastering a function sends nothing; without the enable bit it uses its line."""
    enable(world)
    world.write(COMMAND, 2, world.read(COMMAND, 2) | 1 << 10)
    world.write(register, 2, value)
    world.source.signal(True)
    assert world.messages == []


def test_the_line_follows_the_level(world: World) -> None:
    world.source.signal(True)
    assert world.read(STATUS, 2) & 8
    world.source.signal(True)
    world.source.signal(False)
    world.source.signal(False)
    assert world.lines == [True, False]
    assert not world.read(STATUS, 2) & 8
    assert world.messages == []


def test_the_line_is_disabled(world: World) -> None:
    """By its bit and by messages; the status says even so that the device wants attention."""
    world.source.signal(True)
    world.write(COMMAND, 2, 1 << 10)
    assert world.lines == [True, False]
    assert world.read(STATUS, 2) & 8
    world.write(COMMAND, 2, 0)
    assert world.lines == [True, False, True]
    world.write(0x92, 2, 1)
    assert world.lines == [True, False, True, False]
    world.source.signal(True)
    world.write(0x92, 2, 0)
    assert world.lines[4:] == [], "messages are edges, of which nothing is left"
    assert not world.read(STATUS, 2) & 8
    world.source.signal(True)
    assert world.lines[4:] == [True]


def test_a_successor_drives_the_line() -> None:
    world = World()
    world.source.signal(True)
    successor = World(memory=world.memory)
    successor.source.signal(True)
    assert successor.lines == [True], "it is driven again: the predecessor may have died before it was"
    world.write(COMMAND, 2, 1 << 10)
    assert world.lines == [True, False]
