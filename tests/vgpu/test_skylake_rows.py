"""The rows of a Skylake GT2 against what drivers were seen to touch, and against what is known of contexts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xengt_dm.vgpu.registers.engine import ENGINES, EngineBlock
from xengt_dm.vgpu.registers.register import CORE, EXTRA, IMAGE, Register
from xengt_dm.vgpu.registers.skylake import REGISTERS, RESET_END

BASES = {"rcs0": 0x2000, "bcs0": 0x22000, "vcs0": 0x12000, "vecs0": 0x1A000}
#: Every register that i915 of Linux 6.1.192 or 6.12.118 read or wrote when it was loaded, or that its commands wrote,
#: as a throw-away device on real Xen saw it.
TOUCHED = """
FDC 2024 2064 2080 2088 2090 2098-209C 20A8 20B0-20B8 20D0-20D4 20E0 2230 2238 229C 23A0 24D0-24FC 2580 4024
4090-4094 40E0-40E4 4260-4264 426C 4DD4 4DDC 7004 7014 7300 9044 9120 9134 940C 941C 9424 A168 A188 A26C
B004-B008 B020-B09C B118-B11C C000 C050 C340 C800-C9FC CB00-CCFC E180-E188 E194 E4F0 12080 12098-1209C 120A8
120B0-120B8 120D0 12230 12238 1229C 123A0 1A080 1A098-1A09C 1A0A8 1A0B0-1A0B8 1A0D0 1A230 1A238 1A29C 1A3A0
22080 22098-2209C 220A8 220B0-220B8 220D0 22230 22238 2229C 223A0 42000 42080 42300 43224 44200 44304-4430C
44314-4431C 44324-4432C 44334-4433C 444E4-444EC 45000 45400-45404 45504 46408 46430 51000 C4004-C400C C6204
101008 120010 138124-13812C 145998 145E04
"""
#: What debugfs and the capture of an error read besides.
CAPTURED = """
A008-A00C A010-A014 A024 A050-A06C A090 A210 A2A0 C3E8 804C-8054 805C-8070 138060 138104-138110 145948 145994 44050
4446C 7100 E160-E164 100000-1000FC
"""
CAPTURED_OF_ENGINES = "30 34 38 3C 50 5C 60 64 68 6C 70 74 78 C0 110 140 168 180 270-28C 358-35C 370-39C"
#: The registers that each context has for itself on the render engine, besides what the driver's own list has.
OF_CONTEXTS = """
2290-2294 22C8-22CC 22D8-22DC 22F0-22FC 2300-2344 2360-2364 2400-2414 2418 2420 2430-2440 2448-2454 2500-2508
5200-521C 5240-525C 5280-528C 7000-7008 7034 E400-E404 2580 7014 7304
"""
#: Those that a user's batch may not write but through a slot that the driver gives them.
BY_SLOTS = {0x2580, 0x7014, 0x7304}
#: The driver's list: gt/intel_lrc.c gen9_rcs_offsets and gen9_xcs_offsets, from the engine's base.
IMAGE_OF_ALL = (
    "244 34 30 38 3C 168 140 110 11C 114 118 1C0 1C4 1C8 3A8 270-28C 28 9C C0 178 17C 170 150 154 158 41C 600-67C 68"
)
MASKED = """
20C0 20D4 20E0 20E4 2088 2090 2580 7000 7004 7008 7010 7014 7018 7300 7304 E180 E184 E188 E194 E4F0 22200 A188 A270
A278
"""
MASKED_OF_ENGINES = "50 9C C0 D0 244 29C 3A0"


def offsets(text: str, base: int = 0) -> list[int]:
    found: list[int] = []
    for each in text.split():
        first, _, last = each.partition("-")
        found += range(base + int(first, 16), base + int(last or first, 16) + 4, 4)
    return found


def of_engines(text: str) -> list[int]:
    return [offset for base in BASES.values() for offset in offsets(text, base)]


def row_at(offset: int) -> Register | None:
    return next((row for row in REGISTERS if row.offset <= offset < row.end), None)


def dwords(rows: Iterator[Register]) -> set[int]:
    return {offset for row in rows for offset in range(row.offset, row.end, 4)}


def test_what_drivers_touch_has_rows() -> None:
    touched = [*offsets(TOUCHED), *offsets(CAPTURED), *of_engines(CAPTURED_OF_ENGINES)]
    assert len(offsets(TOUCHED)) == 428
    assert [hex(offset) for offset in touched if row_at(offset) is None] == []


def test_engines_are_where_they_are() -> None:
    """In the order and with the bits of GDRST that everybody relies on."""
    assert [(engine.name, engine.base, engine.reset_bit) for engine in ENGINES] == [
        ("rcs0", 0x2000, 1),
        ("bcs0", 0x22000, 3),
        ("vcs0", 0x12000, 2),
        ("vecs0", 0x1A000, 4),
    ]


def test_contexts() -> None:
    extra = dwords(row for row in REGISTERS if row.context == EXTRA)
    assert extra == set(offsets(OF_CONTEXTS))
    for engine, base in BASES.items():
        image = dwords(row for row in REGISTERS if row.context == IMAGE and row.block == engine)
        own = {0x20C8} if engine == "rcs0" else {base + 0x200}
        assert image == set(offsets(IMAGE_OF_ALL, base)) | own, engine


def test_what_users_may_write() -> None:
    """General-purpose registers, the blitter's control, and what contexts have: nothing that two contexts share."""
    users = dwords(row for row in REGISTERS if row.user)
    expected = set(offsets(OF_CONTEXTS)) - BY_SLOTS | {0x22200, 0x20C0, 0x2158, 0x241C} | set(of_engines("600-67C"))
    assert users == expected
    assert all(row.context for row in REGISTERS if row.user)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_reset_of_an_engine_is_of_its_rows(engine: EngineBlock) -> None:
    inside = {row.name for row in REGISTERS if any(row.offset in each for each in engine.ranges)}
    assert inside == {row.name for row in REGISTERS if row.block == engine.name}
    assert all(each.stop <= RESET_END for each in engine.ranges)


def test_masked() -> None:
    masked = {row.offset for row in REGISTERS if row.masked}
    assert masked >= {*offsets(MASKED), *of_engines(MASKED_OF_ENGINES)}
    assert not masked & {0xE400, 0xE404, 0xB118, 0x4090}


def test_what_c_serves_is_marked() -> None:
    names = {row.name.partition(".")[2] or row.name for row in REGISTERS if row.served == CORE}
    assert names == {
        *("RING_ELSP", "RING_IMR", "RING_CONTEXT_STATUS_PTR", "RING_CTX_TIMESTAMP", "MASTER_IRQ", "GFX_FLSH_CNTL"),
        *("RTCR", "M1TCR", "M2TCR", "BTCR", "VTCR"),
        *(f"GT{bank}_{suffix}" for bank in range(4) for suffix in ("IMR", "IIR", "IER")),
    }


def test_events_of_the_blitter_are_shifted() -> None:
    """Its bits are the upper half of bank 0, and of its own mask."""
    for name, shift in (("rcs0", 0), ("bcs0", 16), ("vcs0", 0), ("vecs0", 0)):
        row = next(row for row in REGISTERS if row.name == f"{name}.RING_IMR")
        assert {field.name: field.low for field in row.fields} == {
            "USER_INTERRUPT": shift,
            "CS_ERROR": shift + 3,
            "FLUSH_NOTIFY": shift + 4,
            "CONTEXT_SWITCH": shift + 8,
            "WAIT_SEMAPHORE": shift + 11,
        }
