"""What a blit does beside its pixels: turns and budgets, faults, frames with page tables, commands without sense."""

from __future__ import annotations

import random

import pytest

from tests.support import twins
from tests.support.tables import FRAME
from tests.vgpu.blit.commands import corner, halves
from tests.vgpu.blit.twin import COMMANDS, Twin
from tests.vgpu.blit.world import REGION_PAGES, REGION_STARTS, Blitter, Guest, TwinMemory
from xengt_dm._core import ffi, lib

START, OTHER = REGION_STARTS[:2]
COMMAND = 2 << 29
XOR, COPY = 0x66, 0xCC


def copy(x2: int, y2: int, *, raster: int = COPY, to: int = START, source: int = OTHER) -> list[int]:
    """XY_SRC_COPY_BLT of 32-bit pixels from (0, 0) to (0, 0), a page for each row."""
    head = [COMMAND | 0x53 << 22 | 3 << 20 | 8, 3 << 24 | raster << 16 | FRAME, 0, corner(x2, y2)]
    return [*head, *halves(to), 0, FRAME, *halves(source)]


def fast_fill(x2: int, y2: int, *, depth: int = 5) -> list[int]:
    """XY_FAST_COPY_BLT of as much as there can be."""
    head = [COMMAND | 0x42 << 22 | 8, depth << 24 | FRAME, corner(-0x8000, -0x8000), corner(x2, y2)]
    return [*head, *halves(START), corner(-0x8000, -0x8000), FRAME, *halves(OTHER)]


def make(seed: int = 1) -> Guest:
    guest = Guest(random.Random(seed), chunks=2)
    guest.map_region(START)
    guest.map_region(OTHER)
    return guest


def test_a_turn_does_what_its_budget_allows() -> None:
    """A copy touches twice the bytes of a span; at least one span is done."""
    guest = make()
    blitter = Blitter(guest)
    assert blitter.begin(copy(1024, 64)) == lib.XD_BLIT_RUN
    assert blitter.turn(0) == lib.XD_BLIT_BUDGET
    assert blitter.blit.cursor == 0
    for budget, spans in ((1, 1), (2 * FRAME, 1), (2 * FRAME + 1, 2), (20 * FRAME, 10)):
        before = blitter.blit.cursor
        assert blitter.turn(budget) == lib.XD_BLIT_BUDGET
        assert blitter.blit.cursor - before == spans
    assert blitter.turn(1 << 40) == lib.XD_GM_DONE
    assert blitter.turn(0) == lib.XD_GM_DONE


def test_the_cost_of_a_source_that_is_read_ahead() -> None:
    """16 pages are read at once, and then a page of the destination is written in each span."""
    blitter = Blitter(make())
    head = [COMMAND | 0x42 << 22 | 2 << 13 | 8, 3 << 24 | 512, 0, corner(512, 32)]
    assert blitter.begin([*head, *halves(START), 0, FRAME, *halves(OTHER)]) == lib.XD_BLIT_RUN
    assert blitter.turn(17 * FRAME) == lib.XD_BLIT_BUDGET
    assert blitter.blit.cursor == 1 << 51
    assert blitter.turn(17 * FRAME + 1) == lib.XD_BLIT_BUDGET
    assert blitter.blit.cursor == 3 << 51


def test_the_cost_of_thin_rectangles() -> None:
    """A pixel costs as much as 64 bytes, since its rows are handled one by one."""
    blitter = Blitter(make())
    assert blitter.begin(copy(1, 1000)) == lib.XD_BLIT_RUN
    assert blitter.turn(128 * 10) == lib.XD_BLIT_BUDGET
    assert blitter.blit.cursor == 10


def test_the_largest_rectangle_is_bounded() -> None:
    """16 GiB: 2^16 rows and columns, of which those with negative coordinates are cut off."""
    blitter = Blitter(Guest(random.Random(1), chunks=1))
    assert blitter.begin(fast_fill(0x7FFF, 0x7FFF)) == lib.XD_BLIT_RUN
    assert (blitter.blit.width, blitter.blit.height) == (0x7FFF, 0x7FFF)
    row = 0x7FFF * 16
    for _ in range(20):
        before = blitter.blit.cursor
        assert blitter.turn(1 << 20) == lib.XD_BLIT_BUDGET
        moved = (blitter.blit.cursor & 0xFFFF) - (before & 0xFFFF)
        assert moved in (1, 2)
    assert blitter.blit.cursor & 0xFFFF == 20 * (1 << 19) // row


def test_a_large_rectangle_ends() -> None:
    blitter = Blitter(Guest(random.Random(1), chunks=1))
    assert blitter.begin(fast_fill(0x7FFF, 0x0FFF, depth=0)) == lib.XD_BLIT_RUN
    assert blitter.turn(1 << 40) == lib.XD_GM_DONE
    assert blitter.blit.cursor == 0x0FFF


def test_faults() -> None:
    """The first is recorded; all else is drawn."""
    guest = make()
    missing, read_only = START // FRAME + 3, START // FRAME + 1
    gfn = guest.pages.pop(missing).gfn
    guest.unmap(missing)
    guest.map(read_only, guest.pages[read_only].gfn, writable=False)
    kept = [bytes(guest.frame(each)) for each in (gfn, guest.pages[read_only].gfn)]
    blitter = Blitter(guest)
    blitter.execute(copy(1024, 5))
    fault = blitter.memory.fault
    assert (fault.valid, fault.write, fault.level, fault.address) == (1, 1, 4, START + FRAME)
    assert [bytes(guest.frame(each)) for each in (gfn, guest.pages[read_only].gfn)] == kept
    for i in (0, 2, 4):
        to, source = (guest.frame(guest.pages[start // FRAME + i].gfn) for start in (START, OTHER))
        assert bytes(to) == bytes(source)


def test_the_source_of_a_fault_is_zeros() -> None:
    guest = make()
    guest.unmap(OTHER // FRAME)
    blitter = Blitter(guest)
    blitter.execute(copy(1024, 1))
    fault = blitter.memory.fault
    assert (fault.valid, fault.write, fault.address) == (1, 0, OTHER)
    assert bytes(guest.frame(guest.pages[START // FRAME].gfn)) == bytes(FRAME)


@pytest.mark.parametrize("at", ["source", "destination"])
def test_frames_that_must_be_queried_first(at: str) -> None:
    """Nothing is done before; and what was read before is read again, since the guest may have stored meanwhile."""
    guest = Guest(random.Random(3), chunks=2, known=[0])
    known, unknown = (next(gfn for gfn in guest.free if gfn // 512 == chunk) for chunk in (0, 1))
    guest.map(START // FRAME, unknown if at == "destination" else known)
    guest.map(OTHER // FRAME, unknown if at == "source" else known)
    source = guest.pages[OTHER // FRAME].gfn
    blitter = Blitter(guest)
    assert blitter.begin(copy(1024, 1)) == lib.XD_BLIT_RUN
    assert blitter.turn(1 << 40) == lib.XD_GM_AGAIN
    assert guest.bench.needed() == set()
    assert set(ffi.unpack(blitter.memory.need.chunks, blitter.memory.need.count)) == {1}
    assert blitter.blit.cursor == 0
    guest.bench.memory[source * FRAME : source * FRAME + 6] = b"stored"
    blitter.answer(lib.XD_GM_AGAIN)
    blitter.finish()
    assert bytes(guest.frame(guest.pages[START // FRAME].gfn)) == bytes(guest.frame(source))


@pytest.mark.parametrize("raster", [COPY, XOR])
@pytest.mark.parametrize("swctrl", [0, 2])
def test_frames_with_a_leaf_table(raster: int, swctrl: int) -> None:
    """Memory first, then the shadow, in stores as a CPU would make them."""
    guest = make()
    gfns = [guest.pages[START // FRAME + i].gfn for i in range(3)]
    tables = [guest.bench.add(gfn, 1) for gfn in gfns[1:]]
    for number in tables:
        assert lib.xd_leaf_update(guest.bench.shadow, number, 0, 511, guest.bench.need) == 0
    memory = TwinMemory(guest)
    command = copy(1000, 3, raster=raster)
    command[1] = command[1] & ~0xFFFF | (128 // 4 if swctrl else FRAME)
    command[2] = corner(3, 0)
    Twin(memory).execute(command, swctrl)
    Blitter(guest).execute(command, swctrl)
    assert bytes(memory.bytes) == bytes(guest.bench.memory)
    for gfn, number in zip(gfns[1:], tables, strict=True):
        assert guest.bench.entries(number) == twins.leaf(guest.bench.page(gfn), False, guest.bench.state)


@pytest.mark.parametrize("raster", [COPY, XOR])
def test_frames_with_a_directory(raster: int) -> None:
    """The caller updates tables after each store; a store is made once, and the span is not computed again."""
    guest = make()
    gfn = guest.pages[START // FRAME + 1].gfn
    guest.bench.add(gfn, 2)
    memory = TwinMemory(guest)
    command = copy(1023, 3, raster=raster)
    Twin(memory).execute(command)
    blitter = Blitter(guest)
    blitter.execute(command)
    assert bytes(memory.bytes) == bytes(guest.bench.memory)
    assert blitter.turns.count(lib.XD_GM_DIRECTORY) == 512  # 511 of 8 bytes, one of 4
    assert blitter.memory.table.gpa == gfn * FRAME + 1022 * 4


def test_through_the_ggtt() -> None:
    guest = make()
    gfns = guest.free[-2:]
    ggtt = ffi.new("uint64_t[]", [gfn << 12 | 1 for gfn in gfns])
    blitter = Blitter(guest)
    blitter.memory.ggtt, blitter.memory.ggtt_entries = ggtt, 2
    blitter.space.level = 0
    blitter.execute(copy(1024, 1, to=0, source=FRAME))
    assert bytes(guest.frame(gfns[0])) == bytes(guest.frame(gfns[1]))


@pytest.mark.parametrize("seed", range(4))
def test_commands_without_sense(seed: int) -> None:
    """Random dwords: turns end, and nothing is written but pages that are mapped and writable."""
    rng = random.Random(seed)
    guest = Guest(rng, holes=200, known=[0])
    for start in REGION_STARTS[:2]:
        guest.map_region(start, missing=0.2, read_only=0.5)
    writable = {page.gfn for page in guest.pages.values() if page.writable and guest.is_ram(page.gfn)}
    before = bytes(guest.bench.memory)
    blitter = Blitter(guest)
    for _ in range(400):
        opcode = rng.choice(tuple(COMMANDS))
        dwords = [
            COMMAND | opcode << 22 | rng.getrandbits(22),
            *(rng.getrandbits(32) for _ in range(rng.randrange(80))),
        ]
        for i in range(len(dwords)):
            if rng.random() < 0.3:
                dwords[i : i + 2] = halves(rng.choice((START, OTHER)) + rng.randrange(REGION_PAGES * FRAME))
            elif rng.random() < 0.3:
                dwords[i] = corner(rng.randint(-40, 300), rng.randint(-40, 300))
        dwords[0] = dwords[0] & 0x3FFFFF | COMMAND | opcode << 22
        if blitter.begin(dwords, rng.randrange(4)) == lib.XD_BLIT_RUN:
            for _ in range(6):
                if result := blitter.turn(rng.choice((1, 30000))):
                    blitter.answer(result)
    after = bytes(guest.bench.memory)
    for gfn in range(guest.bench.limit):
        if gfn not in writable:
            assert before[gfn * FRAME : (gfn + 1) * FRAME] == after[gfn * FRAME : (gfn + 1) * FRAME]
