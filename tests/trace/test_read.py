"""Reading traces: everything the format allows, and for everything else the line and what is wrong with it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from xengt_dm.errors import DataError, ExitCode
from xengt_dm.trace.events import (
    Add,
    Dump,
    Fill,
    GpuStore,
    Header,
    Mmio,
    Remove,
    Store,
    Submit,
)
from xengt_dm.trace.read import frame_limit, read_trace, vcpu_count

U64 = (1 << 64) - 1
HEADER = '{"trace": 1, "generation": 9, "ram_frames": 64}'


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def test_every_event(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"trace": 1, "generation": 8, "ram_frames": 16384, "holes": [[200, 1], [100, 4], [102, 7], [7, 0]]}',
        '{"op": "store", "gpa": 4093, "size": 8, "value": 18446744073709551615}',
        '{"op": "store", "gpa": 0, "size": 1, "value": 255, "vcpu": 127}',
        '{"value": 3, "vcpu": 1, "count": 0, "gpa": 8, "op": "fill"}',
        '{"op": "mmio", "offset": 16777208, "size": 8, "value": 0}\r',
        '{"op": "submit", "mode": "l4", "root": 4097}',
        '{"op": "submit", "mode": "l3", "root": [1, 0, 18446744073709551615, 4096]}',
        '{"op": "gpu_store", "mode": "l4", "root": 4096, "va": 18446744073709551608, "value": 5}',
        '{"op": "remove", "gfn": 4503599627370495, "count": 1}',
        '{"op": "add", "gfn": 17179869183, "count": 1}',
        '{"op": "dump", "id": "\\u00e4 \\ud83d\\ude00"}',
        ' {"op": "dump", "id": 7} ',
    )
    header, events = read_trace(path)
    assert header == Header(8, 16384, ((200, 1), (100, 4), (102, 7), (7, 0)))
    assert events == [
        Store(4093, 8, U64),
        Store(0, 1, 255, vcpu=127),
        Fill(8, 0, 3, vcpu=1),
        Mmio(16777208, 8, 0),
        Submit("l4", 4097),
        Submit("l3", (1, 0, U64, 4096)),
        GpuStore("l4", 4096, U64 - 7, 5),
        Remove((1 << 52) - 1, 1),
        Add((1 << 34) - 1, 1),
        Dump("ä 😀"),
        Dump(7),
    ]
    assert vcpu_count(events) == 128
    assert frame_limit(header, events) == 1 << 34


def test_header_alone_and_no_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(HEADER)
    assert read_trace(path) == (Header(9, 64), [])
    assert vcpu_count([]) == 1
    assert frame_limit(Header(9, 64), [Add(3, 4)]) == 64


def test_gzip_by_name(tmp_path: Path) -> None:
    text = (HEADER + '\n{"op": "dump", "id": "a"}\n').encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text[:30]) + gzip.compress(text[30:]))
    assert read_trace(tmp_path / "a.jsonl.gz") == (Header(9, 64), [Dump("a")])
    (tmp_path / "a.gz.jsonl").write_bytes(text)
    assert read_trace(str(tmp_path / "a.gz.jsonl")) == (Header(9, 64), [Dump("a")])


def event(**fields: object) -> str:
    return json.dumps(fields)


STORE = {"op": "store", "gpa": 0, "size": 8, "value": 0}
FILL = {"op": "fill", "gpa": 0, "count": 1, "value": 0}
MMIO = {"op": "mmio", "offset": 0, "size": 4, "value": 0}
SUBMIT = {"op": "submit", "mode": "l4", "root": 0}
GPU_STORE = {"op": "gpu_store", "mode": "l4", "root": 0, "va": 0, "value": 0}

BAD_EVENTS = [
    ("", "the line is empty"),
    ("   ", "the line is empty"),
    ("nonsense", "not JSON at column 1"),
    ('{"op": "dump", "id": "a"} {}', "not JSON at column 27: Extra data"),
    ('{"op": "dump", "id": "a"', "not JSON at column 25"),
    ("[1]", "[1] is no JSON object"),
    ("17", "17 is no JSON object"),
    ("null", "null is no JSON object"),
    (b'{"op": "dump", "id": "\xff"}', "byte 23 is not UTF-8"),
    (b"\xef\xbb\xbf{}", "not JSON at column 1"),
    ("{}", 'the key "op" is missing; it must be one of store, fill, mmio'),
    (event(op="Store"), 'op is "Store"; it must be one of store,'),
    (event(op=["store"]), 'op is ["store"]; it must be one of'),
    (event(op=None), "op is null; it must be one of"),
    (HEADER, "a second header"),
    (event(**STORE, comment="x"), 'store: unknown key "comment"; its keys are gpa, op, size, value, vcpu'),
    (event(**STORE, count=1), 'store: unknown key "count"'),
    (event(**SUBMIT, vcpu=0), 'submit: unknown key "vcpu"'),
    (event(op="store", gpa=0, size=8), 'store: the key "value" is missing'),
    (event(op="dump"), 'dump: the key "id" is missing'),
    ('{"op": "store", "gpa": 0, "size": 8, "value": 0, "gpa": 0}', 'the key "gpa" occurs twice'),
    ('{"op": "dump", "op": "dump", "id": "a"}', 'the key "op" occurs twice'),
    (event(**{**STORE, "gpa": -1}), "gpa is -1; it must be an integer from 0 to 2^64-1"),
    (event(**{**STORE, "gpa": U64 + 1}), "gpa is 18446744073709551616; it must be an integer"),
    (event(**{**STORE, "gpa": 1.0}), "gpa is 1.0; it must be an integer"),
    ('{"op": "store", "gpa": 1e3, "size": 8, "value": 0}', "gpa is 1000.0; it must be an integer"),
    (event(**{**STORE, "gpa": True}), "gpa is true; it must be an integer"),
    (event(**{**STORE, "gpa": "0x1000"}), 'gpa is "0x1000"; it must be an integer'),
    (event(**{**STORE, "gpa": None}), "gpa is null; it must be an integer"),
    (event(**{**STORE, "gpa": list(range(99))}), "gpa is [0, 1, 2,"),
    (event(**{**STORE, "gpa": U64}), "the store ends at 18446744073709551623"),
    ('{"op": "store", "gpa": 0, "size": 8, "value": NaN}', "NaN is no JSON"),
    ('{"op": "store", "gpa": 0, "size": 8, "value": -Infinity}', "-Infinity is no JSON"),
    ('{"op": "store", "gpa": ' + "9" * 5000 + ', "size": 8, "value": 0}', "a number is far too long"),
    ("[" * 100_000, "nest too deeply"),
    (event(**{**STORE, "size": 3}), "size is 3; it must be 1, 2, 4 or 8"),
    (event(**{**STORE, "size": True}), "size is true; it must be 1, 2, 4 or 8"),
    (event(**{**STORE, "size": 1.0}), "size is 1.0; it must be"),
    (event(**{**STORE, "size": 1, "value": 256}), "value 256 does not fit size 1; it must be at most 255"),
    (event(**{**STORE, "size": 4, "value": 1 << 32}), "value 4294967296 does not fit size 4"),
    (event(**STORE, vcpu=128), "vcpu is 128; it must be an integer from 0 to 127"),
    (event(**STORE, vcpu=False), "vcpu is false; it must be an integer"),
    (event(**{**FILL, "gpa": 4}), "gpa is 4; it must be a multiple of 8"),
    (event(**{**FILL, "count": -1}), "count is -1; it must be"),
    (event(**{**FILL, "gpa": 8, "count": 1 << 61}), "the fill ends at 18446744073709551624"),
    (event(**{**MMIO, "size": 2}), "size is 2; it must be 4 or 8"),
    (event(**{**MMIO, "offset": 0xFFFFFD}), "the register write ends at 16777217"),
    (event(**{**MMIO, "value": 1 << 32}), "value 4294967296 does not fit size 4"),
    (event(**{**SUBMIT, "mode": "L4"}), 'mode is "L4"; it must be "l4" or "l3"'),
    (event(**{**SUBMIT, "mode": 4}), 'mode is 4; it must be "l4" or "l3"'),
    (event(**{**SUBMIT, "root": [0, 0, 0, 0]}), "root is [0, 0, 0, 0]; it must be an integer"),
    (event(**{**SUBMIT, "mode": "l3"}), "root is 0; with mode l3 it must be a list of four"),
    (event(**{**SUBMIT, "mode": "l3", "root": [0, 0, 0]}), "root is [0, 0, 0]; with mode l3"),
    (event(**{**SUBMIT, "mode": "l3", "root": [0, 0, 0, -1]}), "root has -1; it must be four integers"),
    (event(**{**SUBMIT, "mode": "l3", "root": [0, 0, 0, 0.0]}), "root has 0.0; it must be"),
    (event(**{**GPU_STORE, "va": 4}), "va is 4; it must be a multiple of 8"),
    (event(**{**GPU_STORE, "value": U64 + 1}), "value is 18446744073709551616; it must be"),
    (event(op="remove", gfn=1 << 52, count=1), "the range of frames ends at 4503599627370497"),
    (event(op="add", gfn=1 << 34, count=1), "the range of frames ends at 17179869185, past 17179869184"),
    (event(op="add", gfn=0, count="1"), 'count is "1"; it must be'),
    (event(op="dump", id=None), "id is null; it must be a string"),
    (event(op="dump", id=-1), "id is -1; it must be a string"),
    (event(op="dump", id=1.5), "id is 1.5; it must be a string"),
    (event(op="dump", id=["a"]), 'id is ["a"]; it must be a string'),
]


@pytest.mark.parametrize(("line", "message"), BAD_EVENTS, ids=range(len(BAD_EVENTS)))
def test_bad_event_names_file_line_and_cure(tmp_path: Path, line: str | bytes, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", HEADER, event(op="dump", id="a"), line, event(op="dump", id="b"))
    with pytest.raises(DataError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.exit_code == ExitCode.DATA == 65


BAD_HEADERS = [
    (event(op="dump", id="a"), "the first line must be the header"),
    ("{}", "the first line must be the header"),
    ("[]", "[] is no JSON object"),
    ('{"trace": 2}', "trace is 2; this program reads version 1"),
    ('{"trace": true, "generation": 9, "ram_frames": 64}', "trace is true; this program reads version 1"),
    ('{"trace": 1.0, "generation": 9, "ram_frames": 64}', "trace is 1.0; this program reads"),
    ('{"trace": 1, "generation": 9}', 'header: the key "ram_frames" is missing'),
    ('{"trace": 1, "ram_frames": 9}', 'header: the key "generation" is missing'),
    ('{"trace": 1, "generation": 9, "ram_frames": 64, "op": "store"}', 'header: unknown key "op"'),
    ('{"trace": 1, "trace": 1, "generation": 9, "ram_frames": 64}', 'the key "trace" occurs twice'),
    ('{"trace": 1, "generation": 11, "ram_frames": 64}', "generation is 11; it must be 8 or 9"),
    ('{"trace": 1, "generation": "9", "ram_frames": 64}', 'generation is "9"; it must be 8 or 9'),
    ('{"trace": 1, "generation": 9, "ram_frames": 0}', "ram_frames is 0; it must be an integer from 1"),
    ('{"trace": 1, "generation": 9, "ram_frames": 17179869185}', "an integer from 1 to 17179869184"),
    ('{"trace": 1, "generation": 9, "ram_frames": 64, "holes": 3}', "holes is 3; it must be a list"),
    ('{"trace": 1, "generation": 9, "ram_frames": 64, "holes": null}', "holes is null; it must be a list"),
    ('{"trace": 1, "generation": 9, "ram_frames": 64, "holes": [3]}', "holes has 3; each must be"),
    ('{"trace": 1, "generation": 9, "ram_frames": 64, "holes": [[1, 2, 3]]}', "holes has [1, 2, 3]; each must be"),
    ('{"trace": 1, "generation": 9, "ram_frames": 64, "holes": [[1, -2]]}', "a hole's count is -2"),
    ('{"trace": 1, "generation": 9, "ram_frames": 64, "holes": [[true, 2]]}', "a hole's first frame is true"),
    ('{"trace": 1, "generation": 9, "ram_frames": 64, "holes": [[63, 2]]}', "reaches over the last frame of RAM, 63"),
]


@pytest.mark.parametrize(("line", "message"), BAD_HEADERS, ids=range(len(BAD_HEADERS)))
def test_bad_header(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", line)
    with pytest.raises(DataError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    with pytest.raises(DataError, match=r":1: the file is empty; the first line must be the header"):
        read_trace(tmp_path / name)


def test_gzip_cut_short_anywhere(tmp_path: Path) -> None:
    data = gzip.compress("".join([HEADER, "\n", (event(**STORE) + "\n") * 50]).encode())
    path = tmp_path / "a.jsonl.gz"
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a\.jsonl\.gz: (the gzip data ends early|not gzip data)"):
            read_trace(path)


def test_gzip_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes((HEADER + "\n").encode())
    with pytest.raises(DataError, match=r"not gzip data, though its name ends in \.gz"):
        read_trace(path)
    data = bytearray(gzip.compress((HEADER + "\n").encode() * 9))
    for position in range(10, len(data) - 8):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            read_trace(path)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read: No such file or directory"):
        read_trace(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_trace(tmp_path)
