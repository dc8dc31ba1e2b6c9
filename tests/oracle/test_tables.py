"""The reference walker: against dumps worked out by hand, and its two ways of walking against each other."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.oracle import expected
from tests.oracle.generate import KINDS, generate
from tests.oracle.machine import Machine, list_of
from tests.oracle.ram import Ram, pieces
from tests.oracle.script import DIRECTORY, IPS, PAT_2M, PS, PTE, RO, Script
from tests.oracle.tables import LIMIT


def mappings(script: Script, dump: int = -1, space: int = 0) -> Any:
    return expected(script.trace)["dumps"][dump]["spaces"][space]["mappings"]


def chain(frames: int = 64, generation: int = 9) -> Script:
    """Frames 1 to 4 linked by entries 0; frame 4 is the page table at va 0."""
    script = Script(frames, generation)
    script.path(1, 2, 3, 4)
    script.create(1)
    return script


def test_a_page_at_each_index() -> None:
    script = Script()
    script.entry(1, 1, 2, DIRECTORY)
    script.entry(2, 2, 3, DIRECTORY)
    script.entry(3, 3, 4, DIRECTORY)
    script.entry(4, 4, 5, PTE)
    script.create(1)
    script.dump("a")
    assert expected(script.trace)["dumps"] == [
        {
            "id": "a",
            "spaces": [{"mode": "l4", "root": 0x1000, "mappings": [[0x80_8060_4000, 0x1000, 0x5000, 1, 4]]}],
        }
    ]


def test_runs_join_only_if_all_goes_on() -> None:
    script = chain()
    for index, (frame, flags) in enumerate([(10, PTE), (11, PTE), (12, RO), (13, RO), (14, RO | 8), (16, RO | 8)]):
        script.entry(4, index, frame, flags)
    script.dump("a")
    assert mappings(script) == [
        [0x0000, 0x2000, 10 << 12, 1, 4],
        [0x2000, 0x2000, 12 << 12, 0, 4],
        [0x4000, 0x1000, 14 << 12, 0, 5],
        [0x5000, 0x1000, 16 << 12, 0, 5],
    ]


def test_64_kib_needs_bit_register_and_generation() -> None:
    for generation, register, pages in [(9, 0xF, 16), (9, 0xFFFFFFFF, 16), (9, 0xE, 1), (9, 0, 1), (8, 0xF, 1)]:
        script = chain(128, generation)
        script.entry(3, 0, 4, DIRECTORY | IPS)
        script.entry(4, 0, 64 + 3, PTE)
        script.mmio(0x4080, register)
        script.dump("a")
        first = 64 if pages == 16 else 67
        assert mappings(script) == [[0, pages << 12, first << 12, 1, 4]], (generation, register)


def test_2_mib_with_what_is_ram() -> None:
    script = chain(600)
    script.entry(3, 0, 513, PS | DIRECTORY | PAT_2M | IPS)
    script.remove(520, 2)
    script.dump("a")
    assert mappings(script) == [
        [0, 8 << 12, 512 << 12, 1, 4],
        [10 << 12, 78 << 12, 522 << 12, 1, 4],
    ]


def test_limit_of_runs() -> None:
    script = Script()
    script.fill(5, 0, 512, 20 << 12 | RO)
    script.fill(4, 0, 512, 5 << 12 | DIRECTORY)
    script.path(1, 2)
    script.fill(2, 0, 4, 4 << 12 | DIRECTORY)
    script.create(1)
    machine = Machine(script.trace[0])
    for event in script.trace[1:]:
        getattr(machine, event["op"])(**{key: value for key, value in event.items() if key != "op"})
    assert machine.walker().space_summary("l4", 0x1000).runs == LIMIT
    machine.store(2 << 12 | 4 << 3, 8, 6 << 12 | DIRECTORY)
    machine.store(6 << 12, 8, 5 << 12 | DIRECTORY)
    assert machine.walker().space_summary("l4", 0x1000).runs == LIMIT + 512
    assert machine.walker().mappings("l4", 0x1000) is None


def test_2_to_the_36_runs_take_no_time() -> None:
    script = Script()
    script.fill(5, 0, 512, 20 << 12 | RO)
    for table, below in ((4, 5), (3, 4), (2, 3)):
        script.fill(table, 0, 512, below << 12 | DIRECTORY)
    script.create(2)
    script.dump("a")
    assert expected(script.trace)["dumps"][0]["spaces"] == [
        {"mode": "l4", "root": 0x2000, "mappings": None, "truncated": True}
    ]


def test_pieces_of_a_store() -> None:
    assert pieces(0xFF8, 8) == [(0xFF8, 8)]
    assert pieces(0x003, 8) == [(3, 8)]
    assert pieces(0xFFF, 2) == [(0xFFF, 1), (0x1000, 1)]
    assert pieces(0xFFD, 8) == [(0xFFD, 2), (0xFFF, 1), (0x1000, 4), (0x1004, 1)]
    assert pieces(0xFF9, 8) == [(0xFF9, 4), (0xFFD, 2), (0xFFF, 1), (0x1000, 1)]


def test_ram_comes_and_goes() -> None:
    ram = Ram(100, [[10, 5], [12, 1]])
    assert ram.ranges == [(0, 10), (15, 100)]
    ram.store(15 << 12, b"x")
    ram.add(12, 4)
    assert ram.ranges == [(0, 10), (12, 100)]
    assert ram.words(15) == (0,) * 512
    ram.add(100, 5)
    ram.remove(90, 1000)
    assert ram.ranges == [(0, 10), (12, 90)]
    assert ram.parts(5, 10) == [(5, 5), (12, 3)]
    assert ram.has(89)
    assert not ram.has(90)
    ram.add(0, 0)
    assert ram.ranges == [(0, 10), (12, 90)]


def test_counters_by_hand() -> None:
    script = chain(64)
    script.entry(4, 0, 10, PTE)  # a trap in strict mode; perhaps in relaxed mode
    script.entry(4, 1, 10, PTE)
    script.entry(3, 1, 5, DIRECTORY)
    script.store(0x4FFE, 0x0101_0101, 4)  # one piece in each of two leaf tables
    script.submit(1)
    script.fill(4, 0, 10, 0)
    script.store(64 << 12, 1)
    script.mmio(0x78818, 5)
    script.mmio(0x78818, 5)
    script.fill(4, 0, 10, 0)
    counters = expected(script.trace)["counters"]
    assert counters["strict"]["store_traps"] == [15, 15]
    assert counters["relaxed"]["store_traps"] == [1, 15]
    assert counters["relaxed"]["opened_pages"] == [0, 2]
    for mode in counters.values():
        assert mode["mmio_traps"] == [5, 5]
        assert mode["dropped_stores"] == [1, 1]
        assert mode["ignored_notifications"] == [1, 1]
        assert mode["protected_pages"] == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_runs_agree_with_walks_by_the_book(kind: str) -> None:
    """``mappings`` builds runs bottom up, ``resolve`` walks one address top down; they share single entries only."""
    looks = 0
    for seed in range(4):
        print(f"{kind} {seed}")
        trace = generate(kind, seed)
        machine = Machine(trace[0])
        for event in trace[1:]:
            if event["op"] == "dump":
                looks += looked_at(machine, random.Random(seed))
            else:
                getattr(machine, event["op"])(**{key: value for key, value in event.items() if key != "op"})
    assert looks > 100


def looked_at(machine: Machine, rng: random.Random) -> int:
    """How many addresses in and beside the runs of live spaces resolve as the runs say."""
    walker = machine.walker()
    looks = 0
    for mode, key in sorted(machine.live)[:3]:
        root = list_of(key)
        count = walker.space_summary(mode, root).runs
        runs = (walker.mappings(mode, root) or []) if count < 9000 else []
        assert count in (len(runs), 0) or count >= 9000
        for number in rng.sample(range(len(runs)), min(len(runs), 40)):
            va, length, gpa, writable, cache = runs[number]
            for offset in {0, length - 4096, rng.randrange(0, length, 4096)}:
                assert walker.resolve(mode, root, va + offset) == (gpa + offset, writable, cache)
                looks += 1
            if number + 1 == len(runs) or runs[number + 1][0] > va + length:
                assert walker.resolve(mode, root, va + length) is None
    return looks
