"""Slots of shared memory in C: taken once, answered once, whatever the other side writes meanwhile."""

from __future__ import annotations

import errno
import struct
import sys
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.ioreq.request import Request
from xengt_dm.units import CData

NONE, READY, INPROCESS, RESP_READY = range(4)
READ, POINTER, DOWN = 0x20, 0x10, 0x40
VCPUS = 5
#: struct ioreq of xen/include/public/hvm/ioreq.h: addr, data, count, size, vp_eport, two bytes, bit fields, type.
LAYOUT = struct.Struct("<QQIIIHBB")

u64 = st.integers(0, (1 << 64) - 1)
u32 = st.integers(0, (1 << 32) - 1)
vcpus = st.integers(0, VCPUS - 1)


def new_page() -> CData:
    return ffi.new("char[4096]")


def put(page: CData, vcpu: int, *fields: int) -> None:
    """A slot as Xen writes it."""
    ffi.buffer(page)[32 * vcpu : 32 * vcpu + 32] = LAYOUT.pack(*fields)


def slot(page: CData, vcpu: int) -> tuple[int, ...]:
    return LAYOUT.unpack(bytes(ffi.buffer(page)[32 * vcpu : 32 * vcpu + 32]))


def take(page: CData, vcpu_count: int = VCPUS, begun: bool = False) -> list[Request]:
    taken = ffi.new("xd_taken[]", vcpu_count)
    count = lib.xd_slots_take(page, vcpu_count, begun, taken, ffi.NULL, ffi.NULL)
    return unpacked(taken, count)


def unpacked(taken: CData, count: int) -> list[Request]:
    return Request.unpack(ffi.buffer(taken)[: count * ffi.sizeof("xd_taken")])


class SlotMachine(RuleBasedStateMachine):
    """Xen and a device model take turns as they like. The model: what each slot holds, as Xen's structure has it."""

    def __init__(self) -> None:
        super().__init__()
        self.page = new_page()
        self.slots = [[0] * 8 for _ in range(VCPUS)]

    def bits(self, vcpu: int, state: int) -> None:
        self.slots[vcpu][6] = self.slots[vcpu][6] & 0xF0 | state

    @rule(vcpu=vcpus, addr=u64, data=u64, count=u32, size=u32, bits=st.integers(0, 15), kind=st.integers(0, 255))
    def post(self, vcpu: int, addr: int, data: int, count: int, size: int, bits: int, kind: int) -> None:
        req = ffi.new("xd_ioreq *", {"addr": addr, "data": data, "count": count, "size": size, "type": kind})
        req.bits = bits << 4 | 3
        req.vp_eport = 77
        free = self.slots[vcpu][6] & 15 == NONE
        assert embedded.xd_slot_post(self.page, vcpu, req) == (0 if free else -errno.EBUSY)
        if free:
            kept = self.slots[vcpu][4:6]
            self.slots[vcpu] = [addr, data, count, size, *kept, bits << 4 | READY, kind]

    @rule(count=st.integers(0, VCPUS), begun=st.booleans())
    def take(self, count: int, begun: bool) -> None:
        wanted = [READY, INPROCESS] if begun else [READY]
        ready = [vcpu for vcpu in range(count) if self.slots[vcpu][6] & 15 in wanted]
        taken = take(self.page, max(count, 1), begun) if count else []
        assert [request.vcpu for request in taken] == ready
        for request in taken:
            addr, data, repeats, size, _, _, bits, kind = self.slots[request.vcpu]
            flags = (bits & READ != 0, bits & POINTER != 0, bits & DOWN != 0)
            assert request == (request.vcpu, kind, addr, data, size, repeats, *flags)
            self.bits(request.vcpu, INPROCESS)

    @rule(vcpu=vcpus, data=u64)
    def answer(self, vcpu: int, data: int) -> None:
        """Only what was taken is answered; data goes back for reads alone."""
        if self.slots[vcpu][6] & 15 != INPROCESS:
            return
        lib.xd_slot_answer(self.page, vcpu, data, lib.XD_ROUTE_REFUSED, ffi.NULL)
        if self.slots[vcpu][6] & READ:
            self.slots[vcpu][1] = data
        self.bits(vcpu, RESP_READY)

    @rule(vcpu=vcpus)
    def finish(self, vcpu: int) -> None:
        """Xen takes the answer."""
        if self.slots[vcpu][6] & 15 == RESP_READY:
            assert embedded.xd_slot_data(self.page, vcpu) == self.slots[vcpu][1]
            embedded.xd_slot_set_state(self.page, vcpu, NONE)
            self.bits(vcpu, NONE)

    @rule(vcpu=vcpus, port=u32)
    def set_port(self, vcpu: int, port: int) -> None:
        embedded.xd_slot_set_port(self.page, vcpu, port)
        self.slots[vcpu][4] = port

    @invariant()
    def same(self) -> None:
        for vcpu in range(VCPUS):
            assert slot(self.page, vcpu) == tuple(self.slots[vcpu])
            assert lib.xd_slot_state(self.page, vcpu) == self.slots[vcpu][6] & 15
            assert lib.xd_slot_port(self.page, vcpu) == self.slots[vcpu][4]
        assert bytes(ffi.buffer(self.page)[32 * VCPUS :]) == bytes(4096 - 32 * VCPUS)


TestSlotMachine = SlotMachine.TestCase
TestSlotMachine.settings = settings(max_examples=40, stateful_step_count=30)


@pytest.mark.parametrize("state", range(16))
@pytest.mark.parametrize("begun", [False, True])
def test_each_state(state: int, begun: bool) -> None:
    """Only READY is taken; INPROCESS too by who adopts. Whatever else is in the bits is nobody's to touch."""
    page = new_page()
    put(page, 2, 0x1000, 0x55, 1, 8, 9, 0, 0x80 | READ | state, 1)
    taken = take(page, 3, begun)
    is_taken = state == READY or (begun and state == INPROCESS)
    assert len(taken) == is_taken
    assert slot(page, 2)[6] == (0x80 | READ | INPROCESS if is_taken else 0x80 | READ | state)


def test_what_is_taken_is_a_copy() -> None:
    page = new_page()
    put(page, 0, 0x1000, 0x55, 1, 8, 9, 0, READY, 1)
    taken = ffi.new("xd_taken[1]")
    assert lib.xd_slots_take(page, 1, 0, taken, ffi.NULL, ffi.NULL) == 1
    put(page, 0, 0xBAD, 0xBAD, 7, 1, 9, 0, 0xF0 | INPROCESS, 2)
    assert unpacked(taken, 1)[0] == (0, 1, 0x1000, 0x55, 8, 1, False, False, False)


def test_all_slots_of_a_page() -> None:
    page = new_page()
    for vcpu in range(lib.XD_SLOTS_PER_PAGE):
        put(page, vcpu, vcpu << 12, vcpu, 1, 4, vcpu, 0, READY, 1)
    taken = take(page, lib.XD_SLOTS_PER_PAGE)
    assert [(request.vcpu, request.addr) for request in taken] == [(vcpu, vcpu << 12) for vcpu in range(128)]


def test_a_write_is_answered_without_touching_its_data() -> None:
    page = new_page()
    put(page, 0, 0x1000, 0x55, 1, 8, 9, 0, INPROCESS, 1)
    lib.xd_slot_answer(page, 0, 0xBAD, lib.XD_ROUTE_REFUSED, ffi.NULL)
    assert slot(page, 0) == (0x1000, 0x55, 1, 8, 9, 0, RESP_READY, 1)
    put(page, 0, 0x1000, 0x55, 1, 8, 9, 0, READ | INPROCESS, 1)
    lib.xd_slot_answer(page, 0, 0x600D, lib.XD_ROUTE_REFUSED, ffi.NULL)
    assert slot(page, 0) == (0x1000, 0x600D, 1, 8, 9, 0, READ | RESP_READY, 1)


def test_two_threads_hand_slots_to_and_fro() -> None:
    """No request is lost, seen twice or torn: every field is made from one number, and so is the answer."""
    page = new_page()
    rounds = 200
    torn: list[object] = []
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # both threads spin, and one interpreter has to run them

    def device_model() -> None:
        served = 0
        taken = ffi.new("xd_taken[2]")
        while served < 2 * rounds and not torn:
            count = lib.xd_slots_take(page, 2, lib.XD_TAKE_READY, taken, ffi.NULL, ffi.NULL)
            for request in unpacked(taken, count):
                number = request.addr
                if (request.data, request.size, request.repeats) != (number * 3, number & 0xFFFF, number & 0xFF):
                    torn.append(request)
                lib.xd_slot_answer(page, request.vcpu, number * 5, lib.XD_ROUTE_REFUSED, ffi.NULL)
                served += 1

    thread = threading.Thread(target=device_model, daemon=True)
    thread.start()
    req = ffi.new("xd_ioreq *", {"type": 1, "bits": READ})
    posted = [0, 0]
    while min(posted) < rounds and not torn:
        for vcpu in range(2):
            state = lib.xd_slot_state(page, vcpu)
            if state == RESP_READY:
                number = posted[vcpu] * 7 + vcpu
                if embedded.xd_slot_data(page, vcpu) != number * 5:
                    torn.append(slot(page, vcpu))
                embedded.xd_slot_set_state(page, vcpu, NONE)
                posted[vcpu] += 1
            elif state == NONE and posted[vcpu] < rounds:
                number = posted[vcpu] * 7 + vcpu
                req.addr, req.data, req.size, req.count = number, number * 3, number & 0xFFFF, number & 0xFF
                assert embedded.xd_slot_post(page, vcpu, req) == 0
    thread.join(60)
    sys.setswitchinterval(usual)
    assert not torn
    assert not thread.is_alive()
