"""Interrupts: what is pending, when one is sent, and what is not lost."""

from __future__ import annotations

from tests.support.gpu_bench import GpuBench
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BCS0, MASTER, MASTER_ENABLE, RCS0, VCS0, VECS0

IIR0, IMR0, IER0 = 0x44308, 0x44304, 0x4430C
CONTEXT_SWITCH = 1 << 8


def work(bench: GpuBench, engine: int = RCS0, *commands: list[int] | int) -> None:
    """Have an engine execute a list, without the driver's handler."""
    context = bench.driver.context(engine)
    context.emit(*(commands or [mi.NOOP]))
    bench.driver.submit(context)
    bench.settle()
    bench.driver.process(engine)


def test_one_interrupt_is_sent_when_something_becomes_pending() -> None:
    bench = GpuBench()
    work(bench)
    assert bench.line.edges == 1
    work(bench)
    assert bench.line.edges == 1
    bench.driver.interrupt()
    assert bench.line.edges == 1
    work(bench)
    assert bench.line.edges == 2


def test_none_is_sent_while_the_master_is_off() -> None:
    bench = GpuBench()
    bench.driver.write(MASTER, 0)
    work(bench)
    assert bench.line.edges == 0
    assert bench.register(MASTER) == 1
    bench.driver.write(MASTER, MASTER_ENABLE)
    assert bench.line.edges == 1


def test_none_is_sent_without_a_reason() -> None:
    bench = GpuBench()
    work(bench)
    bench.driver.interrupt()
    for _ in range(3):
        bench.driver.write(MASTER, 0)
        bench.driver.write(MASTER, MASTER_ENABLE)
    assert bench.line.edges == 1


def test_the_master_tells_the_engines_apart() -> None:
    bits = {RCS0: 0, BCS0: 1, VCS0: 2, VECS0: 6}
    for engine, bit in bits.items():
        bench = GpuBench()
        work(bench, engine)
        assert bench.register(MASTER) == MASTER_ENABLE | 1 << bit


def test_the_enables_decide_what_is_pending() -> None:
    bench = GpuBench()
    bench.driver.write(IER0, 0)
    work(bench)
    assert bench.register(IIR0) == CONTEXT_SWITCH
    assert bench.register(MASTER) == MASTER_ENABLE
    assert bench.line.edges == 0
    bench.driver.write(IER0, CONTEXT_SWITCH)
    assert bench.line.edges == 1


def test_the_masks_decide_what_is_recorded() -> None:
    bench = GpuBench()
    bench.driver.write(IMR0, CONTEXT_SWITCH)
    work(bench)
    assert bench.register(IIR0) == 0
    bench.driver.write(0x220A8, CONTEXT_SWITCH << 16)
    work(bench, BCS0)
    assert bench.register(IIR0) == 0
    bench.driver.write(0x220A8, CONTEXT_SWITCH)
    work(bench, BCS0)
    assert bench.register(IIR0) == CONTEXT_SWITCH << 16


def test_an_event_after_the_guest_has_seen_the_bit_comes_again() -> None:
    bench = GpuBench()
    work(bench)
    bench.driver.write(MASTER, 0)
    seen = bench.register(IIR0)
    work(bench)
    bench.driver.write(IIR0, seen)
    assert bench.register(IIR0) == seen
    bench.driver.write(MASTER, MASTER_ENABLE)
    assert bench.line.edges == 2
    bench.driver.write(IIR0, seen)
    assert bench.register(IIR0) == 0


def test_an_event_before_it_does_not() -> None:
    bench = GpuBench()
    work(bench)
    work(bench)
    bench.driver.write(IIR0, bench.register(IIR0))
    assert bench.register(IIR0) == 0


def test_a_line_goes_down_with_its_reason() -> None:
    bench = GpuBench()
    bench.line.level_triggered = True
    work(bench)
    levels = [bench.line.level]
    for register, value in ((MASTER, 0), (MASTER, MASTER_ENABLE), (IIR0, 0xFFFFFFFF)):
        bench.driver.write(register, value)
        levels.append(bench.line.level)
    assert levels == [True, False, True, False]


def test_the_clock_has_36_bits_and_12_megahertz() -> None:
    bench = GpuBench()
    for now in (1_000_000_000, 1_000_001_000, 6_000_000_000_000_000):
        bench.now = now
        bench.pass_time(0)
        ticks = now * 12 // 1000 & (1 << 36) - 1
        for base in (0x2000, 0x22000, 0x12000, 0x1A000):
            assert bench.mmio_read(base + 0x358, 8) == ticks
            assert bench.register(base + 0x358) == ticks & 0xFFFFFFFF
            assert bench.register(base + 0x35C) == ticks >> 32
            assert bench.mmio_read(base + 0x35A, 2) == ticks >> 16 & 0xFFFF
