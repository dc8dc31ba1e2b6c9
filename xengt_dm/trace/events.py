"""What a trace can say: its header and its events, as values (docs/trace-format.md).

Addresses are guest physical bytes (``gpa``), frames are 4 KiB (``gfn``), ``va`` is a GPU address, ``root`` is an
address as the guest wrote it, low bits and all. Nothing here checks a value: :mod:`xengt_dm.trace.read` does when it
reads. ``line`` of each is its one line of JSON, without the newline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

#: The version of the format that the header's ``trace`` names.
TRACE_VERSION: Final = 1
U64_MAX: Final = (1 << 64) - 1
#: An entry's frame is bits 45:12 (GTT_HAW 46 of i915/gvt/gtt.c), so no table can name a frame from here on.
FRAME_LIMIT: Final = 1 << 34
#: BAR0 of generations 8 and 9: 2 MiB of registers, the GGTT's entries from 8 MiB (i915/gt/intel_ggtt.c).
BAR0_BYTES: Final = 16 << 20
#: Slots of 32 bytes in one synchronous ioreq page, one a vCPU (xen/include/public/hvm/ioreq.h).
VCPU_LIMIT: Final = 128

Mode: TypeAlias = Literal["l3", "l4"]
L3Root: TypeAlias = tuple[int, int, int, int]
#: What names an address space: the root address (L4) or the four of them (L3), with ``mode`` beside it.
Root: TypeAlias = int | L3Root
DumpId: TypeAlias = str | int


def _number(key: str, value: int, default: int = 0) -> str:
    return "" if value == default else f',"{key}":{value}'


def _root(root: Root) -> str:
    return str(root) if isinstance(root, int) else "[" + ",".join(map(str, root)) + "]"


@dataclass(frozen=True, slots=True)
class Header:
    """The guest: frames 0 .. ``ram_frames``-1 are RAM and zero, apart from ``holes`` (first gfn, count)."""

    generation: int
    ram_frames: int
    holes: tuple[tuple[int, int], ...] = ()

    def line(self) -> str:
        holes = ",".join(f"[{first},{count}]" for first, count in self.holes)
        tail = f',"holes":[{holes}]' if holes else ""
        return f'{{"trace":{TRACE_VERSION},"generation":{self.generation},"ram_frames":{self.ram_frames}{tail}}}'


@dataclass(frozen=True, slots=True)
class Store:
    """One store by a vCPU of ``size`` bytes (1, 2, 4 or 8), at any alignment."""

    gpa: int
    size: int
    value: int
    vcpu: int = 0

    def line(self) -> str:
        vcpu = _number("vcpu", self.vcpu)
        return f'{{"op":"store","gpa":{self.gpa},"size":{self.size},"value":{self.value}{vcpu}}}'


@dataclass(frozen=True, slots=True)
class Fill:
    """``count`` stores of 8 bytes, upwards from the 8-byte aligned ``gpa``."""

    gpa: int
    count: int
    value: int
    vcpu: int = 0

    def line(self) -> str:
        vcpu = _number("vcpu", self.vcpu)
        return f'{{"op":"fill","gpa":{self.gpa},"count":{self.count},"value":{self.value}{vcpu}}}'


@dataclass(frozen=True, slots=True)
class Mmio:
    """A register write of ``size`` bytes (4 or 8) at ``offset`` of BAR0."""

    offset: int
    size: int
    value: int
    vcpu: int = 0

    def line(self) -> str:
        vcpu = _number("vcpu", self.vcpu)
        return f'{{"op":"mmio","offset":{self.offset},"size":{self.size},"value":{self.value}{vcpu}}}'


@dataclass(frozen=True, slots=True)
class Submit:
    """The GPU is about to execute with this address space."""

    mode: Mode
    root: Root

    def line(self) -> str:
        return f'{{"op":"submit","mode":"{self.mode}","root":{_root(self.root)}}}'


@dataclass(frozen=True, slots=True)
class GpuStore:
    """A submission, then a store of 8 bytes by the GPU at the 8-byte aligned ``va``."""

    mode: Mode
    root: Root
    va: int
    value: int

    def line(self) -> str:
        root = _root(self.root)
        return f'{{"op":"gpu_store","mode":"{self.mode}","root":{root},"va":{self.va},"value":{self.value}}}'


@dataclass(frozen=True, slots=True)
class Remove:
    """The guest gives these frames back: they are no RAM from here on."""

    gfn: int
    count: int

    def line(self) -> str:
        return f'{{"op":"remove","gfn":{self.gfn},"count":{self.count}}}'


@dataclass(frozen=True, slots=True)
class Add:
    """These frames are RAM from here on, and zero, whatever they were before."""

    gfn: int
    count: int

    def line(self) -> str:
        return f'{{"op":"add","gfn":{self.gfn},"count":{self.count}}}'


@dataclass(frozen=True, slots=True)
class Dump:
    """Say what every live address space resolves to now."""

    id: DumpId

    def line(self) -> str:
        return f'{{"op":"dump","id":{json.dumps(self.id)}}}'


Event: TypeAlias = Store | Fill | Mmio | Submit | GpuStore | Remove | Add | Dump
