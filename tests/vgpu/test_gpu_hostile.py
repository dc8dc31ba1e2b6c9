"""A driver that means harm: random rings, batches, images, lists, tables and registers, in any order.

Whatever it does, each slice ends, no call raises, and no byte of a frame changes that the guest does not own.
"""

from __future__ import annotations

import random

import pytest

from tests.support.gpu_bench import VA, Batches, GpuBench
from tests.support.tables import FRAME
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BASES, GGTT
from xengt_dm.vgpu.commands import COMMANDS

FRAMES = 512
#: Frames that the guest gave back; they are filled with a pattern that nobody may change.
GONE = range(400, 464)
PATTERN = bytes([0xEE]) * FRAME
EDGES = [0, 1, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0xFFFFF000, 0x1000]
REGISTERS = [0x30, 0x34, 0x38, 0x3C, 0x80, 0x9C, 0xA8, 0xB0, 0xD0, 0x230, 0x244, 0x270, 0x29C, 0x370, 0x3A0, 0x600]


class Hostile:
    """A guest whose memory and registers become anything."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.bench = GpuBench(FRAMES, sync=Sync.RELAXED if seed % 2 else Sync.STRICT)
        self.batches = [Batches(engine, self.bench) for engine in (0, 1)]
        for gfn in GONE:
            self.bench.guest.remove(gfn)
            self.bench.guest.memory[gfn * FRAME : (gfn + 1) * FRAME] = PATTERN
        self.bench.tables.frames_changed()

    def address(self) -> int:
        """An address that may be anything in a space or in the GGTT."""
        rng = self.rng
        return rng.choice(
            [
                VA + rng.randrange(4 * FRAME),
                (16 << 20) + rng.randrange(200) * FRAME + rng.randrange(FRAME),
                rng.randrange(1 << 64),
                (1 << 48) - 8,
                0,
            ]
        )

    def dwords(self, count: int) -> list[int]:
        """Commands with random contents, or nothing of the kind."""
        rng = self.rng
        found: list[int] = []
        while len(found) < count:
            kind = rng.randrange(6)
            if kind == 0:
                found.append(rng.randrange(1 << 32))
            elif kind < 4:
                row = rng.choice(COMMANDS)
                header = row.client << 29 | row.opcode << row.client.opcode_shift | rng.randrange(1 << 22)
                found += [header & ~0xF0 | rng.randrange(12), *mi.split(self.address()), rng.choice(EDGES)]
            else:
                found += rng.choice(
                    [
                        mi.store(self.address(), rng.randrange(1 << 32), ggtt=rng.random() < 0.5),
                        mi.store_qwords(self.address(), self.rng.randrange(1 << 64), ggtt=rng.random() < 0.5),
                        mi.batch_start(self.address(), ppgtt=rng.random() < 0.5, second_level=rng.random() < 0.5),
                        mi.load_immediate((rng.choice(BASES) + rng.choice(REGISTERS), rng.randrange(1 << 32))),
                        mi.semaphore_wait(self.address(), rng.choice(EDGES), rng.randrange(8)),
                        [mi.BATCH_END],
                    ]
                )
        return found

    def step(self) -> None:
        """Do one thing."""
        rng, bench = self.rng, self.bench
        one = rng.choice(self.batches)
        what = rng.randrange(9)
        if what == 0:
            gfn = rng.choice([one.batch // FRAME, *one.context.ring_frames, *one.context.frames[:3]])
            bench.write_dwords(gfn * FRAME + 4 * rng.randrange(900), self.dwords(20)[:100])
        elif what == 1:
            one.context.emit(mi.batch_start(VA))
            one.context.write_image(7, rng.choice([one.context.tail, rng.randrange(1 << 32)]))
            low = rng.choice([one.context.address | 0x119, rng.randrange(1 << 32) | 1])
            bench.driver.write_list(one.engine, [(low, rng.randrange(1 << 32)), (rng.choice([0, low]), 5)])
        elif what == 2:
            bench.driver.write(rng.choice(BASES) + rng.choice(REGISTERS), rng.choice([*EDGES, rng.randrange(1 << 32)]))
        elif what == 3:
            entry = rng.choice([rng.choice(GONE), rng.randrange(FRAMES), rng.randrange(1 << 27)]) << 12 | 1
            bench.mmio_write(GGTT + 8 * ((16 << 20 >> 12) + rng.randrange(256)), 8, entry)
        elif what == 4:
            entry = rng.choice([rng.choice(GONE), rng.randrange(FRAMES)]) << 12 | rng.choice([1, 3, 0x83])
            bench.store(one.space.entry_of(VA + rng.randrange(16) * FRAME), 8, entry)
        elif what == 5:
            bench.pass_time()
        elif what == 6 and rng.random() < 0.2:
            bench.driver.write(0x941C, 1 << rng.randrange(5))
            for each in self.batches:
                bench.driver.resume(each.engine)
        elif what == 7 and rng.random() < 0.2:
            bench.attach()
        else:
            for _ in range(3):
                if bench.engines.due() <= bench.now:
                    bench.engines.run()

    def check(self) -> None:
        for gfn in GONE:
            assert self.bench.guest.memory[gfn * FRAME : (gfn + 1) * FRAME] == PATTERN, f"frame {gfn} has changed"
        self.bench.attach()  # no engine holds a table from here on
        assert self.bench.tables.check() == []


@pytest.mark.parametrize("seed", range(1000, 1006))
def test_a_hostile_driver_harms_nobody(seed: int) -> None:
    hostile = Hostile(seed)
    for _ in range(200):
        hostile.step()
    hostile.check()
