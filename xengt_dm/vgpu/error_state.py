"""Reads what i915 says of a hang: the text of ``/sys/class/drm/card0/error`` in the guest. Pure: text comes in.

Source: Linux 6.1 ``i915_gpu_error.c``: the registers of an engine stand under ``rcs0 command stream:``, and each object
that the driver kept under ``rcs0 --- ring = 0xUPPER LOWER``: one line, ``:`` and compressed by zlib or ``~`` and plain,
dword by dword as five digits of base 85.

What the text may make of us is bounded: no object is larger than :data:`MOST_BYTES`, nor are all together than
:data:`MOST_ALL`. The rest of a larger one is left out; what a damaged one has up to the damage is used.
"""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from xengt_dm.units import PAGE_SIZE
from xengt_dm.vgpu.commands import ENGINES
from xengt_dm.vgpu.decode import DEFAULT, Item, Limits, Ring, decode_batch, decode_image, decode_ring
from xengt_dm.vgpu.listing import Section

MOST_BYTES: Final = 16 << 20
MOST_ALL: Final = 64 << 20

_ENGINE: Final = re.compile(r"(\w{1,16}) command stream:$")
_REGISTER: Final = re.compile(r"  (\w[\w ]{0,30}):\s+(.{1,200})$")
_OBJECT: Final = re.compile(r"(\w{1,16}) --- ([\w ]{1,40}) = 0x([0-9a-f]{8}) ([0-9a-f]{8})$")
_NUMBER: Final = re.compile(r"\b(?:0x)?([0-9a-f]{8,16})\b")
#: Bits of RING_HEAD and RING_TAIL that are an offset, and of RING_CTL that are a size less a page.
_OFFSET: Final = 0x1FFFFC
_SIZE: Final = 0x1FF000


class Object(NamedTuple):
    """Memory that the driver kept. ``user`` and ``batch`` are in the PPGTT, all others in the GGTT."""

    name: str
    address: int
    data: bytes

    @property
    def ppgtt(self) -> bool:
        return self.name in ("batch", "user")


class Capture(NamedTuple):
    """What is said of one engine. ``registers``: the numbers after each name."""

    engine: str
    registers: Mapping[str, tuple[int, ...]]
    objects: list[Object]

    def read(self, ppgtt: bool, address: int, size: int) -> bytes:
        """As :class:`~xengt_dm.vgpu.decode.Memory`: what is in the objects."""
        for each in self.objects:
            start = address - each.address
            if each.ppgtt is ppgtt and 0 <= start < len(each.data):
                return each.data[start : start + size]
        return b""

    def register(self, name: str, number: int = 0) -> int:
        """The number at this place after the name, 0 if there is none."""
        numbers = self.registers.get(name, ())
        return numbers[number] if number < len(numbers) else 0

    def named(self, name: str) -> Object | None:
        return next((each for each in self.objects if each.name == name), None)


def is_error_state(data: bytes) -> bool:
    """Whether a file looks like the text that :func:`parse` takes."""
    return any(mark in data for mark in (b" command stream:\n", b" --- ring = 0x", b" --- batch = 0x"))


def parse(lines: Iterable[str]) -> list[Capture]:
    """Returns what is said of each engine. Whatever is no part of that is passed over."""
    captures: dict[str, tuple[dict[str, tuple[int, ...]], list[Object]]] = {}
    of: dict[str, tuple[int, ...]] = {}
    kept: tuple[str, str, int] | None = None
    left = MOST_ALL
    for line in lines:
        line = line.rstrip("\r\n")
        if found := _ENGINE.match(line):
            of = captures.setdefault(found[1], ({}, []))[0]
        elif found := _OBJECT.match(line):
            kept = (found[1], found[2], int(found[3] + found[4], 16))
        elif kept and line[:1] in (":", "~"):
            data = _unpack(line, min(left, MOST_BYTES))
            left -= len(data)
            captures.setdefault(kept[0], ({}, []))[1].append(Object(*kept[1:], data))
            kept = None
        elif (found := _REGISTER.match(line)) and len(of) < 100:
            of.setdefault(found[1], tuple(int(each, 16) for each in _NUMBER.findall(found[2])))
    return [Capture(engine, *found) for engine, found in captures.items() if engine in ENGINES]


def _unpack(line: str, most: int) -> bytes:
    """The bytes of an object's line."""
    # Of 5 digits each, but for a zero, which is one "z"; compressed, a byte can stand for a thousand.
    digits = re.match(r"[!-uz]*", line[1 : 1 + 2 * MOST_BYTES])
    text = digits[0] if digits else ""
    try:
        swapped = base64.a85decode(_whole(text))
    except ValueError:  # five digits can say more than 32 bits
        return b""
    count = len(swapped) // 4
    packed = struct.pack(f"<{count}I", *struct.unpack(f">{count}I", swapped))
    if line[0] == "~":
        return packed[:most]
    unpacker = zlib.decompressobj()
    data = b""
    try:
        while len(data) < most and not unpacker.eof and packed:
            data += unpacker.decompress(packed, min(1 << 16, most - len(data)))
            packed = unpacker.unconsumed_tail
    except zlib.error:
        pass
    return data[: len(data) // 4 * 4]


def _whole(text: str) -> str:
    """The text up to the last group that is whole: each is "z" or of five digits."""
    whole = re.match(r"(?:z|[!-u]{5})*", text)
    return whole[0] if whole else ""


def sections(captures: Iterable[Capture], limits: Limits = DEFAULT) -> Iterator[Section]:
    """Yields what can be decoded: for each engine the ring, its batch if the ring did not lead to it, and the context
    image. Take all items of a section before the next one.
    """
    for capture in captures:
        seen: set[int] = set()
        marks = _marks(capture)
        if (ring := _ring(capture)) is not None:
            yield Section(
                _title(capture, ring), _noting(decode_ring(capture.engine, ring, capture, limits), seen), marks
            )
        batch = capture.named("batch")
        if batch is not None and batch.address not in seen:
            items = decode_batch(capture.engine, capture, True, batch.address, limits)
            yield Section(f"{capture.engine}: the batch", items, marks)
        image = capture.named("HW context")
        if image is not None and len(image.data) > PAGE_SIZE:
            data = image.data[PAGE_SIZE : 2 * PAGE_SIZE]
            items = decode_image(capture.engine, data, image.address + PAGE_SIZE)
            yield Section(f"{capture.engine}: the context image", items)


def _ring(capture: Capture) -> Ring | None:
    """The ring from the request that hung to the tail; from the head, if that is not said."""
    kept = capture.named("ring")
    if kept is None:
        return None
    size = min(len(kept.data), (capture.register("CTL") & _SIZE) + PAGE_SIZE)
    has_request = capture.register("TAIL", 1) != 0
    head = capture.register("HEAD", 1 if has_request else 0)
    return Ring(kept.data[:size], kept.address, head & _OFFSET, capture.register("TAIL") & _OFFSET)


def _title(capture: Capture, ring: Ring) -> str:
    names = ("HEAD", "TAIL", "IPEHR")
    told = ", ".join(f"{name} {capture.register(name):#x}" for name in names)
    acthd = capture.register("ACTHD") << 32 | capture.register("ACTHD", 1)
    return f"{capture.engine}: the ring from {ring.head:#x} to {ring.tail:#x}; {told}, ACTHD {acthd:#x}"


def _marks(capture: Capture) -> Mapping[tuple[bool, int], str]:
    acthd = capture.register("ACTHD") << 32 | capture.register("ACTHD", 1)
    head = (False, capture.register("START") + (capture.register("HEAD") & _OFFSET))
    return {head: "HEAD", (True, acthd): "ACTHD", (False, acthd): "ACTHD"}


def _noting(items: Iterable[Item], seen: set[int]) -> Iterator[Item]:
    """The items; adds the addresses of those in the PPGTT to ``seen``."""
    for item in items:
        if item.ppgtt:
            seen.add(item.address)
        yield item
