"""The PCI function of a whole GPU: configuration space as rows, two memory BARs, interrupts.

Theory of operation
-------------------
Configuration space is 256 bytes of the state buffer, with rows as BAR0 has them (:mod:`xengt_dm.vgpu.mmio`); a byte of
no row reads as zero and ignores writes. A BAR keeps its address bits only, so whoever writes all ones reads its size.
After each write the function compares where its BARs should be with where they are, and has :class:`.ports.Windows`
place those that differ.

A BAR is nowhere

* while the memory bit of COMMAND is clear: firmware and Linux clear it before they look for sizes;
* at the end of the lowest 4 GiB, where a driver moves it that writes all ones without clearing the bit; the guest's
  firmware is there, and Xen might send us accesses that are for QEMU;
* at 0, and beyond 52 bits, which no processor can address;
* where it would overlap a BAR with a lower number.

An interrupt is a message (MSI) if the guest enabled these and bus mastering, and else the level of a line (INTx).

All of this is kept in the state alone, so a successor has the BARs where :attr:`ConfigSpace.addresses` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from xengt_dm.units import sbdf
from xengt_dm.vgpu.mmio import Mmio
from xengt_dm.vgpu.ports import Interrupts, Windows
from xengt_dm.vgpu.registers import BAR0_SIZE
from xengt_dm.vgpu.registers.register import Register, fields

CONFIG_SIZE: Final = 256
#: Where i915 looks for its device, on the bus of QEMU's host bridge.
SBDF: Final = sbdf(0, 2, 0)

COMMAND: Final = 0x04
COMMAND_MEMORY: Final = 1 << 1
COMMAND_MASTER: Final = 1 << 2
COMMAND_INTX_OFF: Final = 1 << 10
STATUS: Final = 0x06
STATUS_INTX: Final = 1 << 3
MSI_CONTROL: Final = 0x92
MSI_ENABLE: Final = 1 << 0
MSI_ADDRESS: Final = 0x94
MSI_DATA: Final = 0x9C
_INTA: Final = 0

#: The numbers of the memory BARs, and where they are in configuration space.
BARS: Final = {0: 0x10, 2: 0x18}
_BAR_64: Final = 0x4
_BAR_64_PREFETCHABLE: Final = 0xC
_HIGHEST: Final = 1 << 52
_FOUR_GIB: Final = 1 << 32
_DWORD: Final = 0xFFFFFFFF

_PCI: Final = "PCI Local Bus Specification 3.0, 6.1"
_BAR: Final = "PCI Local Bus Specification 3.0, 6.2.5"
_MSI: Final = "PCI Local Bus Specification 3.0, 6.8.1"


def _fixed(name: str, offset: int, size: int, value: int, source: str, bits: str = "") -> Register:
    return Register(name, offset, size, source, value, writable=0, block="pci", fields=fields(bits))


def _bar(number: int, size: int, flags: int) -> tuple[Register, Register]:
    """A BAR of ``size`` bytes: its low half has the bits that the size leaves, and what kind it is."""
    offset = BARS[number]
    mask = (1 << 64) - size
    low = Register(f"BAR{number}", offset, 4, _BAR, flags, writable=mask & _DWORD, on_write="place", block="pci")
    high = Register(f"BAR{number}_HIGH", offset + 4, 4, _BAR, 0, writable=mask >> 32, on_write="place", block="pci")
    return low._replace(fields=fields("IO:0 TYPE:2-1 PREFETCHABLE:3 ADDRESS:31-4", TYPE={2: "64 bits"})), high


_COMMAND_FIELDS: Final = "IO:0 MEMORY:1 MASTER:2 SERR:8 INTX_DISABLE:10"


def rows(aperture: int) -> tuple[Register, ...]:
    """Returns the rows of configuration space. ``aperture``: bytes of BAR2, a power of two."""
    return (
        _fixed("VENDOR_ID", 0x00, 2, 0x8086, "i915_pciids.h: Intel"),
        _fixed("DEVICE_ID", 0x02, 2, 0x1912, "i915_pciids.h INTEL_SKL_GT2_IDS"),
        Register("COMMAND", COMMAND, 2, _PCI, 0, 0x507, on_write="place", block="pci", fields=fields(_COMMAND_FIELDS)),
        _fixed("STATUS", STATUS, 2, 1 << 4, _PCI, "INTX:3 CAPABILITIES:4"),
        _fixed("REVISION", 0x08, 1, 7, "intel_step.c skl_revids: H0, the first that needs no work-around of G0"),
        _fixed("PROGRAMMING_INTERFACE", 0x09, 1, 0, _PCI),
        _fixed("CLASS", 0x0A, 2, 0x0300, f"{_PCI}; a VGA controller"),
        Register("CACHE_LINE_SIZE", 0x0C, 1, _PCI, block="pci"),
        _fixed("LATENCY_TIMER", 0x0D, 1, 0, _PCI),
        _fixed("HEADER_TYPE", 0x0E, 1, 0, f"{_PCI}; i915_pci.c i915_pci_probe accepts function 0 only"),
        *_bar(0, BAR0_SIZE, _BAR_64),
        *_bar(2, aperture, _BAR_64_PREFETCHABLE),
        _fixed("SUBSYSTEM_VENDOR_ID", 0x2C, 2, 0x8086, _PCI),
        _fixed("SUBSYSTEM_ID", 0x2E, 2, 0x2212, f"{_PCI}; nobody compares it"),
        _fixed("CAPABILITIES", 0x34, 1, 0x90, f"{_PCI}; the message capability is the only one"),
        Register("INTERRUPT_LINE", 0x3C, 1, _PCI, block="pci"),
        _fixed("INTERRUPT_PIN", 0x3D, 1, 1 + _INTA, _PCI),
        _fixed(
            "GMCH_CTRL",
            0x50,
            2,
            1 << 6,
            "gt/intel_ggtt.c gen8_get_total_gtt_size: 1 << GGMS MiB of entries",
            "GGMS:7-6 GMS:15-8",
        ),
        _fixed("BDSM", 0x5C, 4, 0, "gem/i915_gem_stolen.c: no stolen memory"),
        _fixed("MSI_CAPABILITY", 0x90, 2, 0x0005, _MSI, "ID:7-0 NEXT:15-8"),
        Register(
            "MSI_CONTROL",
            MSI_CONTROL,
            2,
            f"{_MSI}; one vector, 64-bit address",
            1 << 7,
            MSI_ENABLE,
            on_write="interrupt",
            block="pci",
            fields=fields("ENABLE:0 CAPABLE:3-1 ENABLED:6-4 ADDRESS_64:7"),
        ),
        Register("MSI_ADDRESS", MSI_ADDRESS, 4, _MSI, writable=~3 & _DWORD, block="pci"),
        Register("MSI_ADDRESS_HIGH", MSI_ADDRESS + 4, 4, _MSI, block="pci"),
        Register("MSI_DATA", MSI_DATA, 2, _MSI, block="pci"),
        _fixed("ASLS", 0xFC, 4, 0, "display/intel_opregion.c: no OpRegion, whatever hvmloader writes there"),
    )


def _with_gaps(known: tuple[Register, ...]) -> Iterator[Register]:
    """The rows, and one for each byte between them, which reads as zero and ignores writes."""
    taken = {at for row in known for at in range(row.offset, row.end)}
    yield from known
    for at in range(CONFIG_SIZE):
        if at not in taken:
            yield _fixed(f"RESERVED_{at:02X}", at, 1, 0, _PCI)


class Place(NamedTuple):
    """Where a BAR is; ``size`` in bytes."""

    address: int
    size: int

    def overlaps(self, other: Place) -> bool:
        return self.address < other.address + other.size and other.address < self.address + self.size


class ConfigSpace:
    """The function's part of the state, ``memory``. ``aperture``: bytes of BAR2."""

    def __init__(self, memory: memoryview, aperture: int) -> None:
        self.rows: Final = rows(aperture)
        self._sizes: Final = {0: BAR0_SIZE, 2: aperture}
        self.mmio: Final = Mmio(memory[:CONFIG_SIZE], _with_gaps(self.rows), (), ("place", "interrupt"))

    def reset(self) -> None:
        """Give every register its reset value: the BARs are nowhere. For a fresh state only."""
        self.mmio.reset({})

    @property
    def bus_master(self) -> bool:
        """Whether the device may reach the guest's memory, and send messages."""
        return bool(self.mmio.load(COMMAND, 2) & COMMAND_MASTER)

    @property
    def addresses(self) -> dict[int, int | None]:
        """Where each BAR should be; None for nowhere."""
        found: dict[int, int | None] = {}
        places: list[Place] = []
        for number, offset in BARS.items():
            place = self._place(offset, self._sizes[number])
            if place is not None and any(map(place.overlaps, places)):
                place = None
            if place is not None:
                places.append(place)
            found[number] = place.address if place else None
        return found

    def _place(self, offset: int, size: int) -> Place | None:
        """Where the BAR should be whose low half is at ``offset``, as far as it alone decides that."""
        if not self.mmio.load(COMMAND, 2) & COMMAND_MEMORY:
            return None
        address = self.mmio.load(offset, 8) & -size & (1 << 64) - 1
        good = 0 < address <= _HIGHEST - size and address != _FOUR_GIB - size
        return Place(address, size) if good else None

    def value(self, row: Register) -> int:
        """What a register reads as."""
        return self.mmio.load(row.offset, row.size)


class InterruptSource:
    """How the device interrupts the guest, by what configuration space says. Raises what ``interrupts`` raises.

    Facts: to drive a line to the level that it has changes nothing (Xen has a bit for each line). What follows: nobody
    needs to know the level, and a successor that calls :meth:`signal` with what holds makes the line right, whenever
    its predecessor was killed.
    """

    def __init__(self, config: ConfigSpace, interrupts: Interrupts) -> None:
        self._config: Final = config
        self._interrupts: Final = interrupts

    @property
    def level_triggered(self) -> bool:
        """Whether the guest hears of an interrupt for as long as there is one, and not of each once."""
        return not self._sends_messages

    def signal(self, level: bool) -> None:
        """The device wants attention, or does not any more. Each call with True is one message, if these are on."""
        mmio = self._config.mmio
        if self._sends_messages:
            if level and self._config.bus_master:
                self._interrupts.inject_msi(mmio.load(MSI_ADDRESS, 8), mmio.load(MSI_DATA, 2))
            return
        self._note(level)
        if not mmio.load(COMMAND, 2) & COMMAND_INTX_OFF:
            self._interrupts.set_intx(SBDF, _INTA, level)

    def drive_line(self) -> None:
        """Have the line be right after a write to COMMAND or MSI_CONTROL. It is low already if nothing asks for it."""
        mmio = self._config.mmio
        if mmio.load(STATUS, 2) & STATUS_INTX:
            if self._sends_messages:  # nobody will say when the device does not want attention any more
                self._note(False)
                self._interrupts.set_intx(SBDF, _INTA, False)
            else:
                self._interrupts.set_intx(SBDF, _INTA, not mmio.load(COMMAND, 2) & COMMAND_INTX_OFF)

    def _note(self, level: bool) -> None:
        """Have STATUS say whether the device asks for its line."""
        mmio = self._config.mmio
        status = mmio.load(STATUS, 2)
        mmio.store(STATUS, 2, status | STATUS_INTX if level else status & ~STATUS_INTX)

    @property
    def _sends_messages(self) -> bool:
        return bool(self._config.mmio.load(MSI_CONTROL, 2) & MSI_ENABLE)


class Function:
    """The function as the bus knows it: accesses at offsets within its 256 bytes of configuration space.

    The BARs are where ``config`` says when this is constructed. Methods raise what ``windows`` and ``interrupts`` do.
    """

    def __init__(self, config: ConfigSpace, windows: Windows, interrupts: InterruptSource) -> None:
        self._config: Final = config
        self._windows: Final = windows
        self._interrupts: Final = interrupts
        self._placed = config.addresses

    def read(self, offset: int, size: int) -> int:
        """A read of configuration space by the guest."""
        return self._config.mmio.load(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """A write to configuration space by the guest; ``value`` fits ``size``."""
        written = self._config.mmio.write(offset, size, value)
        if any(each.register.on_write == "place" for each in written):
            self._place_bars()
        if any(each.register.offset in (COMMAND, MSI_CONTROL) for each in written):
            self._interrupts.drive_line()

    def _place_bars(self) -> None:
        wanted = self._config.addresses
        before, self._placed = self._placed, wanted
        changed = {number: address for number, address in wanted.items() if address != before[number]}
        for number in sorted(changed, key=lambda each: changed[each] is not None):  # first those that make room
            self._windows.place(number, changed[number])
