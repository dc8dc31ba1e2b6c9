"""What a batch without privilege cannot do, and what no command can."""

from __future__ import annotations

import pytest

from tests.support.gpu_bench import NOWHERE, VA, Batches
from tests.support.tables import FRAME
from xengt_dm.sim import mi
from xengt_dm.sim.driver import BCS0, GGTT, RCS0
from xengt_dm.sim.spaces import READ_ONLY

DATA = Batches.DATA
NONPRIV0 = 0x4D0


@pytest.fixture
def one() -> Batches:
    return Batches()


def victim(one: Batches) -> tuple[int, int]:
    """A page in the GGTT: its GGTT address, where nothing of the space is, and its gpa."""
    gfn = one.bench.take()
    one.bench.write_dwords(gfn * FRAME, 0x600D600D)
    return one.bench.driver.bind([gfn]), gfn * FRAME


@pytest.mark.parametrize(
    "command",
    [
        lambda to: mi.store(to, 0xBAD, ggtt=True),
        lambda to: mi.store_qwords(to, 0xBAD, ggtt=True),
        lambda to: mi.store_register(0x2600, to, ggtt=True),
        lambda to: mi.copy(to, DATA, ggtt=1 << 21),
        lambda to: mi.pipe_control(mi.WRITE_QWORD | mi.WRITE_GGTT, to, 0xBAD),
        lambda to: [0x2F << 23 | mi.GGTT | 0x05 << 8 | 1 << 18 | 9, *mi.split(to), *[0] * 8],
    ],
)
def test_no_batch_without_privilege_stores_to_the_ggtt(one: Batches, command: object) -> None:
    address, gpa = victim(one)
    one.user(command(address), mi.store(DATA, 1))  # type: ignore[operator]
    assert one.bench.dword(gpa) == 0x600D600D
    assert one.value() == 1
    # Nor does it reach what the space has at the same address.
    own = one.bench.page(one.space, address & ~0xFFF)
    one.user(command(address))  # type: ignore[operator]
    assert one.bench.dword(own) == 0
    one.ring(command(address))  # type: ignore[operator]
    assert one.bench.dword(gpa) != 0x600D600D


def test_a_flush_of_the_blitter_neither() -> None:
    one = Batches(BCS0)
    address, gpa = victim(one)
    one.user(
        mi.flush(address, 0xBAD), mi.flush(0x100, 0xBAD, index=True), mi.flush(0x100, 0xBAD, ggtt=False, index=True)
    )
    assert one.bench.dword(gpa) == 0x600D600D
    assert one.bench.dword(one.context.frames[0] * FRAME + 0x100) == 0
    assert one.bench.dword(one.bench.driver.status_frames[BCS0] * FRAME + 0x100) == 0


def test_nor_does_it_store_to_a_status_page(one: Batches) -> None:
    one.user([0x21 << 23 | 1, 0x200, 0xBAD], [0x21 << 23 | 1 << 21 | 1, 0x200, 0xBAD])
    assert one.bench.dword(one.context.frames[0] * FRAME + 0x200) == 0
    assert one.bench.dword(one.bench.driver.status_frames[RCS0] * FRAME + 0x200) == 0
    one.ring([0x21 << 23 | 1, 0x200, 1], [0x21 << 23 | 1 << 21 | 1, 0x204, 2])
    assert one.bench.dword(one.bench.driver.status_frames[RCS0] * FRAME + 0x200) == 1
    assert one.bench.dword(one.context.frames[0] * FRAME + 0x204) == 2


def test_nor_read_the_ggtt(one: Batches) -> None:
    address, _ = victim(one)
    gpr = 0x2600
    one.user(
        mi.load_immediate((gpr, 5)),
        mi.load_memory(gpr, address, ggtt=True),
        mi.store_register(gpr, DATA),
        mi.copy(DATA + 4, address, ggtt=mi.GGTT),
    )
    assert (one.value(), one.value(4)) == (5, 0)


def test_nor_change_the_ggtt(one: Batches) -> None:
    address, _ = victim(one)
    before = one.bench.mmio_read(GGTT + (address >> 12) * 8, 8)
    update = [0x23 << 23 | 2, address, 0x5001, 0]
    one.user(update)
    assert one.bench.mmio_read(GGTT + (address >> 12) * 8, 8) == before
    one.ring(update)
    assert one.bench.mmio_read(GGTT + (address >> 12) * 8, 8) == 0x5001


#: Registers that a driver relies on, and values that they do not have.
FORBIDDEN = [(0x2080, 0x5000), (0x229C, 0x80000000), (0x20C8, 1), (0x22600, 1), (0x209C, 0x01000100), (0x44304, 0xFF)]


@pytest.mark.parametrize(("register", "value"), FORBIDDEN)
def test_nor_change_other_registers(one: Batches, register: int, value: int) -> None:
    before = one.bench.register(register)
    one.bench.write_dwords(one.data + 16, value)
    one.user(
        mi.load_immediate((register, value)),
        mi.load_memory(register, DATA + 16),
        mi.load_immediate((0x2600, value)),
        mi.load_register(0x2600, register),
    )
    assert one.bench.register(register) == before
    assert one.bench.pointer.counts.denied == 3


@pytest.mark.parametrize("register", [0x2600, 0x267C, 0x2400, 0x2408, 0x5280, 0x7034, 0xE404, 0x2310])
def test_what_it_may_change(one: Batches, register: int) -> None:
    one.user(mi.load_immediate((register, 4)), mi.store_register(register, DATA))
    assert one.value() == 4


def test_a_slot_allows_a_register(one: Batches) -> None:
    hdc = 0x7304
    read = mi.store_register(hdc, DATA)
    one.user(mi.load_immediate((hdc, 0x00100010)), read)
    assert one.value() == 0
    one.bench.driver.write(0x2000 + NONPRIV0 + 8, hdc)
    one.user(mi.load_immediate((hdc, 0x00100010)), read)
    assert one.value() == 0x10


def test_a_batch_in_the_ppgtt_stays_without_privilege(one: Batches) -> None:
    gfn = one.bench.take()
    inner = one.bench.driver.bind([gfn])
    address, gpa = victim(one)
    one.bench.write_dwords(gfn * FRAME, mi.store(address, 0xBAD, ggtt=True), mi.BATCH_END)
    # In the space, nothing is at this address: the engine runs through nowhere until it is reset.
    one.user(mi.batch_start(inner, ppgtt=False), settle=False)
    one.bench.run()
    assert one.bench.dword(gpa) == 0x600D600D
    one.bench.driver.reset_engine(RCS0)
    # With privilege, the same batch does it.
    context = one.bench.driver.context(RCS0, one.space.root)
    one.bench.execute(context, mi.batch_start(inner, ppgtt=False))
    assert one.bench.dword(gpa) == 0xBAD


def test_read_only_pages_stay(one: Batches) -> None:
    gpa = one.bench.page(one.space, VA + 8 * FRAME, READ_ONLY)
    one.bench.write_dwords(gpa, 0x600D)
    to = VA + 8 * FRAME
    one.user(mi.store(to, 1), mi.atomic(4, to, 1), mi.store_register(0x2600, to), mi.copy(DATA, to))
    assert one.bench.dword(gpa) == 0x600D
    assert one.value() == 0x600D
    assert one.bench.register(0x4094) & 1


def test_a_fault_is_where_a_driver_looks(one: Batches) -> None:
    one.user(mi.store(0x1234_5678_9000, 1), mi.store(DATA, 2))
    assert one.value() == 2
    assert one.bench.register(0x4094) == 1
    assert (one.bench.register(0x4B10), one.bench.register(0x4B14)) == (0x2345_6789, 1)
    one.bench.driver.write(0x4094, 0)
    one.ring(mi.store(0x7000_0000, 1, ggtt=True))
    assert (one.bench.register(0x4094), one.bench.register(0x4B14)) == (1, 1 << 4)


def test_entries_of_the_ggtt_that_name_no_ram(one: Batches) -> None:
    one.bench.driver.bind_at(0x3000_0000, NOWHERE << 12 | 1)
    one.bench.write_dwords(one.data, 0xFFFFFFFF)
    own = one.bench.driver.bind([one.data // FRAME])
    one.ring(mi.store(0x3000_0000, 5, ggtt=True), mi.copy(own, 0x3000_0000, ggtt=mi.GGTT | 1 << 21))
    assert one.value() == 0
