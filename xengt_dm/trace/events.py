"""The header and the events of a trace, as values. Source: docs/trace-format.md.

``gpa`` is a guest physical address in bytes, ``gfn`` a frame of 4 KiB, ``va`` a GPU address. ``root`` is an address as
the guest wrote it, including its low 12 bits. Nothing in this module checks a value; :mod:`xengt_dm.trace.read` checks
them when it reads a trace. The method ``line`` of each class returns its line of JSON without the newline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

#: The version of the format, ``trace`` in the header.
TRACE_VERSION: Final = 1
U64_MAX: Final = (1 << 64) - 1
#: The first frame that no entry can name: an entry's frame is bits 45:12 (GTT_HAW 46 of i915/gvt/gtt.c).
FRAME_LIMIT: Final = 1 << 34
#: BAR0 of generations 8 and 9: 2 MiB of registers, and the GGTT's entries from 8 MiB on (i915/gt/intel_ggtt.c).
BAR0_BYTES: Final = 16 << 20
#: vCPUs of a domain: a page holds 128 slots of 32 bytes, one for each vCPU (xen/include/public/hvm/ioreq.h).
VCPU_LIMIT: Final = 128

Mode: TypeAlias = Literal["l3", "l4"]
L3Root: TypeAlias = tuple[int, int, int, int]
#: The root address (L4) or the four root addresses (L3). Together with the mode it identifies an address space.
Root: TypeAlias = int | L3Root
DumpId: TypeAlias = str | int


def _number(key: str, value: int, default: int = 0) -> str:
    return "" if value == default else f',"{key}":{value}'


def _root(root: Root) -> str:
    return str(root) if isinstance(root, int) else "[" + ",".join(map(str, root)) + "]"


@dataclass(frozen=True, slots=True)
class Header:
    """The guest: frames 0 to ``ram_frames``-1 are RAM and contain zeros, except for ``holes`` (first gfn, count)."""

    generation: int
    ram_frames: int
    holes: tuple[tuple[int, int], ...] = ()

    def line(self) -> str:
        """Returns the header's line, without its newline."""
        holes = ",".join(f"[{first},{count}]" for first, count in self.holes)
        tail = f',"holes":[{holes}]' if holes else ""
        return f'{{"trace":{TRACE_VERSION},"generation":{self.generation},"ram_frames":{self.ram_frames}{tail}}}'


@dataclass(frozen=True, slots=True)
class Store:
    """A store of ``size`` bytes (1, 2, 4 or 8) by a vCPU, at any alignment."""

    gpa: int
    size: int
    value: int
    vcpu: int = 0

    def line(self) -> str:
        """Returns the event's line, without its newline."""
        vcpu = _number("vcpu", self.vcpu)
        return f'{{"op":"store","gpa":{self.gpa},"size":{self.size},"value":{self.value}{vcpu}}}'


@dataclass(frozen=True, slots=True)
class Fill:
    """``count`` stores of 8 bytes by a vCPU, each of the same value, upwards from the 8-byte aligned ``gpa``."""

    gpa: int
    count: int
    value: int
    vcpu: int = 0

    def line(self) -> str:
        """Returns the event's line, without its newline."""
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
        """Returns the event's line, without its newline."""
        vcpu = _number("vcpu", self.vcpu)
        return f'{{"op":"mmio","offset":{self.offset},"size":{self.size},"value":{self.value}{vcpu}}}'


@dataclass(frozen=True, slots=True)
class Submit:
    """A submission: the GPU is about to execute with this address space."""

    mode: Mode
    root: Root

    def line(self) -> str:
        """Returns the event's line, without its newline."""
        return f'{{"op":"submit","mode":"{self.mode}","root":{_root(self.root)}}}'


@dataclass(frozen=True, slots=True)
class GpuStore:
    """A submission, then a store of 8 bytes by the GPU at the 8-byte aligned ``va``."""

    mode: Mode
    root: Root
    va: int
    value: int

    def line(self) -> str:
        """Returns the event's line, without its newline."""
        root = _root(self.root)
        return f'{{"op":"gpu_store","mode":"{self.mode}","root":{root},"va":{self.va},"value":{self.value}}}'


@dataclass(frozen=True, slots=True)
class Remove:
    """The guest gives these frames back: from here on they are not RAM."""

    gfn: int
    count: int

    def line(self) -> str:
        """Returns the event's line, without its newline."""
        return f'{{"op":"remove","gfn":{self.gfn},"count":{self.count}}}'


@dataclass(frozen=True, slots=True)
class Add:
    """From here on these frames are RAM and contain zeros, whatever they were before."""

    gfn: int
    count: int

    def line(self) -> str:
        """Returns the event's line, without its newline."""
        return f'{{"op":"add","gfn":{self.gfn},"count":{self.count}}}'


@dataclass(frozen=True, slots=True)
class Dump:
    """Note what every live address space resolves to now."""

    id: DumpId

    def line(self) -> str:
        """Returns the event's line, without its newline."""
        return f'{{"op":"dump","id":{json.dumps(self.id)}}}'


Event: TypeAlias = Store | Fill | Mmio | Submit | GpuStore | Remove | Add | Dump
