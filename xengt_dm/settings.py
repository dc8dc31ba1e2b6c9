"""What one device model is to be, by the configuration, and by the state that a predecessor left."""

from __future__ import annotations

from typing import Final, NamedTuple

from xengt_dm.config.keys import KEYS
from xengt_dm.config.merge import Config
from xengt_dm.gpu import GENERATIONS, MODELS
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.guest_frames import CHUNK_FRAMES
from xengt_dm.state.buffer import State
from xengt_dm.units import PAGE_SIZE
from xengt_dm.vgpu.device import Model, graphics_told
from xengt_dm.vgpu.registers import GraphicsMemory
from xengt_dm.vgpu.state import DeviceState

DEFAULT_BAR0 = int(KEYS["device.bar0_gpa"].default)
DEFAULT_MAX_TABLES = int(KEYS["shadow.max_tables"].default)
DEFAULT_MAX_SPACES = int(KEYS["shadow.max_spaces"].default)
#: A chunk is the 2 MiB of guest memory that are mapped together (xengt_dm/ppgtt/guest_frames.py).
CHUNK_MIB: Final = CHUNK_FRAMES * PAGE_SIZE >> 20
DEFAULT_MAX_MAPPED_CHUNKS = int(KEYS["shadow.max_mapped_mib"].default) // CHUNK_MIB
DEFAULT_GRAPHICS = GraphicsMemory(
    int(KEYS["device.low_gm_mib"].default),
    int(KEYS["device.high_gm_mib"].default),
    int(KEYS["device.fences"].default),
)


class Settings(NamedTuple):
    """What one device model is to be. ``bar0`` is a gpa, a multiple of its size, outside the domain's RAM; a model with
    a PCI function has its BARs where the guest puts them.

    ``max_tables``: the quota of shadow tables. ``max_spaces``: how many address spaces may be live at once.
    ``max_mapped_chunks``: how many chunks of guest memory may be mapped at once.
    """

    bar0: int = DEFAULT_BAR0
    generation: int = 8
    sync: Sync = Sync.STRICT
    max_tables: int = DEFAULT_MAX_TABLES
    max_spaces: int = DEFAULT_MAX_SPACES
    max_mapped_chunks: int = DEFAULT_MAX_MAPPED_CHUNKS
    graphics: GraphicsMemory = DEFAULT_GRAPHICS
    model: Model = Model.PPGTT

    @classmethod
    def from_config(cls, config: Config) -> Settings:
        """What the configuration says."""
        model = Model(config.string("device.kind"))
        return cls(
            bar0=config.integer("device.bar0_gpa"),
            generation=GENERATIONS.get(model, config.integer("device.generation")),
            sync=Sync(config.string("shadow.mode")),
            max_tables=config.integer("shadow.max_tables"),
            max_spaces=config.integer("shadow.max_spaces"),
            max_mapped_chunks=config.integer("shadow.max_mapped_mib") // CHUNK_MIB,
            graphics=GraphicsMemory(
                config.integer("device.low_gm_mib"),
                config.integer("device.high_gm_mib"),
                config.integer("device.fences"),
            ),
            model=model,
        )

    def continued(self, state: State) -> Settings:
        """These, but with what a guest and an operator have seen of the instance that left ``state``."""
        life = state.life
        return self._replace(
            bar0=life.bar0,
            generation=life.generation,
            sync=Sync.RELAXED if life.relaxed else Sync.STRICT,
            max_spaces=state.layout.capacities.spaces,
            graphics=graphics_told(DeviceState(state.device)),
            model=MODELS[life.model],
        )

    def record(self, state: State) -> None:
        """Have ``state`` say what holds."""
        life = state.life
        life.bar0, life.generation, life.relaxed = self.bar0, self.generation, self.sync is Sync.RELAXED
        life.max_tables, life.max_mapped_chunks = self.max_tables, self.max_mapped_chunks
        life.model = MODELS.index(self.model)
