"""The whole GPU without a hypervisor: a driver on a CPU whose stores and registers reach the device at once.

Time stands still but when a test has it pass, so every run is the same.
"""

from __future__ import annotations

import struct

from tests.support.engine_bench import EngineBench
from tests.support.tables import FRAME
from tests.support.whole_engine import WholeEngine
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BASES, RCS0, Context, Driver
from xengt_dm.sim.spaces import WRITABLE, AddressSpace
from xengt_dm.steps import complete, finish
from xengt_dm.units import PAGE_SIZE, CData
from xengt_dm.vgpu.core import GpuCore
from xengt_dm.vgpu.device import Model, Vgpu
from xengt_dm.vgpu.engines import NEVER, CoreEngines
from xengt_dm.vgpu.ports import Requests
from xengt_dm.vgpu.state import SIZE, DeviceState

#: A frame number that no guest of the bench has.
NOWHERE = 0x7FFFFF
#: Where tests map pages in a space.
VA = 0x7FFF_0000_0000


class Line:
    """A trigger that counts."""

    def __init__(self) -> None:
        self.edges = 0
        self.level = False
        self.level_triggered = False

    def signal(self, level: bool) -> None:
        self.edges += level
        self.level = level


class GpuBench:
    """A guest of ``frames`` frames, its device, and a driver that has started it."""

    def __init__(
        self,
        frames: int = 1024,
        *,
        sync: Sync = Sync.STRICT,
        start: bool = True,
        max_tables: int = 1024,
        state: memoryview | None = None,
        requests: Requests | None = None,
    ) -> None:
        self.guest = EngineBench(frames)
        self.tables: WholeEngine = self.guest.make_engine(sync=sync, generation=9, max_tables=max_tables)
        self.state = memoryview(bytearray(SIZE)) if state is None else state
        self._requests = requests
        self.line = Line()
        self.now = 1_000_000_000
        self._free = iter(range(1, frames))
        self._former: list[CoreEngines] = []
        self.attach()
        self.device.reset()
        self.gpu.reset()
        self.driver = Driver(self, self.take, 0)
        if start:
            self.driver.start()

    def attach(self) -> None:
        """A new process finds the state, as after a kill. The shadows are those that there were."""
        for old in self._former:
            old.abandon()
            for space in old._streamer._held.values():
                complete(self.tables.steps.release(space))
        self.gpu = GpuCore(self.tables.shadow, self.state)
        self.gpu.pointer.clock_ns = self.now
        self.engines = CoreEngines(self.gpu, self.tables.steps, self.line, lambda: self.now, self._requests)
        self._former = [self.engines]
        self.device = self.make_device()

    def make_device(self) -> Vgpu:
        """The device with the engines as they are."""
        return Vgpu(
            self.tables.steps,
            DeviceState(self.state),
            generation=9,
            vgt_id=1,
            model=Model.SKYLAKE,
            engines=self.engines,
            clock=lambda: self.now,
        )

    @property
    def pointer(self) -> CData:
        return self.gpu.pointer

    def take(self) -> int:
        """A free frame."""
        return next(self._free)

    # The CPU

    def store(self, gpa: int, size: int, value: int) -> None:
        self.guest.store(self.tables, gpa, size, value)

    def load(self, gpa: int, size: int) -> int:
        return int.from_bytes(self.guest.memory[gpa : gpa + size], "little")

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        finish(self.device.write(offset, size, value))

    def mmio_read(self, offset: int, size: int) -> int:
        return self.device.read(offset, size)

    # Time

    def pass_time(self, nanoseconds: int = 1_000_000) -> None:
        self.now += nanoseconds
        self.pointer.clock_ns = self.now

    def run(self, slices: int = 1000) -> int:
        """Have engines run as long as they want to now. Returns how many slices; asserts that they come to an end."""
        for made in range(slices):
            if self.engines.due() > self.now:
                return made
            self.engines.run()
        raise AssertionError("the engines do not come to rest")

    def settle(self, rounds: int = 20) -> None:
        """Run the engines, and let time pass in between, until none has anything to do."""
        for _ in range(rounds):
            self.run()
            if self.engines.due() == NEVER:
                return
            self.pass_time()
        raise AssertionError("an engine does not come to its end")

    # What tests make

    def space(self, *, announced: bool = True) -> AddressSpace:
        space = AddressSpace(self.driver, self.take)
        if announced:
            space.announce()
        return space

    def page(self, space: AddressSpace, address: int, bits: int = WRITABLE) -> int:
        """Map a fresh page. Returns its gpa."""
        gfn = self.take()
        space.map(address, gfn, bits)
        return gfn * PAGE_SIZE

    def write_dwords(self, gpa: int, *commands: list[int] | int) -> None:
        """Write commands to memory, behind everybody's back."""
        dwords = [dword for each in commands for dword in ([each] if isinstance(each, int) else each)]
        struct.pack_into(f"<{len(dwords)}I", self.guest.memory, gpa, *dwords)

    def dword(self, gpa: int) -> int:
        return self.load(gpa, 4)

    def qword(self, gpa: int) -> int:
        return self.load(gpa, 8)

    def register(self, offset: int) -> int:
        return self.mmio_read(offset, 4)

    def execute(self, context: Context, *commands: list[int] | int, settle: bool = True) -> None:
        """Have a context execute commands in its ring, and the driver hear of it."""
        context.emit(*commands)
        self.driver.submit(context)
        if settle:
            self.settle()
        self.driver.interrupt()


class Batches:
    """A context with a space of three pages: a batch at VA, and data at VA + 0x1000 and VA + 0x2000."""

    def __init__(self, engine: int = RCS0, bench: GpuBench | None = None) -> None:
        self.bench = bench or GpuBench()
        self.engine = engine
        self.base = BASES[engine]
        self.space = self.bench.space()
        self.batch = self.bench.page(self.space, VA)
        self.data = self.bench.page(self.space, VA + FRAME)
        self.more = self.bench.page(self.space, VA + 2 * FRAME)
        self.context = self.bench.driver.context(engine, self.space.root)

    #: The GPU address of the data page.
    DATA = VA + FRAME
    MORE = VA + 2 * FRAME

    def user(self, *commands: list[int] | int, settle: bool = True) -> None:
        """Execute a batch without privilege."""
        self.bench.write_dwords(self.batch, *commands, mi.BATCH_END)
        self.bench.execute(self.context, mi.batch_start(VA), settle=settle)

    def ring(self, *commands: list[int] | int) -> None:
        """Execute in the ring, with privilege."""
        self.bench.execute(self.context, *commands)

    def value(self, at: int = 0) -> int:
        """A dword of the data page."""
        return self.bench.dword(self.data + at)
