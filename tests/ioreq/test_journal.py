"""A request that a process was killed in, done to its end by a successor, is done once: rules J2, J3, J6 and J9."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.bus_world import request
from xengt_dm._core import ffi, lib
from xengt_dm.errors import DataError
from xengt_dm.ioreq.bus import Answer, Bus, Postponed
from xengt_dm.ioreq.devices import Kind
from xengt_dm.ioreq.journal import MOST_ATTEMPTS, RECORD_BYTES, Journal, Progress
from xengt_dm.ioreq.request import Request
from xengt_dm.steps import Steps, complete

BAR = 0xF000_0000
BAR_SIZE = 0x1000
#: Below this offset, a write to the device adds one to a word of its state; above, it is stored.
COUNTERS = 0x100
RAM = 0x6000
#: A store here is performed at once; its answer takes several slices.
SLICED = 0x5000
#: The same from here on to there, and nothing is stored in the first slice.
UNKNOWN = 0x4000
VCPUS = 2
STATE_WORDS = 64


class Killed(BaseException):
    """The process is killed here."""


class Memory:
    """What outlives a process: the guest's memory, the device's state and the journal."""

    def __init__(self) -> None:
        self.ram = bytearray(range(256)) * (RAM // 256)
        self.registers = bytearray(range(0, 256, 2)) * (BAR_SIZE // 128)
        self.state = bytearray(8 * STATE_WORDS)
        self.records = bytearray(VCPUS * RECORD_BYTES)

    def everything(self) -> tuple[bytes, ...]:
        return bytes(self.ram), bytes(self.registers), bytes(self.state)


class Process:
    """A bus with guest memory and a device; it is killed at its step number ``end``."""

    def __init__(self, memory: Memory, end: int | None = None) -> None:
        self.memory = memory
        self.journal = Journal(memoryview(memory.records), memoryview(memory.state))
        self.steps = 0
        self.end = end
        self.bus = Bus(self, ffi.new("xd_counters *"), self.journal)
        self.bus.insert(Kind.MEMORY, BAR, BAR_SIZE, self)

    def step(self) -> None:
        if self.steps == self.end:
            raise Killed
        self.steps += 1

    # The device

    def read(self, offset: int, size: int) -> int:
        self.step()
        return int.from_bytes(self.memory.registers[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> Steps[None] | None:
        self.step()
        if offset < COUNTERS:
            return self._count(offset // 8)
        self.memory.registers[offset : offset + size] = value.to_bytes(size, "little")
        self.step()
        return None

    def _count(self, word: int) -> Steps[None]:
        self.step()
        self.journal.change(word, memoryview(self.memory.state).cast("Q")[word] + 1)
        self.step()
        yield
        self.step()

    # Guest memory

    def store(self, gpa: int, size: int, value: int, performed: Callable[[], None]) -> int | Steps[int]:
        self.step()
        if UNKNOWN <= gpa < SLICED:
            return self._store_later(gpa, size, value, performed)
        if gpa + size <= RAM:
            self.memory.ram[gpa : gpa + size] = value.to_bytes(size, "little")
        self.step()
        if gpa < SLICED:
            return int(lib.XD_ROUTE_LEAF_STORE)
        performed()
        return self._update()

    def _store_later(self, gpa: int, size: int, value: int, performed: Callable[[], None]) -> Steps[int]:
        yield
        self.step()
        self.memory.ram[gpa : gpa + size] = value.to_bytes(size, "little")
        performed()
        return (yield from self._update())

    def _update(self) -> Steps[int]:
        yield
        self.step()
        return int(lib.XD_ROUTE_DIRECTORY_STORE)

    def store_of_many(
        self, gpa: int, size: int, value: int, postponed: Postponed, performed: Callable[[], None]
    ) -> int | Steps[int]:
        return self.store(gpa, size, value, performed)

    def pause_stores(self, postponed: Postponed) -> None:
        self.step()

    def update_directories(self, postponed: Postponed) -> Steps[None]:
        self.step()
        yield

    def look_again(self, gpa: int) -> None:
        self.step()

    def load(self, gpa: int, size: int) -> int:
        self.step()
        return int.from_bytes(self.memory.ram[gpa : gpa + size], "little") if gpa + size <= RAM else (1 << 8 * size) - 1

    def frames_changed(self) -> None:
        self.step()


def run(outcome: Answer | Steps[Answer]) -> Answer:
    return outcome if isinstance(outcome, Answer) else complete(outcome)


def done_with_kills(asked: Request, ends: tuple[int, ...]) -> tuple[tuple[bytes, ...], bool]:
    """Has a request done by processes, each but the last killed at its step of that number.

    Returns all that outlives them, and whether the last of ``ends`` was reached.
    """
    memory = Memory()
    reached = False
    for first, end in zip(itertools.chain([True], itertools.repeat(False)), (*ends, None), strict=False):
        process = Process(memory, end)
        process.journal.take_over([(0, 8 * STATE_WORDS)])
        try:
            run(process.bus.handle(asked) if first else process.bus.handle_begun(asked))
            break
        except Killed:
            reached = end == ends[-1] if ends else False
    return memory.everything(), reached


addresses = (
    st.integers(0, 0x30).map(lambda n: 0x1000 + n)
    | st.integers(BAR, BAR + 0x140)
    | st.sampled_from([0x2FF8, SLICED + 8, UNKNOWN])
)
requests = st.builds(
    request,
    addresses,
    st.sampled_from([1, 2, 4, 8]),
    addresses,
    vcpu=st.integers(0, VCPUS - 1),
    repeats=st.sampled_from([1, 1, 2, 3, 5, 70]),
    is_read=st.booleans(),
    data_is_ptr=st.booleans(),
    down=st.booleans(),
)
#: `rep movs` to an address just below its source, which is overwritten; from registers to memory; to counters.
OVERLAPPING = request(0x1000, 4, 0x1004, repeats=5, data_is_ptr=True)
FROM_REGISTERS = request(BAR + 0x100, 8, 0x1000, repeats=3, data_is_ptr=True, is_read=True)
TO_COUNTERS = request(BAR, 8, 0x1000, repeats=3, data_is_ptr=True)
LONG = request(0x1001, 1, 0x1008, repeats=70, data_is_ptr=True)


@given(requests)
@example(OVERLAPPING)
@example(FROM_REGISTERS)
@example(TO_COUNTERS)
@example(LONG)
@example(request(BAR, 4, 1))
def test_a_request_is_done_once_wherever_its_process_is_killed(asked: Request) -> None:
    expected, _ = done_with_kills(asked, ())
    for end in itertools.count():
        found, reached = done_with_kills(asked, (end,))
        assert found == expected, f"killed at step {end}"
        if not reached:
            break


@given(requests, st.lists(st.integers(0, 12), min_size=2, max_size=4))
def test_its_successors_may_be_killed_too(asked: Request, ends: list[int]) -> None:
    assert done_with_kills(asked, tuple(ends))[0] == done_with_kills(asked, ())[0]


@pytest.mark.parametrize("asked", [OVERLAPPING, FROM_REGISTERS, TO_COUNTERS, LONG], ids=str)
def test_without_the_journal_it_would_not_be(asked: Request) -> None:
    """The steps above are worth nothing if a request that is done afresh passes, too."""

    def afresh(end: int) -> tuple[bytes, ...]:
        memory = Memory()
        with pytest.raises(Killed):
            run(Process(memory, end).bus.handle(asked))
        seen_by_another_vcpu(memory)
        run(Process(memory).bus.handle(asked))
        return memory.everything()

    def seen_by_another_vcpu(memory: Memory) -> None:
        """Between a copy from a register and the kill, the register has changed."""
        memory.registers[0x100:0x118] = bytes(0x18)

    expected, _ = done_with_kills(asked, ())
    assert any(afresh(end)[0::2] != expected[0::2] for end in (1, 3, 5, 8, 40))


def test_what_others_stored_meanwhile_stays() -> None:
    """The elements before a pause are not done again, nor a copy that was made."""
    memory = Memory()
    steps = Process(memory).bus.handle(request(0x1000, 1, 7, repeats=100))
    assert not isinstance(steps, Answer)
    next(steps)
    memory.ram[0x1000:0x1100] = bytes(0x100)  # another vCPU
    del steps
    run(Process(memory).bus.handle_begun(request(0x1000, 1, 7, repeats=100)))
    assert memory.ram[0x1000:0x1064] == bytes(64) + bytes([7]) * 36


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("gpa", [SLICED, UNKNOWN])
@pytest.mark.parametrize(
    "how",
    [{}, {"repeats": 3}, {"repeats": 3, "data_is_ptr": True}, {"repeats": 3, "data_is_ptr": True, "is_read": True}],
)
def test_what_others_stored_while_a_store_is_sliced_stays(gpa: int, how: dict[str, Any], down: bool) -> None:
    """Another vCPU sees the store, and stores what was there before. The process is killed in any slice then."""
    at, before = gpa + 0x40, bytes(Memory().ram[gpa : gpa + 0x80])
    addr, data = (0x2040, at) if how.get("is_read") else (at, 0x2040 if how.get("data_is_ptr") else 0x77)
    asked = request(addr, 8, data, down=down, **how)
    for kill in range(1, 12):
        memory = Memory()
        memory.ram[0x2000:0x2080] = bytes([0x99]) * 0x80
        process = Process(memory)
        steps = process.bus.handle(asked)
        assert not isinstance(steps, Answer)
        undone = set()
        for _ in range(kill):
            if next(steps, steps) is steps:
                return
            for i in range(0, 0x80, 8):
                if memory.ram[gpa + i : gpa + i + 8] != before[i : i + 8]:
                    undone.add(i)
                    memory.ram[gpa + i : gpa + i + 8] = before[i : i + 8]
        successor = Process(memory)
        successor.journal.take_over([(0, 8 * STATE_WORDS)])
        run(successor.bus.handle_begun(asked))
        assert all(memory.ram[gpa + i : gpa + i + 8] == before[i : i + 8] for i in undone), f"killed in slice {kill}"
    raise AssertionError("it did not end")


def test_a_taken_request_has_no_record() -> None:
    """What the journal says of a vCPU's last request must not count for its next."""
    journal = Journal.private(2)
    journal.in_hand(1, 0)
    journal.change(0, 1)
    assert journal.progress(1) == Progress(1)
    page = ffi.new("xd_ioreq[128]")
    taken = ffi.new("xd_taken[2]")
    for which in (lib.XD_TAKE_BEGUN, lib.XD_TAKE_ALL):
        page[1].bits = lib.XD_STATE_INPROCESS
        assert lib.xd_slots_take(page, 2, which, taken, ffi.NULL, journal.pointer) == 1
        assert journal.progress(1) == Progress(1)
    page[1].bits = lib.XD_STATE_READY
    assert lib.xd_slots_take(page, 2, lib.XD_TAKE_READY, taken, ffi.NULL, journal.pointer) == 1
    assert journal.progress(1) == Progress()


def test_attempts() -> None:
    journal = Journal.private(2)
    allowed = MOST_ATTEMPTS - 2  # one attempt was the predecessor's, and the last one is not made
    assert [journal.begin_again(1) for _ in range(allowed + 2)] == [True] * allowed + [False] * 2


def test_an_attempt_that_ended_by_a_handover_is_none() -> None:
    journal = Journal.private(2)
    for _ in range(MOST_ATTEMPTS):
        assert journal.begin_again(1)
        journal.forgive(1)
    assert journal.progress(0) == journal.progress(1) == Progress()


#: Words of a record, by index, that no process wrote: 0 is `commit`, 4 the count of the first half, 5 its first word.
DAMAGE = {
    "phase": {0: 4},
    "half": {0: 2 << 8 | 2},
    "element": {0: 4096 << 16 | 3},
    "count": {0: 2, 4: 14},
    "word": {0: 2, 4: 1, 5: 1},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(damage: str) -> None:
    records = memoryview(bytearray(RECORD_BYTES))
    journal = Journal(records, memoryview(bytearray(8)))
    journal.take_over([(0, 8)])
    words = records.cast("Q")
    for index, value in DAMAGE[damage].items():
        words[index] = value
    with pytest.raises(DataError, match="vCPU 0 is damaged"):
        journal.take_over([(0, 8)])


def test_a_change_of_words_of_no_region_is_refused() -> None:
    """The first words of a region, and the last, are words that may change; those beside it are not."""
    for word, allowed in ((1, False), (2, True), (3, True), (4, False), (1 << 61, False), (2**64 - 1, False)):
        records, state = memoryview(bytearray(RECORD_BYTES)), memoryview(bytearray(64)).cast("Q")
        words = records.cast("Q")
        words[0], words[4], words[5], words[6] = lib.XD_JOURNAL_COMMITTED, 1, word, 7
        journal = Journal(records, state.cast("B"))
        if allowed:
            journal.take_over([(0, 8), (16, 16), (56, 0)])
            assert (state[word], words[0]) == (7, lib.XD_JOURNAL_DONE)
        else:
            with pytest.raises(DataError, match="vCPU 0 is damaged"):
                journal.take_over([(0, 8), (16, 16), (56, 0)])
            assert not any(state)


def test_records_that_change_each_other() -> None:
    """The first one, stored, would make another one of the second, which has been checked already."""
    state = memoryview(bytearray(8192))
    records, victim = state[: 2 * RECORD_BYTES], ffi.new("uint64_t *", 1)
    words, second = records.cast("Q"), RECORD_BYTES // 8
    beyond = (int(ffi.cast("uintptr_t", victim)) - int(ffi.cast("uintptr_t", ffi.from_buffer(state)))) % (1 << 64) // 8
    words[0], words[4] = lib.XD_JOURNAL_COMMITTED, 4
    for i, (word, value) in enumerate([(0, lib.XD_JOURNAL_COMMITTED), (4, 1), (5, beyond), (6, 0x41)]):
        words[5 + 2 * i], words[6 + 2 * i] = second + word, value
    journal = Journal(records, state)
    with pytest.raises(DataError, match="vCPU 0 is damaged"):
        journal.take_over([(2 * RECORD_BYTES, 8192 - 2 * RECORD_BYTES)])
    assert victim[0] == 1
    assert not any(words[second:])
    journal.take_over([(0, 8192)])  # even where that were allowed, what is stored is what was checked
    assert (victim[0], words[second]) == (1, lib.XD_JOURNAL_COMMITTED)
