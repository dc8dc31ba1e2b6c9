"""The decoder: rings, batches and context images as drivers make them, and as nobody should."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import pytest

from tests.support.gpu_programs import (
    ARB_CHECK,
    ARB_OFF,
    BATCH_END,
    NOOP,
    REQUEST_NAMES,
    USER_INTERRUPT,
    Mapped,
    dwords,
    request,
    start,
    store,
)
from xengt_dm.vgpu.commands import COMMANDS, ENGINES, Command
from xengt_dm.vgpu.decode import Flat, Item, Kind, Limits, Nothing, Ring, decode_batch, decode_image, decode_ring

BATCH = 0x7FFF_0000_1000
RING = 0xFE0000


def names(items: Iterable[Item]) -> list[str]:
    return [item.command.name if item.command else f"? {item.problem}" for item in items]


def ring_of(*program: int, at: int = 0, size: int = 4096) -> Ring:
    """A ring with a program in it, which may go on at its beginning."""
    data = bytearray(size)
    for number, each in enumerate(program):
        position = (at + 4 * number) % size
        data[position : position + 4] = dwords(each)
    return Ring(bytes(data), RING, at, (at + 4 * len(program)) % size)


def test_a_request_and_its_batch() -> None:
    memory = Mapped({(True, BATCH): dwords(*store(0x1000, 1, ggtt=False), BATCH_END)})
    items = list(decode_ring("rcs0", ring_of(*request(BATCH)), memory))
    at = REQUEST_NAMES.index("MI_BATCH_BUFFER_START") + 1
    assert names(items) == [*REQUEST_NAMES[:at], "MI_STORE_DATA_IMM", "MI_BATCH_BUFFER_END", *REQUEST_NAMES[at:]]
    assert [item.kind for item in items[at : at + 2]] == [Kind.BATCH] * 2
    assert [(item.level, item.ppgtt, item.address) for item in items[at : at + 2]] == [
        (1, True, BATCH),
        (1, True, BATCH + 16),
    ]
    assert [item.address for item in items if item.kind is Kind.RING][-1] == RING + 4 * (len(request(BATCH)) - 1)
    assert not [item for item in items if item.problem or item.note]


@pytest.mark.parametrize("before_end", range(0, 4 * len(request(BATCH)) + 4, 4))
def test_a_request_that_goes_on_at_the_rings_beginning(before_end: int) -> None:
    """Wherever in it that is, in the middle of a command as well."""
    ring = ring_of(*request(BATCH), at=4096 - before_end if before_end else 0)
    items = list(decode_ring("rcs0", ring, Nothing()))
    own = [item for item in items if item.kind is Kind.RING]
    assert names(own) == REQUEST_NAMES
    position = ring.head
    for item in own:
        assert item.address == RING + position % 4096
        position += 4 * item.size


def test_the_part_of_a_ring_that_is_decoded() -> None:
    data = ring_of(ARB_CHECK, USER_INTERRUPT, BATCH_END, size=16).data
    assert names(decode_ring("rcs0", Ring(data, RING, 4, 8), Nothing())) == ["MI_USER_INTERRUPT"]
    assert names(decode_ring("rcs0", Ring(data, RING, 4, 4), Nothing())) == []
    assert names(decode_ring("rcs0", Ring(data, RING, 8, 4), Nothing())) == [
        *("MI_BATCH_BUFFER_END", "MI_NOOP", "MI_ARB_CHECK"),
    ]
    assert names(decode_ring("rcs0", Ring(data[:14], RING, 0, 99), Nothing()))[-1] == "MI_BATCH_BUFFER_END"
    assert names(decode_ring("rcs0", Ring(b"", RING, 0, 0), Nothing())) == []
    for head, tail in ((-8, 4), (1 << 70, 8), (3, 1 << 40)):
        list(decode_ring("rcs0", Ring(data, RING, head, tail), Nothing()))


def test_batches_call_and_chain() -> None:
    """A batch of the second level returns to its caller; a jump from a batch does not, and the ring goes on after."""
    memory = Mapped(
        {
            (True, 0x1000): dwords(*start(0x2000, second=True), ARB_CHECK, *start(0x3000), USER_INTERRUPT),
            (True, 0x2000): dwords(NOOP, *start(0x4000), USER_INTERRUPT),
            (True, 0x3000): dwords(*store(0, 0), BATCH_END),
            (True, 0x4000): dwords(*start(0x5000, second=True), USER_INTERRUPT),
            (True, 0x5000): dwords(ARB_OFF, BATCH_END),
        }
    )
    items = list(decode_ring("rcs0", ring_of(*start(0x1000), USER_INTERRUPT), memory))
    assert [(item.address, item.level) for item in items] == [
        (RING, 0),
        (0x1000, 1),
        *((0x2000, 2), (0x2004, 2), (0x4000, 2), (0x5000, 2), (0x5004, 2)),
        *((0x100C, 1), (0x1010, 1), (0x3000, 1), (0x3010, 1)),
        (RING + 12, 0),
    ]


def test_a_jump_that_may_not_be_taken_is_followed_and_returned_from() -> None:
    memory = Mapped(
        {
            (True, 0x1000): dwords(*start(0x2000, predicate=True), ARB_CHECK, BATCH_END),
            (True, 0x2000): dwords(USER_INTERRUPT, BATCH_END),
        }
    )
    assert [item.address for item in decode_batch("rcs0", memory, True, 0x1000)] == [
        *(0x1000, 0x2000, 0x2004, 0x100C, 0x1010),
    ]


def test_jumps_that_may_not_be_taken_are_followed_to_a_depth() -> None:
    chain = {(True, 0x1000 * n): dwords(*start(0x1000 * (n + 1), predicate=True), BATCH_END) for n in range(1, 60)}
    items = list(decode_batch("rcs0", Mapped(chain), True, 0x1000))
    starts = [item for item in items if item.size == 3]
    assert [item.note for item in starts] == [""] * 16 + ["not followed: too many jumps"]
    assert len(items) == 2 * len(starts)


def test_nothing_is_read_behind_the_last_address() -> None:
    class Last:
        def read(self, ppgtt: bool, address: int, size: int) -> bytes:
            assert address + size <= 1 << 48
            return dwords(*[ARB_CHECK] * (size // 4))

    items = list(decode_batch("rcs0", Last(), True, (1 << 48) - 8))
    assert names(items) == ["MI_ARB_CHECK", "MI_ARB_CHECK", "? nothing is there"]


SHORT = [
    row
    for row in COMMANDS
    if row.engines and row.least > 1 and row.length.mask and row.least - 1 - row.length.base in range(row.length.mask)
]


@pytest.mark.parametrize("row", SHORT, ids=lambda row: f"{row.name} {row.engines[0]}")
def test_a_command_that_lacks_a_dword(row: Command) -> None:
    header = row.match | (row.least - 1 - row.length.base)
    memory = Flat(dwords(header, *[0] * (row.least - 2), BATCH_END), BATCH)
    first = next(iter(decode_batch(row.engines[0], memory, True, BATCH)))
    assert first.command is row
    assert first.problem == f"has {row.least - 1} dwords and needs {row.least}"


def test_a_loop_is_shown_once() -> None:
    loop = dwords(ARB_CHECK, 0x1B200002, 0x05000000, 0x8000, 0, *start(BATCH))
    items = list(decode_ring("bcs0", ring_of(*start(BATCH), USER_INTERRUPT), Mapped({(True, BATCH): loop})))
    assert names(items) == [
        *("MI_BATCH_BUFFER_START", "MI_ARB_CHECK", "MI_CONDITIONAL_BATCH_BUFFER_END", "MI_BATCH_BUFFER_START"),
        "MI_USER_INTERRUPT",
    ]
    assert items[3].note == "goes back to what is above"


def test_a_batch_without_privilege_stays_so() -> None:
    """It cannot start a batch in the GGTT; a batch in the GGTT can start one in either."""
    memory = Mapped(
        {
            (True, 0x1000): dwords(0x08 << 23, *start(0x2000, ppgtt=False)),
            (True, 0x2000): dwords(BATCH_END),
            (False, 0x2000): dwords(USER_INTERRUPT),
            (False, 0x3000): dwords(0x08 << 23, *start(0x1000)),
        }
    )
    items = list(decode_batch("rcs0", memory, False, 0x3000))
    assert [(item.ppgtt, item.address) for item in items] == [
        *((False, 0x3000), (False, 0x3004), (True, 0x1000), (True, 0x1004), (True, 0x2000)),
    ]
    assert [item.note for item in items[:3]] == ["", "", "does nothing without privilege"]


def test_addresses_are_of_48_bits() -> None:
    program = dwords(*start(0xFFFF_FFFF_C000_0000), NOOP)
    memory = Mapped({(True, 0x1000): program, (True, 0xFFFF_C000_0000): dwords(BATCH_END)})
    assert [item.address for item in decode_batch("rcs0", memory, True, 0x1000)] == [0x1000, 0xFFFF_C000_0000]


@pytest.mark.parametrize(
    ("engine", "program", "problem"),
    [
        ("rcs0", (0xDEADBEEF,), "not decodable: a header of client 6, and rcs0 has clients 0, 3"),
        ("vcs0", (0x54300008,), "not decodable: a header of client 2, and vcs0 has clients 0, 3"),
        ("bcs0", (0x7A000004,), "not decodable: a header of client 3, and bcs0 has clients 0, 2"),
        ("rcs0", (0x11000005, 1, 2), "ends after 3 of 7 dwords"),
        ("rcs0", (0x10400000, 0x1000), "has 2 dwords and needs 4"),
        ("bcs0", (0x54300003, 0, 0, 0, 0), "has 5 dwords and needs 7"),
    ],
)
def test_what_cannot_be_executed(engine: str, program: tuple[int, ...], problem: str) -> None:
    items = list(decode_batch(engine, Flat(dwords(*program), 0x1000), True, 0x1000))
    assert items[0].problem == problem
    assert items[0].address == 0x1000


def test_after_an_undecodable_batch_the_ring_goes_on_and_an_undecodable_ring_ends() -> None:
    memory = Mapped({(True, 0x1000): dwords(0xDEADBEEF, USER_INTERRUPT)})
    items = list(decode_ring("rcs0", ring_of(*start(0x1000), ARB_CHECK, 0xDEADBEEF, ARB_CHECK), memory))
    assert [item.command.name if item.command else None for item in items] == [
        *("MI_BATCH_BUFFER_START", None, "MI_ARB_CHECK", None),
    ]


def test_memory_that_is_not_there() -> None:
    items = list(decode_ring("rcs0", ring_of(*start(0x1000), ARB_CHECK), Nothing()))
    assert [item.problem for item in items] == ["", "nothing is there", ""]
    assert items[1].dwords == ()


def test_noops_come_in_runs() -> None:
    program = dwords(*[NOOP] * 3000, ARB_CHECK, 0x00400005, BATCH_END)
    items = list(decode_batch("rcs0", Flat(program, 0x1FF8), True, 0x1FF8))
    assert sum(item.repeats for item in items if item.command and item.command.name == "MI_NOOP") == 3001
    assert len(items) < 10
    assert items[-1].address == 0x1FF8 + 4 * 3002


def test_a_context_image() -> None:
    """Page 1 of it is a program of MI_LOAD_REGISTER_IMM; gt/intel_lrc.c."""
    image = [NOOP] * 0xAA
    for first, count in ((0x01, 14), (0x21, 9), (0x41, 1), (0x51, 44)):
        image[first] = 0x11001000 | (2 * count - 1)
    image.append(BATCH_END)
    items = list(decode_image("rcs0", dwords(*image, *[0xDEADBEEF] * 100), 0xFD1000))
    loads = [item for item in items if item.command and item.command.name == "MI_LOAD_REGISTER_IMM"]
    assert [((item.address - 0xFD1000) // 4, item.size) for item in loads] == [
        *((0x01, 29), (0x21, 19), (0x41, 3), (0x51, 89)),
    ]
    assert items[-1].note == "the program ends here"
    assert names(decode_image("rcs0", dwords(*start(0)), 0)) == ["MI_BATCH_BUFFER_START"]


# What may be anything


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(8))
def test_random_input_ends_and_never_raises(engine: str, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        data = dwords(*(likely(chance) for _ in range(chance.randrange(1, 3000))))[: chance.randrange(1, 12000)]
        memory = Flat(data, 0)
        head, tail = chance.randrange(16384), chance.randrange(16384)
        limits = Limits(20_000, 100)
        for items in (
            decode_batch(engine, memory, bool(seed & 1), chance.randrange(4096), limits),
            decode_ring(engine, Ring(data, 0, head, tail), memory, limits),
            decode_image(engine, data, 0),
        ):
            seen = list(items)
            assert sum(item.size * item.repeats for item in seen if item.command) <= limits.dwords + 0x10001


def likely(chance: random.Random) -> int:
    """A dword that is often a command, and often one that jumps to another dword of the input."""
    kind = chance.randrange(8)
    if kind == 0:
        return chance.getrandbits(32)
    if kind == 1:
        return chance.choice([0, 2, 3]) << 29 | chance.getrandbits(29)
    if kind == 2:
        return 0x31 << 23 | chance.getrandbits(23)
    if kind == 3:
        return chance.randrange(12000)
    return chance.choice([NOOP, ARB_CHECK, USER_INTERRUPT, 0, 1, chance.getrandbits(6) << 23])


def test_jumps_to_every_dword_take_bounded_time_and_memory() -> None:
    """Each batch is nearly all of the input, and jumps to the dword behind where it began."""
    count = 20_000
    program = dwords(
        *[word for number in range(count) for word in (*start(12 * (number + 1), predicate=True), ARB_CHECK)]
    )
    began = time.process_time()
    items = list(decode_batch("rcs0", Flat(program, 0), True, 0, Limits(100_000, 1000)))
    assert time.process_time() - began < 20
    assert len(items) <= 100_001
    assert items[-1].problem or items[-1].note


def test_the_limit_of_dwords() -> None:
    program = dwords(*[ARB_CHECK] * 1000)
    items = list(decode_batch("rcs0", Flat(program, 0), True, 0, Limits(10)))
    assert len(items) == 11
    assert items[-1].problem == "not decoded: the limit of 10 dwords"
    long = dwords(*[0x7100FFFF] * 1000)
    memory = Mapped({(True, 0): long * 100})
    assert len(list(decode_batch("rcs0", memory, True, 0, Limits(10)))) == 2
    assert memory.bytes < 0x10001 * 4 + 4096


def test_the_limit_of_jumps() -> None:
    program = dwords(*[word for number in range(1000) for word in start(12 * (number + 1))])
    items = list(decode_batch("rcs0", Flat(program, 0), True, 0, Limits(1 << 20, 50)))
    assert len(items) == 51
    assert items[-1].note == "not followed: too many jumps"


def test_an_engine_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no engine vcs9"):
        list(decode_batch("vcs9", Nothing(), True, 0))
