"""What each kind of store delivers, and what is in guest memory after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.device_model import DeviceModel, Request, write
from tests.support.tables import FRAME
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.embedded.p2m import P2mType

PAGE = 5 * FRAME
NEXT = 6 * FRAME
Program = Callable[[Vcpu], None]


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(32, 2) as made:
        yield made


@pytest.fixture
def model(domain: EmbeddedDomain) -> DeviceModel:
    made = DeviceModel(domain)
    made.protect(5)
    return made


VALUE = 0x8877665544332211
VECTOR = bytes(range(1, 65))


def pieces(gpa: int, data: bytes, *sizes: int) -> list[Request]:
    """``data`` at ``gpa`` in requests of ``sizes``."""
    out, at = [], 0
    for size in sizes:
        out.append(write(gpa + at, size, int.from_bytes(data[at : at + size], "little")))
        at += size
    assert at == len(data)
    return out


EIGHT = VALUE.to_bytes(8, "little")

#: name: (what the guest does, what arrives). Source: xen/arch/x86/hvm/emulate.c, see cffi_build/embedded/vcpu_insn.c.
DELIVERIES: dict[str, tuple[Program, list[Request]]] = {
    "1 byte": (lambda v: v.store(PAGE + 3, 1, VALUE), [write(PAGE + 3, 1, VALUE)]),
    "2 bytes": (lambda v: v.store(PAGE + 2, 2, VALUE), [write(PAGE + 2, 2, VALUE)]),
    "4 bytes": (lambda v: v.store(PAGE + 4, 4, VALUE), [write(PAGE + 4, 4, VALUE)]),
    "8 bytes": (lambda v: v.store(PAGE + 8, 8, VALUE), [write(PAGE + 8, 8, VALUE)]),
    "2 bytes unaligned": (lambda v: v.store(PAGE + 7, 2, VALUE), [write(PAGE + 7, 2, VALUE)]),
    "4 bytes unaligned": (lambda v: v.store(PAGE + 2, 4, VALUE), [write(PAGE + 2, 4, VALUE)]),
    "8 bytes unaligned": (lambda v: v.store(PAGE + 4, 8, VALUE), [write(PAGE + 4, 8, VALUE)]),
    "8 bytes odd": (lambda v: v.store(PAGE + 1, 8, VALUE), [write(PAGE + 1, 8, VALUE)]),
    "16-byte vector": (lambda v: v.store_bytes(PAGE, VECTOR[:16]), pieces(PAGE, VECTOR[:16], 8, 8)),
    "32-byte vector": (lambda v: v.store_bytes(PAGE, VECTOR[:32]), pieces(PAGE, VECTOR[:32], 8, 8, 8, 8)),
    "64-byte vector": (lambda v: v.store_bytes(PAGE, VECTOR), pieces(PAGE, VECTOR, *[8] * 8)),
    "16-byte vector unaligned": (lambda v: v.store_bytes(PAGE + 5, VECTOR[:16]), pieces(PAGE + 5, VECTOR[:16], 8, 8)),
    "10 bytes (x87)": (lambda v: v.store_bytes(PAGE, VECTOR[:10]), pieces(PAGE, VECTOR[:10], 8, 2)),
    "over the page's start": (lambda v: v.store(PAGE - 3, 8, VALUE), pieces(PAGE, EIGHT[3:], 4, 1)),
    "over the page's end": (lambda v: v.store(NEXT - 3, 8, VALUE), pieces(NEXT - 3, EIGHT[:3], 2, 1)),
    "4 bytes over the end": (lambda v: v.store(NEXT - 2, 4, VALUE), [write(NEXT - 2, 2, VALUE)]),
    "vector over the end": (
        lambda v: v.store_bytes(NEXT - 21, VECTOR[:32]),
        pieces(NEXT - 21, VECTOR[:21], 8, 8, 4, 1),
    ),
    "rep stos of bytes": (
        lambda v: v.rep_stos(PAGE + 1, 1, 3, 0xAB),
        [write(PAGE + 1 + i, 1, 0xAB) for i in range(3)],
    ),
    "rep stos of a page": (
        lambda v: v.rep_stos(PAGE, 8, 512, VALUE),
        [write(PAGE + 8 * i, 8, VALUE) for i in range(512)],
    ),
    "rep stos downwards": (
        lambda v: v.rep_stos(PAGE + 16, 4, 3, VALUE, down=True),
        [write(PAGE + 16 - 4 * i, 4, VALUE) for i in range(3)],
    ),
    "rep stos out of the page": (
        lambda v: v.rep_stos(NEXT - 16, 8, 4, VALUE),
        [write(NEXT - 16, 8, VALUE), write(NEXT - 8, 8, VALUE)],
    ),
    "compiled memset": (lambda v: v.fill(PAGE, 4, VALUE), [write(PAGE + 8 * i, 8, VALUE) for i in range(4)]),
    "compiled memcpy": (lambda v: v.copy(PAGE, VECTOR[:15]), pieces(PAGE, VECTOR[:15], 8, 4, 2, 1)),
    "read": (lambda v: expect(v.load(PAGE, 8), 0), []),
}


def expect(got: object, wanted: object) -> None:
    assert got == wanted


@pytest.mark.parametrize("name", DELIVERIES)
def test_delivery(model: DeviceModel, domain: EmbeddedDomain, name: str) -> None:
    program, wanted = DELIVERIES[name]
    assert model.serve(program) == wanted
    assert domain.dropped_stores == 0


@pytest.mark.parametrize("name", DELIVERIES)
def test_memory_is_as_on_plain_ram(name: str) -> None:
    program, _ = DELIVERIES[name]
    with EmbeddedDomain(32, 1) as plain, EmbeddedDomain(32, 1) as trapped:
        plain.start(0, program)
        plain.join()
        model = DeviceModel(trapped)
        model.protect(5)
        model.serve(program)
        assert trapped.read(4 * FRAME, 3 * FRAME) == plain.read(4 * FRAME, 3 * FRAME)


def test_rep_movs_reads_memory_and_stores_by_the_element(model: DeviceModel, domain: EmbeddedDomain) -> None:
    domain.write(10 * FRAME, VECTOR)
    assert model.serve(lambda v: v.rep_movs(PAGE, 10 * FRAME, 4, 3)) == pieces(PAGE, VECTOR[:12], 4, 4, 4)
    assert domain.read(PAGE, 12) == VECTOR[:12]


def test_the_device_model_stores_or_nobody_does(model: DeviceModel, domain: EmbeddedDomain) -> None:
    model.start(lambda v: v.store(PAGE, 8, VALUE))
    model.answer(model.take_one(), commit=False)
    assert model.take() == []
    assert domain.read(PAGE, 8) == bytes(8)


def test_xchg_is_a_read_and_a_plain_write(model: DeviceModel, domain: EmbeddedDomain) -> None:
    domain.write(PAGE, EIGHT)
    assert model.serve(lambda v: expect(v.xchg(PAGE, 8, 7), VALUE)) == [write(PAGE, 8, 7)]
    assert domain.read_u64(PAGE) == 7


def test_xchg_loses_what_was_stored_between_its_halves(model: DeviceModel, domain: EmbeddedDomain) -> None:
    """Xen admits that a locked instruction is not atomic here."""
    model.start(lambda v: expect(v.xchg(PAGE, 8, 7), 0))
    request = model.take_one()
    domain.write(PAGE, EIGHT)
    model.answer(request)
    assert model.take() == []
    assert domain.read_u64(PAGE) == 7


def test_cmpxchg_that_fails_writes_nothing(model: DeviceModel, domain: EmbeddedDomain) -> None:
    domain.write(PAGE, EIGHT)
    assert model.serve(lambda v: expect(v.cmpxchg(PAGE, 8, 1, 2), (VALUE, False))) == []
    assert model.serve(lambda v: expect(v.cmpxchg(PAGE, 8, VALUE, 2), (VALUE, True))) == [write(PAGE, 8, 2)]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("offset", [0, 3])
def test_rmw_on_plain_ram(domain: EmbeddedDomain, size: int, offset: int) -> None:
    gpa, mask = 10 * FRAME + offset, (1 << 8 * size) - 1
    domain.write(gpa, EIGHT)

    def program(v: Vcpu) -> None:
        assert v.xchg(gpa, size, 7) == VALUE & mask
        assert v.cmpxchg(gpa, size, 8, 9) == (7, False)
        assert v.cmpxchg(gpa, size, 7, 9) == (7, True)
        assert v.load(gpa, size) == 9

    domain.start(0, program)
    domain.join()
    assert domain.read(gpa + size, 8 - size) == EIGHT[size:]


def test_memory_beside_a_trapped_page_is_written_again_at_each_pass(model: DeviceModel, domain: EmbeddedDomain) -> None:
    """The instruction is emulated again from its start, so what it copied it copies again."""
    model.start(lambda v: v.store(PAGE - 4, 8, VALUE))
    request = model.take_one()
    domain.write(PAGE - 4, bytes(4))
    model.answer(request)
    assert model.take() == []
    assert domain.read(PAGE - 4, 8) == EIGHT


def test_passes(model: DeviceModel, domain: EmbeddedDomain) -> None:
    model.serve(lambda v: v.store(PAGE, 8, 1))
    assert domain.counters["passes"] == 2
    model.serve(lambda v: v.store_bytes(PAGE, VECTOR))
    assert domain.counters["passes"] == 2 + 9


def test_a_store_to_nothing_is_dropped_and_counted_once(model: DeviceModel, domain: EmbeddedDomain) -> None:
    def program(v: Vcpu) -> None:
        v.store(40 * FRAME + 1, 8, VALUE)
        v.store_bytes(41 * FRAME - 5, VECTOR)
        v.fill(50 * FRAME, 10, VALUE)
        assert v.load(40 * FRAME, 4) == 0xFFFFFFFF
        v.store(32 * FRAME - 4, 8, VALUE)

    assert model.serve(program) == []
    assert domain.dropped_stores == 1 + 1 + 10 + 1
    assert domain.read(32 * FRAME - 4, 4) == EIGHT[:4]
    assert domain.counters["all_ones_loads"] == 1


def test_read_only_memory_discards(model: DeviceModel, domain: EmbeddedDomain) -> None:
    domain.set_type(8, 1, P2mType.RAM_RO)

    def program(v: Vcpu) -> None:
        v.store(8 * FRAME, 8, VALUE)
        v.rep_stos(8 * FRAME, 8, 2, VALUE)
        assert v.load(8 * FRAME, 8) == 0
        # Found on the way to one mapping of both pages, it swallows the memory beside it too.
        v.store(8 * FRAME - 4, 8, VALUE)

    assert model.serve(program) == []
    assert domain.counters["discarded_stores"] == 3
    assert domain.read(8 * FRAME - 4, 8) == bytes(8)


def test_log_dirty_memory_settles(domain: EmbeddedDomain) -> None:
    assert domain.log_dirty(True)
    domain.start(0, lambda v: v.store(9 * FRAME - 4, 8, VALUE))
    domain.join()
    assert [domain.type_of(gfn) for gfn in (7, 8, 9)] == [P2mType.RAM_LOGDIRTY, P2mType.RAM_RW, P2mType.RAM_RW]
    assert domain.read(9 * FRAME - 4, 8) == EIGHT


def test_log_dirty_is_refused_while_entries_are_outstanding(model: DeviceModel, domain: EmbeddedDomain) -> None:
    assert not domain.log_dirty(True)
    model.unprotect(5)
    assert domain.log_dirty(True)
    assert model.set_types(4, [5]) == [22]
