"""What i915 says of a hang: read, decoded, and safe to read whatever it is."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest

from tests.support.error_states import BATCH, IMAGE, RING, digits, error_state, kept
from tests.support.gpu_programs import BATCH_END, REQUEST_NAMES, dwords
from xengt_dm.vgpu import error_state as module
from xengt_dm.vgpu.decode import Kind
from xengt_dm.vgpu.error_state import MOST_BYTES, is_error_state, parse, sections


def decoded(text: str) -> list[tuple[str, list[str]]]:
    return [
        (section.title, [item.command.name if item.command else f"? {item.problem}" for item in section.items])
        for section in sections(parse(text.split("\n")))
    ]


@pytest.mark.parametrize("packed", [True, False])
def test_a_hang(packed: bool) -> None:
    text = error_state(packed=packed)
    assert is_error_state(text.encode())
    (capture,) = parse(text.split("\n"))
    assert capture.engine == "rcs0"
    assert capture.registers["ACTHD"] == (0x7FFF, 0x1004)
    assert capture.registers["TAIL"] == (0x198, 0x178, 0x198)
    assert [(each.name, each.address, each.ppgtt) for each in capture.objects] == [
        ("ring", RING, False),
        ("batch", BATCH, True),
        ("HW context", IMAGE, False),
    ]
    (ring, items), (image, loads) = [(section, list(section.items)) for section in sections([capture])]
    at = REQUEST_NAMES.index("MI_BATCH_BUFFER_START") + 1
    assert [item.command.name for item in items if item.command and item.kind is Kind.RING] == REQUEST_NAMES
    assert [item.address for item in items[at : at + 3]] == [BATCH, BATCH + 4, BATCH + 8]
    assert ring.marks == {(False, RING + 0x150): "HEAD", (True, BATCH + 4): "ACTHD", (False, BATCH + 4): "ACTHD"}
    assert "ACTHD 0x7fff00001004" in ring.title
    assert image.title == "rcs0: the context image"
    assert loads[0].address == IMAGE + 0x1000


def test_a_batch_that_the_ring_does_not_lead_to() -> None:
    text = error_state({"batch": dwords(BATCH_END)})
    assert decoded(text) == [("rcs0: the batch", ["MI_BATCH_BUFFER_END"])]
    text = error_state().replace("[0x00000178, 0x00000198]", "[0x00000000, 0x00000000]")
    titles = [title for title, _ in decoded(text)]
    assert titles[0].startswith("rcs0: the ring from 0x150 to 0x198")
    assert titles[1] == "rcs0: the batch"


def test_engines_that_nobody_knows_are_left_out() -> None:
    text = error_state().replace("rcs0", "vcs1")
    assert parse(text.split("\n")) == []


def test_what_is_no_error_state() -> None:
    assert not is_error_state(bytes(100))
    assert not is_error_state(b"--- a\n+++ b\n")
    assert parse(["", "~", ":abc", "rcs0 --- ring", "  HEAD: 0x5"]) == []


@pytest.mark.parametrize("change", ["cut", "bad digit", "bad stream", "too large a group", "empty"])
def test_objects_that_are_damaged(change: str) -> None:
    """What can be had of them is used."""
    line = kept("rcs0", "batch", BATCH, dwords(*[0x02800000] * 2000) + random.Random(3).randbytes(8000)).split("\n")[1]
    changed = {
        "cut": line[: len(line) // 2],
        "bad digit": line[:500] + "~" + line[501:],
        "bad stream": ":" + digits(b"\x78\x9cno zlib at all"),
        "too large a group": line[:501] + "uuuuu" + line[506:],
        "empty": ":",
    }[change]
    (capture,) = parse(["rcs0 --- batch = 0x00007fff 00001000", changed])
    assert len(capture.objects[0].data) % 4 == 0
    if change in ("cut", "bad digit"):
        assert capture.objects[0].data[:8] == dwords(0x02800000, 0x02800000)
    decoded("rcs0 --- batch = 0x00007fff 00001000\n" + changed)


def test_a_stream_that_becomes_enormous() -> None:
    packed = zlib.compress(bytes(200 << 20), 9)
    line = ":" + digits(packed + bytes(-len(packed) % 4))
    lines = ["rcs0 --- batch = 0x00000000 00001000", line] * 8
    tracemalloc.start()
    (capture,) = parse(lines)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sizes = [len(each.data) for each in capture.objects]
    assert sizes[:4] == [MOST_BYTES] * 4
    assert sum(sizes) == module.MOST_ALL
    assert peak < 2 * module.MOST_ALL


def test_objects_at_one_address_in_two_spaces() -> None:
    (capture,) = parse((kept("rcs0", "ring", 0x5000, b"ring") + kept("rcs0", "batch", 0x5000, b"user")).split("\n"))
    assert (capture.read(False, 0x5000, 4), capture.read(True, 0x5000, 4)) == (b"ring", b"user")


@pytest.mark.parametrize("packed", [True, False])
def test_no_object_is_larger_than_the_most(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    text = error_state({"batch": bytes(range(1, 251)) * 10}, packed=packed)
    (capture,) = parse(text.split("\n"))
    assert [len(each.data) for each in capture.objects] == [1000]


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_text_never_raises(seed: int) -> None:
    chance = random.Random(seed)
    text = list(error_state())
    for _ in range(chance.randrange(1, 200)):
        at = chance.randrange(len(text))
        text[at] = chance.choice([chr(chance.randrange(32, 127)), "\n", "", "\0", "é", "0x"])
    decoded("".join(text))
