"""Listings: what people read of decoded commands, and what JSON has."""

from __future__ import annotations

import json

from tests.support.gpu_programs import ARB_CHECK, BATCH_END, NOOP, dwords, start, store
from xengt_dm.vgpu.decode import Flat, Limits, decode_batch
from xengt_dm.vgpu.listing import MOST_LINES, lines, values
from xengt_dm.vgpu.register_names import register_names


def listing(program: bytes, engine: str = "rcs0", marks: dict[tuple[str, int], str] | None = None) -> list[str]:
    items = decode_batch(engine, Flat(program, 0x1000), True, 0x1000, Limits(10_000))
    return list(lines((values(item, register_names()) for item in items), marks or {}))


def test_a_line_for_each_dword() -> None:
    program = dwords(*store(0x12_0000_1008, 5, 6), 0x11001001, 0x2244, 0x80008, *[NOOP] * 7, *start(0x1000))
    assert listing(program, marks={("ppgtt", 0x1014): "HEAD", ("ggtt", 0x1000): "not here"}) == [
        "batch of level 1 in the PPGTT at 0x1000",
        "00001000  10400003  MI_STORE_DATA_IMM  GGTT",
        "00001004  00001008    address: 0x1200001008",
        "00001008  00000012",
        "0000100c  00000005    data: 0x5",
        "00001010  00000006    data: 0x6",
        "00001014  11001001  MI_LOAD_REGISTER_IMM  posted  <-- HEAD",
        "00001018  00002244    register: 0x2244 rcs0.RING_CONTEXT_CONTROL",
        "0000101c  00080008    value: 0x80008",
        "00001020  00000000  MI_NOOP x 7",
        "0000103c  18800101  MI_BATCH_BUFFER_START  level: 1, PPGTT  (goes back to what is above)",
        "00001040  00001000    address: 0x1000",
        "00001044  00000000",
    ]


def test_fields_of_many_kinds() -> None:
    program = dwords(
        *(0x0E00C002, 0x5, 0x8000, 0),
        *(0x0D000003, 0x08008000, 0x08008401, 0x10000000, 0x18000031),
        *(0x17840709, 0x2000, 0, 1, 0, 0, 0, 0, 0, 0, 0),
        BATCH_END,
    )
    text = "\n".join(listing(program))
    assert "MI_SEMAPHORE_WAIT  wait: polling, until memory is: ==" in text
    assert "  LOAD, operand 1: SRCA, operand 2: R0" in text
    assert "  STORE, operand 1: R0, operand 2: ACCU" in text
    assert "MI_ATOMIC  size: dword, inline data, operation: ADD" in text


def test_a_blit() -> None:
    program = dwords(0x54F08808, 0x03CC0040, 0xFFFF0000, 0x00100008, 0x1000, 0x7F, 0, 0x8040, 0x2000, 0x7F, BATCH_END)
    text = "\n".join(listing(program, "bcs0"))
    assert "XY_SRC_COPY_BLT  channels: RGBA, tiled source, tiled destination" in text
    assert "depth: 32 bpp, raster operation: SRCCOPY, destination pitch: 64" in text
    assert "x1: 0, y1: -1" in text
    assert "destination: 0x7f00001000" in text
    assert "source pitch: -32704" in text


def test_what_cannot_be_decoded() -> None:
    assert listing(dwords(ARB_CHECK, 0xDEADBEEF))[-1] == (
        "00001004  deadbeef  ?  (not decodable: a header of client 6, and rcs0 has clients 0, 3)"
    )
    assert listing(dwords(ARB_CHECK))[-1] == "00001004  --------  (nothing is there)"
    assert listing(dwords(0x11000003, 7))[1:] == [
        "00001000  11000003  MI_LOAD_REGISTER_IMM  (ends after 2 of 5 dwords)",
        "00001004  00000007    register: 0x4",
    ]


def test_long_commands_are_cut() -> None:
    count = 4 * MOST_LINES
    shown = listing(dwords(*store(0, *range(1, count)), BATCH_END))
    assert len(shown) == 1 + MOST_LINES + 1 + 1
    assert shown[-2].strip() == f"...       {count + 2 - MOST_LINES} dwords more"
    (told,) = [values(item) for item in decode_batch("rcs0", Flat(dwords(*store(0, *range(1, count))), 0), True, 0)][:1]
    assert len(told["dwords"]) == MOST_LINES  # type: ignore[arg-type]
    assert max(field[0] for field in told["fields"]) == MOST_LINES - 1  # type: ignore[attr-defined]


def test_values_are_json() -> None:
    items = decode_batch("rcs0", Flat(dwords(*store(0x1008, 5), NOOP, NOOP, 0xDEADBEEF), 0), False, 0)
    told = json.loads(json.dumps([values(item) for item in items]))
    assert told[0] == {
        "in": "batch",
        "level": 1,
        "space": "ggtt",
        "address": 0,
        "command": "MI_STORE_DATA_IMM",
        "size": 4,
        "dwords": [0x10400002, 0x1008, 0, 5],
        "fields": [
            [0, "GGTT", 1, "GGTT"],
            [1, "address", 0x1008, "address: 0x1008"],
            [3, "data", 5, "data: 0x5"],
        ],
    }
    assert told[1]["repeats"] == 2
    assert told[2]["command"] is None
    assert "not decodable" in told[2]["problem"]
