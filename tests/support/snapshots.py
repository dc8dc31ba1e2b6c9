"""Everything that an engine knows, as values that can be compared: to show that a reader changed nothing."""

from __future__ import annotations

from typing import Any

from tests.support.engine_bench import EngineBench
from xengt_dm._core import ffi
from xengt_dm.ppgtt.engine import Engine
from xengt_dm.units import PAGE_SIZE, CData

#: The only counters that a reader may change.
AUDITS = ("audits", "audit_mismatches", "audit_overdue")


def snapshot(engine: Engine, guest: EngineBench | None = None) -> dict[str, Any]:
    """All tables, frames, counters and spaces of an engine, byte by byte; and what its guest's host was asked for."""
    shadow, frames = engine.shadow, engine.frames.pointer
    tables = shadow.used + 1
    taken = {
        "shadow": _bytes(shadow, ffi.sizeof("xd_shadow")),
        "tables": _bytes(shadow.tables, tables * ffi.sizeof("xd_table")),
        "pages": _bytes(shadow.pages, tables * PAGE_SIZE),
        "index": _bytes(shadow.buckets, (shadow.bucket_mask + 1) * ffi.sizeof("uint32_t")),
        "frames": _bytes(frames, ffi.sizeof("xd_frames")),
        "frame states": _bytes(frames.state, frames.limit),
        "mapped": _bytes(frames.mapped, frames.chunks * ffi.sizeof("char *")),
        "queried": _bytes(frames.queried_at, frames.chunks * ffi.sizeof("uint32_t")),
        "all ram": _bytes(frames.all_ram, frames.chunks * ffi.sizeof("uint32_t")),
        "counters": _counters(engine.counters),
        "spaces": [(space.mode, space.roots, space.refs, [*space.numbers]) for space in engine.spaces_by_age],
        "engine": (engine.sync_mode, engine.quiesced, engine.frames.mapped_chunks),
    }
    if guest is not None:
        taken["host"] = (set(guest.protected), set(guest.lost), guest.maps, guest.unmaps)
        taken["memory"] = bytes(guest.memory)
    return taken


def _bytes(pointer: CData, size: int) -> bytes:
    return bytes(ffi.buffer(ffi.cast("char *", pointer), size))


def _counters(counters: CData) -> bytes:
    copy = ffi.new("xd_counters *", counters[0])
    for name in AUDITS:
        setattr(copy, name, 0)
    return _bytes(copy, ffi.sizeof("xd_counters"))
