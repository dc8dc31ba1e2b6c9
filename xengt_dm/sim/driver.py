"""A driver of the whole GPU that does what i915 does under a hypervisor, as a program on a vCPU.

It binds pages in the GGTT, makes contexts with i915's image layout, submits lists of one or two of them, takes
interrupts and reads the context status buffers. What it executes are batches and rings of dwords that its user gives
it.

Sources: Linux 6.1 ``drivers/gpu/drm/i915``, files gt/intel_execlists_submission.c, gt/intel_lrc.c, gt/intel_reset.c,
i915_irq.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from xengt_dm.sim import context as image
from xengt_dm.sim import csb, mi
from xengt_dm.sim.context import masked
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE
from xengt_dm.vgpu import registers as reg

_DWORD: Final = 0xFFFFFFFF
GGTT: Final = 8 << 20
#: Where the GGTT addresses begin that the driver uses.
FIRST_ADDRESS: Final = 16 << 20
RCS0, BCS0, VCS0, VECS0 = range(4)
BASES: Final = (0x2000, 0x22000, 0x12000, 0x1A000)
RESET_BITS: Final = (1, 3, 2, 4)
#: Offsets from an engine's base.
HWS_PGA, MI_MODE, IMR, EIR, EMR = 0x80, 0x9C, 0xA8, 0xB0, 0xB4
RESET_CTL, ELSP, EXECLIST_STATUS, RING_MODE, CSB_POINTERS = 0xD0, 0x230, 0x234, 0x29C, 0x3A0
STOP_RING: Final = 1 << 8
RUN_LIST_ENABLE: Final = 1 << 15
CONTEXT_SWITCH: Final = 1 << 8
MASTER, MASTER_ENABLE, GDRST = 0x44200, 1 << 31, 0x941C
#: By bit of the master: the bank that is pending.
BANKS: Final = {0: 0, 1: 0, 2: 1, 3: 1, 6: 3}
#: By engine: its bank, and the bit at which its events begin.
EVENTS: Final = ((0, 0), (0, 16), (1, 0), (3, 0))
RING_PAGES: Final = 4
_DESCRIPTOR_BITS: Final = 1 << 8 | 3 << 3 | 1  # privilege, 64-bit addresses, valid
_FORCE_RESTORE: Final = 1 << 2


class Cpu(Protocol):
    """The instructions that the driver uses; :class:`xengt_dm.hypervisor.embedded.vcpu.Vcpu`."""

    def store(self, gpa: int, size: int, value: int) -> None: ...

    def load(self, gpa: int, size: int) -> int: ...

    def mmio_write(self, gpa: int, size: int, value: int) -> None: ...

    def mmio_read(self, gpa: int, size: int) -> int: ...


class Context:
    """A context: its image and its ring, both bound in the GGTT. ``root``: the gfn of its space's root table, or 0."""

    def __init__(self, driver: Driver, engine: int, root: int, inherited: Sequence[int] = ()) -> None:
        self.driver = driver
        self.engine = engine
        render = engine == RCS0
        pages = image.RENDER_PAGES if render else image.PAGES
        self.frames = [driver.take() for _ in range(pages)]
        self.address = driver.bind(self.frames)
        self.ring_frames = [driver.take() for _ in range(RING_PAGES)]
        self.ring = driver.bind(self.ring_frames)
        self.tail = 0
        page = image.registers_page(BASES[engine], render=render, inherited=inherited)
        page[image.HEAD] = page[image.TAIL] = 0
        page[image.START] = self.ring
        page[image.CTL] = (RING_PAGES - 1) * PAGE_SIZE | 1
        page[image.PDP0_UDW], page[image.PDP0_LDW] = root >> 32 - PAGE_SHIFT, root << PAGE_SHIFT & _DWORD
        page[image.MI_MODE] = masked(STOP_RING, False)
        for at, value in enumerate(page):
            self.write_image(at, value)

    def write_image(self, at: int, value: int) -> None:
        """Store a dword of the page of registers."""
        self.driver.cpu.store(self.frames[1] * PAGE_SIZE + 4 * at, 4, value)

    def read_image(self, at: int) -> int:
        return self.driver.cpu.load(self.frames[1] * PAGE_SIZE + 4 * at, 4)

    def registers(self) -> list[int]:
        """The page of registers."""
        return [self.read_image(at) for at in range(image.PAGE_DWORDS)]

    def emit(self, *commands: Iterable[int] | int) -> None:
        """Add commands to the ring, and a no-operation if the tail would not be a multiple of 8."""
        dwords = [dword for each in commands for dword in ([each] if isinstance(each, int) else each)]
        if len(dwords) % 2:
            dwords.append(mi.NOOP)
        for dword in dwords:
            page, offset = divmod(self.tail, PAGE_SIZE)
            self.driver.cpu.store(self.ring_frames[page] * PAGE_SIZE + offset, 4, dword)
            self.tail = (self.tail + 4) % (RING_PAGES * PAGE_SIZE)


class Driver:
    """The driver on ``cpu``, with BAR0 at ``bar0``. ``take`` returns a free frame, which is all zeros."""

    def __init__(self, cpu: Cpu, take: Callable[[], int], bar0: int) -> None:
        self.cpu = cpu
        self.take = take
        self._bar0 = bar0
        self._next_address = FIRST_ADDRESS
        self.status_frames = [take() for _ in BASES]
        self.lists = [csb.Lists() for _ in BASES]
        self.log: list[list[csb.Event]] = [[] for _ in BASES]
        self._read_index = [csb.RESET_INDEX] * len(BASES)
        self._tag = 0
        #: Interrupts that had a reason, and those that had none.
        self.interrupts = self.spurious = 0

    def read(self, offset: int, size: int = 4) -> int:
        return self.cpu.mmio_read(self._bar0 + offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.cpu.mmio_write(self._bar0 + offset, size, value)

    def bind(self, frames: Sequence[int]) -> int:
        """Bind frames in the GGTT, one after the other. Returns the address of the first."""
        first = self._next_address
        for i, gfn in enumerate(frames):
            self.bind_at(first + i * PAGE_SIZE, gfn << PAGE_SHIFT | 1)
        self._next_address += (len(frames) + 1) * PAGE_SIZE
        return first

    def bind_at(self, address: int, entry: int) -> None:
        """Store an entry of the GGTT."""
        self.write(GGTT + (address >> PAGE_SHIFT) * 8, entry, 8)

    def start(self) -> None:
        """From nothing to engines that take lists: a full reset, then what each engine needs."""
        if self.read(reg.PVINFO, 8) != reg.PVINFO_MAGIC:
            raise AssertionError("no virtual GPU answers at PVINFO")
        self.reset(1)
        for engine in range(len(BASES)):
            self._status_page(engine)
            self.resume(engine)
        for bank in (0, 1, 3):
            self.write(0x44304 + 16 * bank, 0)
            self.write(0x44308 + 16 * bank, _DWORD)
            self.write(0x4430C + 16 * bank, _DWORD)
        self.write(MASTER, MASTER_ENABLE)

    def _status_page(self, engine: int) -> None:
        self.write(BASES[engine] + HWS_PGA, self.bind([self.status_frames[engine]]))

    def resume(self, engine: int) -> None:
        """As enable_execlists and reset_csb_pointers do."""
        base = BASES[engine]
        self.write(base + IMR, 0)
        self.write(base + RING_MODE, masked(RUN_LIST_ENABLE))
        self.write(base + MI_MODE, masked(STOP_RING, False))
        self.write(base + EIR, _DWORD)
        self.write(base + EMR, _DWORD & ~1)
        self.write(base + CSB_POINTERS, 0xFFFF0505)
        self._read_index[engine] = csb.RESET_INDEX
        self.cpu.store(self._status(engine) + csb.WRITE_INDEX, 4, csb.RESET_INDEX)
        for entry in range(csb.ENTRIES):
            self.cpu.store(self._status(engine) + csb.BUFFER + 8 * entry, 8, csb.READ)

    def reset(self, domains: int) -> None:
        """Write GDRST, twice as i915 does."""
        for _ in range(2):
            self.write(GDRST, domains)
            if self.read(GDRST):
                raise AssertionError("a reset is not over")

    def reset_engine(self, engine: int) -> None:
        """As gen8_reset_engines does for one engine, and what execlists_reset makes of its lists."""
        base = BASES[engine]
        self.write(base + MI_MODE, masked(STOP_RING))
        self.write(base + RESET_CTL, masked(1))
        if not self.read(base + RESET_CTL) & 2:
            raise AssertionError("the engine is not ready to be reset")
        self.reset(1 << RESET_BITS[engine])
        self.write(base + RESET_CTL, masked(1, False))
        self.process(engine)
        self.lists[engine] = csb.Lists()
        address = self.bind([self.status_frames[engine]])
        self.write(base + HWS_PGA, address)
        self.resume(engine)

    def context(self, engine: int, root: int = 0, inherited: Sequence[int] = ()) -> Context:
        return Context(self, engine, root, inherited)

    def submit(self, *contexts: Context, force: bool = False) -> list[int]:
        """Submit a list of one or two contexts, with their rings as they are. Returns their ids."""
        engine = contexts[0].engine
        elements = []
        for each in contexts:
            each.write_image(image.TAIL, each.tail)
            self._tag = self._tag % 62 + 1
            low = each.address | _DESCRIPTOR_BITS | (_FORCE_RESTORE if force else 0)
            elements.append((low, self._tag << 5))
        self.lists[engine].submit(list(contexts))
        self.write_list(engine, elements)
        return [high for _, high in elements]

    def write_list(self, engine: int, elements: Sequence[tuple[int, int]]) -> None:
        """Write a list of (low, high) to the submission port; nobody looks at it."""
        (low, high), (low1, high1) = (*elements, (0, 0))[:2]
        for value in (high1, low1, high, low):
            self.write(BASES[engine] + ELSP, value)

    def interrupt(self) -> None:
        """The handler of the device's interrupt, as gen8_irq_handler is."""
        self.write(MASTER, 0)
        master = self.read(MASTER)
        self.interrupts += bool(master & ~MASTER_ENABLE)
        self.spurious += not master & ~MASTER_ENABLE
        for bank in sorted({bank for bit, bank in BANKS.items() if master >> bit & 1}):
            pending = self.read(0x44308 + 16 * bank)
            for engine, (of_bank, shift) in enumerate(EVENTS):
                if of_bank == bank and pending >> shift & CONTEXT_SWITCH:
                    self.process(engine)
            if pending:
                self.write(0x44308 + 16 * bank, pending)
        self.write(MASTER, MASTER_ENABLE)

    def process(self, engine: int) -> list[csb.Event]:
        """Read the events of an engine that are new. Raises EventError for one that cannot be."""
        status = self._status(engine)
        written = self.cpu.load(status + csb.WRITE_INDEX, 1)
        if written >= csb.ENTRIES:
            raise csb.EventError(f"the index of the last event is {written}")
        new = []
        while self._read_index[engine] != written:
            index = (self._read_index[engine] + 1) % csb.ENTRIES
            entry = self.cpu.load(status + csb.BUFFER + 8 * index, 8)
            if entry == csb.READ:
                raise csb.EventError(f"entry {index} is not there yet")
            self.cpu.store(status + csb.BUFFER + 8 * index, 8, csb.READ)
            self._read_index[engine] = index
            event = csb.Event(entry & _DWORD, entry >> 32)
            new.append(event)
            self.lists[engine].process(event)
        self.log[engine] += new
        return new

    def _status(self, engine: int) -> int:
        return self.status_frames[engine] * PAGE_SIZE
