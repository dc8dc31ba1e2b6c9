"""What MI commands do to memory and registers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.gpu_bench import VA, Batches
from tests.support.tables import FRAME
from xengt_dm.sim import context as image
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BCS0, RCS0

GPR = 0x600
A, B, ACCU, ZF, CF = 0x20, 0x21, 0x31, 0x32, 0x33
LOAD, LOAD_INVERTED, LOAD_ZERO, LOAD_ONES, STORE, STORE_INVERTED = 0x080, 0x480, 0x081, 0x481, 0x180, 0x580
ADD, SUB, AND, OR, XOR = range(0x100, 0x105)
WORD = (1 << 64) - 1
DATA = Batches.DATA
_BENCHES: dict[int, Batches] = {}


def batches(engine: int = RCS0) -> Batches:
    """One for all examples of a test, since a bench takes a while to make."""
    if engine not in _BENCHES:
        _BENCHES[engine] = Batches(engine)
    return _BENCHES[engine]


def test_stores_of_dwords_and_qwords() -> None:
    one = Batches()
    one.user(mi.store(DATA + 4, 0x11223344), mi.store_qwords(DATA + 8, *range(1, 400)))
    assert one.value(4) == 0x11223344
    assert [one.bench.qword(one.data + 8 + 8 * i) for i in range(399)] == list(range(1, 400))


def test_a_command_that_crosses_a_page() -> None:
    one = Batches()
    next_page = one.bench.page(one.space, VA + 3 * FRAME)
    start = FRAME - 8
    # The data page is in between, so the batch lies in pages that do not follow each other in memory.
    one.space.map(VA + FRAME, next_page // FRAME)
    one.bench.write_dwords(one.batch + start, mi.store(Batches.MORE, 0x99)[:2])
    one.bench.write_dwords(next_page, mi.store(Batches.MORE, 0x99)[2:], mi.BATCH_END)
    one.ring(mi.batch_start(VA + start))
    assert one.bench.dword(one.more) == 0x99


def test_a_batch_that_changes_its_next_command() -> None:
    one = Batches()
    one.user(mi.store(VA + 4 * 7, 0x55), mi.store(DATA, 0x11))
    assert one.value() == 0x55


def test_a_space_of_three_levels() -> None:
    one = Batches()
    bench = one.bench
    directory, table, page = bench.take(), bench.take(), bench.take()
    bench.store(table * FRAME + 8 * 5, 8, page * FRAME | 3)
    bench.store(directory * FRAME + 8 * 7, 8, table * FRAME | 3)
    context = bench.driver.context(BCS0)
    for level in range(4):  # the roots, the last one first
        root = directory * FRAME if level == 2 else 0
        context.write_image(image.PDP3_UDW + 4 * (3 - level), 0)
        context.write_image(image.PDP3_UDW + 4 * (3 - level) + 2, root)
    address = (2 << 30) + (7 << 21) + (5 << 12)
    context.emit(mi.store(address, 0x66), mi.store(address + (1 << 32), 0x77), mi.NOOP)
    context.write_image(image.TAIL, context.tail)
    bench.driver.lists[BCS0].submit([context])
    bench.driver.write_list(BCS0, [(context.address | 1 << 8 | 1 << 3 | 1, 32)])
    bench.settle()
    bench.driver.interrupt()
    assert bench.dword(page * FRAME) == 0x66
    assert bench.driver.lists[BCS0].idle


def test_addresses_are_canonical() -> None:
    one = Batches()
    high = one.bench.page(one.space, 0xFFFF_C000_0000)
    one.user(mi.store(0xFFFF_FFFF_C000_0000, 0x42))
    assert one.bench.dword(high) == 0x42


@pytest.mark.parametrize("engine", [RCS0, BCS0])
def test_registers_go_to_memory_and_back(engine: int) -> None:
    one = Batches(engine)
    gpr = one.base + GPR
    one.bench.write_dwords(one.data + 64, 0xABCDEF01)
    one.user(
        mi.load_immediate((gpr, 5), (gpr + 4, 6)),
        mi.load_memory(gpr + 8, DATA + 64),
        mi.load_register(gpr + 8, gpr + 12),
        *(mi.store_register(gpr + 4 * i, DATA + 4 * i) for i in range(4)),
    )
    assert [one.value(4 * i) for i in range(4)] == [5, 6, 0xABCDEF01, 0xABCDEF01]


def test_bytes_that_a_load_disables_stay() -> None:
    one = Batches()
    gpr = one.base + GPR
    disabled = mi.load_immediate((gpr, 0x11223344))
    disabled[0] |= 0b0101 << 8
    one.user(mi.load_immediate((gpr, 0xAABBCCDD)), disabled, mi.store_register(gpr, DATA))
    assert one.value() == 0x11BB33DD


def compute(operation: int, a: int, b: int) -> tuple[int, bool, bool]:
    """What the manual says of the ALU: accumulator, zero flag, carry flag."""
    if operation == ADD:
        return a + b & WORD, (a + b) & WORD == 0, a + b > WORD
    if operation == SUB:
        return a - b & WORD, a == b, a < b
    value = {AND: a & b, OR: a | b, XOR: a ^ b}[operation]
    return value, value == 0, False


def test_masked_registers_take_what_their_masks_say() -> None:
    one = Batches()
    cache_mode = 0x7000
    one.user(
        mi.load_immediate((cache_mode, 0x00FF0055)),
        mi.load_immediate((cache_mode, 0x000F00FA)),
        mi.store_register(cache_mode, DATA),
    )
    assert one.value() == 0x5A


VALUES = st.one_of(st.sampled_from([0, 1, WORD, WORD - 1, 1 << 63]), st.integers(0, WORD))


@examples(60)
@given(st.sampled_from([ADD, SUB, AND, OR, XOR]), VALUES, VALUES, st.booleans(), st.booleans())
def test_math(operation: int, a: int, b: int, inverted_load: bool, inverted_store: bool) -> None:
    one = batches()
    gpr = one.base + GPR
    load = LOAD_INVERTED if inverted_load else LOAD
    store = STORE_INVERTED if inverted_store else STORE
    low_high = [(gpr + 8 * n + 4 * i, part) for n, value in enumerate((a, b)) for i, part in enumerate(mi.split(value))]
    one.user(
        mi.load_immediate(*low_high),
        mi.math(
            (load, A, 0), (LOAD, B, 1), (operation, 0, 0), *((store, 2 + i, x) for i, x in enumerate((ACCU, ZF, CF)))
        ),
        *(mi.store_register(gpr + 16 + 4 * i, DATA + 4 * i) for i in range(6)),
    )
    result, zero, carry = compute(operation, a ^ WORD if inverted_load else a, b)
    expected = [result, WORD * zero, WORD * carry]
    got = [one.bench.qword(one.data + 8 * i) for i in range(3)]
    assert got == [value ^ WORD if inverted_store else value for value in expected]


def test_math_loads_zeros_and_ones() -> None:
    one = Batches()
    gpr = one.base + GPR
    one.user(
        mi.math((LOAD_ONES, A, 0), (LOAD_ZERO, B, 0), (SUB, 0, 0), (STORE, 15, ACCU)),
        mi.store_register(gpr + 8 * 15, DATA),
        mi.store_register(gpr + 8 * 15 + 4, DATA + 4),
    )
    assert one.bench.qword(one.data) == WORD


#: By number: what an atomic operation makes of what is in memory.
ATOMICS = {
    0x01: lambda old, x, y, sign: old & x,
    0x02: lambda old, x, y, sign: old | x,
    0x03: lambda old, x, y, sign: old ^ x,
    0x04: lambda old, x, y, sign: x,
    0x05: lambda old, x, y, sign: old + 1,
    0x06: lambda old, x, y, sign: old - 1,
    0x07: lambda old, x, y, sign: old + x,
    0x08: lambda old, x, y, sign: old - x,
    0x09: lambda old, x, y, sign: x - old,
    0x0A: lambda old, x, y, sign: max(sign(old), sign(x)),
    0x0B: lambda old, x, y, sign: min(sign(old), sign(x)),
    0x0C: lambda old, x, y, sign: max(old, x),
    0x0D: lambda old, x, y, sign: min(old, x),
    0x0E: lambda old, x, y, sign: y if old == x else old,
}


@examples(80)
@given(st.sampled_from(sorted(ATOMICS)), VALUES, VALUES, VALUES, st.booleans())
def test_atomics(operation: int, old: int, first: int, second: int, qword: bool) -> None:
    one = batches(BCS0)
    bits = 64 if qword else 32
    mask = (1 << bits) - 1
    for at, part in enumerate(mi.split(old)):
        one.bench.write_dwords(one.data + 4 * at, part)
    gpr4 = one.base + GPR + 32
    one.user(
        mi.atomic(operation | (0x20 if qword else 0), DATA, first, second, qword=qword, returns=True),
        mi.store_register(gpr4, DATA + 8),
        mi.store_register(gpr4 + 4, DATA + 12),
    )

    def signed(value: int) -> int:
        return value - (1 << bits) if value >> bits - 1 else value

    expected = ATOMICS[operation](old & mask, first & mask, second & mask, signed) & mask
    assert one.bench.qword(one.data) & mask == expected
    assert one.bench.qword(one.data) & ~mask == old & ~mask
    assert one.bench.qword(one.data + 8) & mask == old & mask


def test_predicates_decide_about_batches_and_stores() -> None:
    one = Batches()
    other = one.batch + 2048
    one.bench.write_dwords(other, mi.store(DATA, 0x55), mi.BATCH_END)
    equal = 0x0C << 23 | 2 << 6 | 2  # load the result of SRC0 == SRC1
    unequal = equal | 1 << 6  # its inverse
    sources = mi.load_immediate((0x2400, 7), (0x2404, 0), (0x2408, 7), (0x240C, 0))
    start = mi.batch_start(VA + 2048, second_level=True, predicated=True)
    one.user(sources, unequal, start, mi.store(DATA + 4, 1))
    assert (one.value(), one.value(4)) == (0, 1)
    one.user(sources, equal, start, mi.store(DATA + 4, 2))
    assert (one.value(), one.value(4)) == (0x55, 2)


def test_commands_that_a_predicate_passes_over() -> None:
    one = Batches()
    set_predicate = 0x01 << 23
    result = mi.load_immediate((0x2418, 0))
    one.user(
        result,
        set_predicate | 3,
        mi.store(DATA, 1),
        set_predicate,
        mi.store(DATA + 4, 2),
        set_predicate | 4,
        mi.store(DATA + 8, 3),
        set_predicate,
    )
    assert [one.value(4 * i) for i in range(3)] == [0, 2, 3]


def test_copy_and_second_level_batches() -> None:
    one = Batches()
    one.bench.write_dwords(one.more, 0x1234)
    one.bench.write_dwords(one.batch + 1024, mi.copy(DATA, Batches.MORE), mi.BATCH_END)
    one.user(mi.batch_start(VA + 1024, second_level=True), mi.store(DATA + 4, 9))
    assert (one.value(), one.value(4)) == (0x1234, 9)


def test_a_chained_batch_does_not_come_back() -> None:
    one = Batches()
    one.bench.write_dwords(one.batch + 1024, mi.store(DATA, 1), mi.BATCH_END)
    one.user(mi.batch_start(VA + 1024), mi.store(DATA + 4, 9))
    assert (one.value(), one.value(4)) == (1, 0)


def test_flushes_store_where_they_say() -> None:
    one = Batches(BCS0)
    page = one.bench.driver.bind([one.data // FRAME])
    one.ring(mi.flush(page + 8, 0x31), mi.flush(0xD0, 0x32, ggtt=False, index=True), mi.flush(0x200, 0x33, index=True))
    status = one.bench.driver.status_frames[BCS0] * FRAME
    assert one.value(8) == 0x31
    assert one.bench.dword(one.context.frames[0] * FRAME + 0xD0) == 0x32
    assert one.bench.dword(status + 0x200) == 0x33
    one.user(mi.flush(DATA + 16, 0x34, ggtt=False))
    assert one.value(16) == 0x34


def test_pipe_controls_store_and_tell() -> None:
    one = Batches()
    page = one.bench.driver.bind([one.data // FRAME])
    one.ring(
        mi.pipe_control(mi.WRITE_QWORD | mi.WRITE_GGTT, page, 0x1111222233334444),
        mi.pipe_control(mi.WRITE_QWORD | mi.WRITE_INDEX, 0xD0, 0x77),
    )
    assert one.bench.qword(one.data) == 0x1111222233334444
    assert one.bench.qword(one.context.frames[0] * FRAME + 0xD0) == 0x77
    one.bench.now += 12_345_000
    one.bench.pass_time(0)
    one.ring(mi.pipe_control(3 << 14 | mi.WRITE_GGTT, page + 8))
    assert one.bench.qword(one.data + 8) == one.bench.now * 12 // 1000


def test_events_pass_the_masks() -> None:
    one = Batches()
    bench = one.bench
    one.context.emit(mi.USER_INTERRUPT, mi.pipe_control(mi.NOTIFY))
    bench.driver.submit(one.context)
    assert bench.register(0x44308) == 1 << 0 | 1 << 4 | 1 << 8
    bench.driver.interrupt()
    bench.driver.write(0x20A8, 0xFFFFFFFF & ~(1 << 8))
    one.context.emit(mi.USER_INTERRUPT, mi.pipe_control(mi.NOTIFY))
    bench.driver.submit(one.context)
    assert bench.register(0x44308) == 1 << 8
    bench.driver.interrupt()


def test_skipped_commands_are_passed_over_by_their_lengths() -> None:
    one = Batches()
    three_d = [0x78140000 | 9, *[0xDEADBEEF] * 10]
    media = [0x70000000 | 14, *[0xDEADBEEF] * 15]
    select = 0x69040000
    one.user(three_d, select, media, [0x23 << 23 | 4, *[0xDEADBEEF] * 5], mi.store(DATA, 1))
    assert one.value() == 1
