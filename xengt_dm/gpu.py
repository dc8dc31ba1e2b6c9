"""The device of an instance: what it is made of, by its model, and where the guest reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from xengt_dm.ioreq.bar import Bar, Bars
from xengt_dm.ioreq.bus import Bus
from xengt_dm.ioreq.devices import Kind
from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.ioreq.server import IoreqServer
from xengt_dm.ppgtt.engine import Engine
from xengt_dm.vgpu.core import GpuCore
from xengt_dm.vgpu.device import Model, Vgpu
from xengt_dm.vgpu.engines import CoreEngines
from xengt_dm.vgpu.ggtt import Aperture
from xengt_dm.vgpu.pci import CONFIG_SIZE, SBDF, ConfigSpace, Function, InterruptSource
from xengt_dm.vgpu.ports import Requests
from xengt_dm.vgpu.registers import BAR0_SIZE, GraphicsMemory
from xengt_dm.vgpu.state import DeviceState

#: The models, in the order of the numbers that the state has for them.
MODELS: Final = (Model.PPGTT, Model.SKYLAKE)
#: The generation of a model that has one; the other has the one that is configured.
GENERATIONS: Final = {Model.SKYLAKE: 9}
_MIB_SHIFT: Final = 20


class Gpu(NamedTuple):
    """The device. ``bars``: by number; there is a BAR0. ``bar0``: the gpa of BAR0 for a device without ``config``.

    ``config``: of its PCI function, with ``interrupts`` to the guest, and ``engines``; None if it has none.
    """

    device: Vgpu
    bars: Mapping[int, Bar]
    bar0: int
    config: ConfigSpace | None = None
    interrupts: InterruptSource | None = None
    engines: CoreEngines | None = None

    @property
    def addresses(self) -> dict[Bar, int]:
        """Where each BAR should be that is anywhere."""
        if self.config is None:
            return {self.bars[0]: self.bar0}
        wanted = self.config.addresses.items()
        return {self.bars[number]: address for number, address in wanted if address is not None}

    @property
    def fixed_ranges(self) -> list[Range]:
        """The ranges that the device has besides its BARs."""
        return [] if self.config is None else [Range(RangeKind.PCI, SBDF, SBDF)]


def make_gpu(
    model: Model,
    state: DeviceState,
    spaces: Engine,
    bus: Bus,
    server: IoreqServer,
    *,
    generation: int,
    graphics: GraphicsMemory,
    bar0: int,
    fresh: bool,
    requests: Requests,
) -> Gpu:
    """Returns the device on ``state``, which is reset if it is ``fresh``. Nothing happens in the hypervisor."""
    port = server.port

    def device_with(engines: CoreEngines | None) -> Vgpu:
        device = Vgpu(
            spaces,
            state,
            generation=generation,
            vgt_id=port.domid + 1,
            graphics=graphics,
            model=model,
            engines=engines,
        )
        if fresh:
            device.reset()
        return device

    if model is not Model.SKYLAKE:
        device = device_with(None)
        return Gpu(device, {0: Bar(bus, device, BAR0_SIZE, server, device.registers)}, bar0)
    aperture = graphics.aperture_mib << _MIB_SHIFT
    config = ConfigSpace(state.pci_config, aperture)
    if fresh:
        config.reset()
    interrupts = InterruptSource(config, port)
    core = GpuCore(spaces.shadow, state.memory, checks_bus_master=True)
    engines = CoreEngines(core, spaces, interrupts, requests=requests)
    device = device_with(engines)
    if fresh:
        core.reset()
    memory = Aperture(core, spaces, state.bar0, graphics.fences)
    bars = {
        0: Bar(bus, device, BAR0_SIZE, server, device.registers),
        2: Bar(bus, memory, aperture, server, memory.registers),
    }
    bus.insert(Kind.PCI_CONFIG, SBDF << 32, CONFIG_SIZE, Function(config, Bars(bars), interrupts))
    return Gpu(device, bars, bar0, config, interrupts, engines)
