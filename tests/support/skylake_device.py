"""The registers of a Skylake GT2, with what they ask of address spaces and engines noted."""

from __future__ import annotations

from collections.abc import Collection

from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import Steps, finish
from xengt_dm.vgpu.device import Model, Vgpu
from xengt_dm.vgpu.ports import NoEngines
from xengt_dm.vgpu.registers import GraphicsMemory
from xengt_dm.vgpu.state import SIZE, DeviceState

RCS, BCS, VCS, VECS = BASES = (0x2000, 0x22000, 0x12000, 0x1A000)
GDRST = 0x941C


class Outside(NoEngines):
    """Address spaces and engines, as the device sees them."""

    def __init__(self) -> None:
        super().__init__(self)
        self.calls: list[tuple[object, ...]] = []
        self.busy: set[int] = set()
        self.wide = False
        self.now = 0

    def create_space(self, mode: Mode, roots: tuple[int, ...]) -> Steps[None]:
        raise AssertionError

    def destroy_space(self, mode: Mode, roots: tuple[int, ...]) -> Steps[object]:
        raise AssertionError

    def submit_all(self) -> Steps[None] | None:
        raise AssertionError

    def set_64k_pages(self, enabled: bool) -> None:
        self.wide = enabled

    def ignore_notification(self) -> None:
        self.calls.append(("ignored",))

    def end_all_spaces(self) -> Steps[None]:
        self.calls.append(("end",))
        yield
        self.calls.append(("ended",))

    def reset(self, engines: Collection[int]) -> None:
        self.calls.append(("reset", *engines))
        self.busy -= set(engines)

    def stop(self, engine: int) -> None:
        self.calls.append(("stop", engine))

    def go_on(self, engine: int) -> Steps[None]:
        self.calls.append(("go on", engine))
        yield
        self.calls.append(("went on", engine))

    def is_idle(self, engine: int) -> bool:
        return engine not in self.busy

    def invalidate_tlb(self, engine: int) -> None:
        self.calls.append(("tlb", engine))


WINDOWS = GraphicsMemory(16, 16)


def make(outside: Outside, graphics: GraphicsMemory = WINDOWS, memory: bytearray | None = None) -> Vgpu:
    """A device after its first reset."""
    made = make_on(outside, graphics, memory or bytearray(SIZE))
    made.reset()
    return made


def make_on(outside: Outside, graphics: GraphicsMemory, memory: bytearray) -> Vgpu:
    """A device on a state that another one left."""
    return Vgpu(
        outside,
        DeviceState(memoryview(memory)),
        generation=9,
        vgt_id=1,
        graphics=graphics,
        model=Model.SKYLAKE,
        engines=outside,
        clock=lambda: outside.now,
    )


def write(device: Vgpu, offset: int, value: int, size: int = 4) -> None:
    finish(device.write(offset, size, value))


def masked(bits: int, value: int) -> int:
    """What a driver writes to have ``bits`` of a masked register be ``value``."""
    return bits << 16 | value
