"""How firmware and Linux find a PCI function and give it addresses, written from their sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

COMMAND, INTERRUPT_LINE, INTERRUPT_PIN, ROM = 0x04, 0x3C, 0x3D, 0x30
IO, MEMORY, MASTER = 1, 2, 4
ALL_ONES = 0xFFFFFFFF
MEM_64, MEM_TYPE, SPACE_IO = 0x4, 0x6, 0x1
CAPABILITIES, CAP_MSI = 0x34, 0x05


class ConfigAccess(Protocol):
    """Configuration space of one function, in accesses of 1, 2 or 4 bytes."""

    def read(self, register: int, size: int) -> int: ...

    def write(self, register: int, size: int, value: int) -> None: ...


class FoundBar(NamedTuple):
    """A BAR: where its register is, its size in bytes, and whether it has 64 bits."""

    register: int
    size: int
    wide: bool


def hvmloader(config: ConfigAccess, place: Callable[[FoundBar], int]) -> list[FoundBar]:
    """What pci_setup of tools/firmware/hvmloader/pci.c does with one function, in its order; returns its BARs.

    ``place`` chooses addresses.
    """
    config.read(0x0A, 2), config.read(0x00, 2), config.read(0x02, 2)
    config.write(0xFC, 4, 0xFEFF0000)  # the OpRegion of a VGA device of Intel
    config.write(COMMAND, 2, config.read(COMMAND, 2) & ~(IO | MEMORY))
    bars = []
    register = 0x10
    while register < 0x28:
        before = config.read(register, 4)
        wide = before & (SPACE_IO | MEM_TYPE) == MEM_64
        size = _size_of_half(config, register) & ~0xF
        if wide:
            size |= _size_of_half(config, register + 4) << 32
        size &= -size
        if size:
            bars.append(FoundBar(register, size, wide))
        register += 8 if wide else 4
    rom = config.read(ROM, 4)
    config.write(ROM, 4, (rom | 0xFFFFF800) & ~1)
    assert config.read(ROM, 4) == 0
    config.write(ROM, 4, rom)
    if config.read(INTERRUPT_PIN, 1):
        config.write(INTERRUPT_LINE, 1, 10)
    for bar in sorted(bars, key=lambda each: -each.size):
        address = place(bar)
        config.write(bar.register, 4, address & ALL_ONES | config.read(bar.register, 4) & 0xF)
        if bar.wide:
            config.write(bar.register + 4, 4, address >> 32)
        config.write(COMMAND, 2, config.read(COMMAND, 2) | MEMORY | MASTER)
    return bars


def _size_of_half(config: ConfigAccess, register: int) -> int:
    before = config.read(register, 4)
    config.write(register, 4, ALL_ONES)
    ones = config.read(register, 4)
    config.write(register, 4, before)
    return ones


def linux_sizes(config: ConfigAccess) -> dict[int, int]:
    """pci_read_bases of drivers/pci/probe.c: decoding is off meanwhile. Returns sizes by register."""
    command = config.read(COMMAND, 2)
    if command & (IO | MEMORY):
        config.write(COMMAND, 2, command & ~(IO | MEMORY))
    sizes = {}
    for register in (0x10, 0x18):
        low, low_ones = _read_ones(config, register)
        high, high_ones = _read_ones(config, register + 4)
        assert low & 0xF == low_ones & 0xF
        mask = (high_ones << 32 | low_ones) & ~0xF
        sizes[register] = mask & -mask
        assert (high << 32 | low) & ~0xF & sizes[register] - 1 == 0
    if command & (IO | MEMORY):
        config.write(COMMAND, 2, command)
    return sizes


def _read_ones(config: ConfigAccess, register: int) -> tuple[int, int]:
    before = config.read(register, 4)
    config.write(register, 4, ALL_ONES)
    ones = config.read(register, 4)
    config.write(register, 4, before)
    return before, ones


def linux_msi(config: ConfigAccess, address: int, data: int) -> None:
    """pci_enable_msi of drivers/pci/msi: the capability is looked for, a message is written, then enabled."""
    at = config.read(CAPABILITIES, 1)
    while config.read(at, 1) != CAP_MSI:
        at = config.read(at + 1, 1)
        assert at
    control = config.read(at + 2, 2)
    assert control & 0x80  # a 64-bit address
    config.write(at + 2, 2, control & ~1)
    config.write(at + 4, 4, address & ALL_ONES)
    config.write(at + 8, 4, address >> 32)
    config.write(at + 12, 2, data)
    config.write(COMMAND, 2, config.read(COMMAND, 2) | 1 << 10)  # no INTx
    config.write(at + 2, 2, control & ~0x70 | 1)
