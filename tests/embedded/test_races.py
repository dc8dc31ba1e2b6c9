"""Types that change while somebody stores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from tests.support.device_model import PATIENCE, DeviceModel, write
from tests.support.faults import Hold, Point, wait_until_blocked
from tests.support.tables import FRAME
from xengt_dm._core import ffi, lib
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.hypervisor.port import MemType

PAGE = 5 * FRAME
VECTOR = bytes(range(1, 17))


def page_that_traps(flavour: str, guarded: bool, unlocked: bool | None = None) -> tuple[EmbeddedDomain, DeviceModel]:
    domain = EmbeddedDomain(16, 2, flavour=flavour, unlocked_looks=unlocked)
    model = DeviceModel(domain, ranges=[(PAGE, PAGE + FRAME - 1)] if guarded else [], claim=domain.flavour.claim)
    model.protect(5)
    return domain, model


@pytest.mark.parametrize("guarded", [False, True])
def test_unprotecting_a_page_in_the_middle_of_a_vector_store(guarded: bool) -> None:
    """The first half is being served when the page is unprotected; the second is looked at anew, and is no owner's."""
    domain, model = page_that_traps("4.17", guarded)
    with domain:
        model.start(lambda v: v.store_bytes(PAGE, VECTOR))
        first = model.take_one()
        model.unprotect(5)
        model.answer(first)
        rest = model.take()
        for request in rest:
            model.answer(request)
        assert domain.join(PATIENCE)
        half = write(PAGE + 8, 8, int.from_bytes(VECTOR[8:], "little"))
        assert rest == ([half] if guarded else [])
        assert domain.dropped_stores == int(not guarded)
        assert domain.read(PAGE, 16) == (VECTOR if guarded else VECTOR[:8] + bytes(8))


@pytest.mark.parametrize(("flavour", "dropped"), [("v7", True), ("4.7", True), ("4.17", False)])
def test_a_type_that_changes_between_the_looks(flavour: str, dropped: bool) -> None:
    """Up to 4.8 the emulator looked without the lock; what was unprotected meanwhile fell to the null handler."""
    domain = EmbeddedDomain(16, 1, flavour=flavour, unlocked_looks=True)
    with domain:
        model = DeviceModel(domain, claim=domain.flavour.claim)
        domain.set_type(5, 1, P2mType.IOREQ_SERVER)
        with Hold(domain, 0, Point.BETWEEN_LOOKS if dropped else Point.COPY) as hold:
            domain.start(0, lambda v: v.store(PAGE, 8, 7))
            if dropped:
                hold.wait()
            else:
                # Since 4.12 the emulator tries memory first, so the store is either a request or done.
                wait_until_blocked(domain, 0)
            model.unprotect(5)
        for request in model.scan():
            model.answer(request)
        assert domain.join(PATIENCE)
        assert domain.dropped_stores == int(dropped)
        assert domain.read_u64(PAGE) == (0 if dropped else 7)


def test_no_type_changes_between_the_looks_since_4_9() -> None:
    domain, model = page_that_traps("4.17", guarded=False)
    with domain, Hold(domain, 0, Point.BETWEEN_LOOKS):
        assert model.serve(lambda v: v.store(PAGE, 8, 7)) == [write(PAGE, 8, 7)]


def test_a_copy_in_flight_outlives_a_protect() -> None:
    """The emulator's own store to memory beside a trapped page: no flush of translations waits for it."""
    domain, model = page_that_traps("4.17", guarded=False)
    with domain:
        model.start(lambda v: v.store(PAGE - 8 + 4, 8, 0x0102030405060708))
        request = model.take_one()
        with Hold(domain, 0, Point.COPY) as hold:
            model.answer(request)
            hold.wait()
            model.protect(4)
            domain.write(PAGE - 4, bytes(4))
        assert model.take() == []
        assert domain.read(PAGE - 4, 4) == bytes([8, 7, 6, 5])
        # A pause does wait, which makes it the barrier that the flush is not.


def test_a_pause_waits_for_a_vcpu_inside_xen() -> None:
    domain, model = page_that_traps("4.17", guarded=False)
    with domain:
        model.start(lambda v: v.store(PAGE - 4, 8, 1))
        request = model.take_one()
        done = threading.Event()
        with Hold(domain, 0, Point.COPY) as hold:
            model.answer(request)
            hold.wait()

            def pause() -> None:
                model.port.set_server_state(model.server, True)
                done.set()

            pauser = threading.Thread(target=pause)
            pauser.start()
            assert not done.wait(0.05)
        pauser.join(PATIENCE)
        assert done.is_set()
        assert model.take() == []


def test_a_request_is_ready_before_its_event() -> None:
    domain, model = page_that_traps("4.17", guarded=False)
    with domain:
        model.port.events.drain()
        with Hold(domain, 0, Point.POSTED) as hold:
            model.start(lambda v: v.store(PAGE, 8, 7))
            hold.wait()
            assert not model.poll()
            (request,) = model.scan()
            model.answer(request)
        # The event still comes, and finds nothing.
        assert model.take() == []
        assert domain.join(PATIENCE)
        assert domain.read_u64(PAGE) == 7


def test_an_answered_slot_is_taken_back_later() -> None:
    domain, model = page_that_traps("4.17", guarded=False)
    with domain:
        with Hold(domain, 0, Point.ANSWERED) as hold:
            model.start(lambda v: v.store(PAGE, 8, 7))
            model.answer(model.take_one())
            hold.wait()
            assert lib.xd_slot_state(model.page, 0) == lib.XD_STATE_RESP_READY
            assert model.scan(adopt=True) == []
        assert model.take() == []
        assert lib.xd_slot_state(model.page, 0) == lib.XD_STATE_NONE


def test_a_held_vcpu_of_a_destroyed_domain_is_released() -> None:
    domain, _ = page_that_traps("4.17", guarded=False)
    with domain, Hold(domain, 0, Point.FETCH) as hold:
        domain.start(0, lambda v: v.store(0, 8, 1))
        hold.wait()
        domain.destroy()
        assert domain.join(PATIENCE)


def test_a_vcpu_that_is_about_to_ask_when_its_domain_goes_does_not_wait() -> None:
    """Every waiting vCPU was woken by then, and nobody will wake this one."""
    domain, model = page_that_traps("4.17", guarded=False)
    with domain, Hold(domain, 0, Point.BETWEEN_LOOKS) as hold:
        model.start(lambda v: v.store_bytes(PAGE, VECTOR))
        model.answer(model.take_one())
        hold.wait()
        domain.destroy()
        assert domain.join(PATIENCE)


def test_two_vcpus_store_at_once_and_each_has_its_slot() -> None:
    domain, model = page_that_traps("4.17", guarded=False)
    with domain:
        domain.start(0, lambda v: v.store(PAGE, 8, 1))
        domain.start(1, lambda v: v.store(PAGE + 8, 8, 2))
        wait_until_blocked(domain, 0)
        wait_until_blocked(domain, 1)
        requests = model.scan()
        assert requests == [write(PAGE, 8, 1), write(PAGE + 8, 8, 2, vcpu=1)]
        for request in reversed(requests):
            model.answer(request)
        assert domain.join(PATIENCE)


def hammer(body: Callable[[EmbeddedDomain, DeviceModel], None]) -> None:
    domain, model = page_that_traps("4.17", guarded=False)
    with domain:
        body(domain, model)


def test_after_protecting_returns_no_store_goes_past_the_device_model() -> None:
    """Protect, then read: from then on the page changes only as the requests say. Many rounds, two vCPUs."""
    rounds = int(os.environ.get("XENGT_TEST_ROUNDS", "300"))

    def body(domain: EmbeddedDomain, model: DeviceModel) -> None:
        model.unprotect(5)

        def program(v: Vcpu) -> None:
            first = PAGE + 2048 * v.index
            value = 1
            while True:
                v.fill(first, 256, value)
                value += 1

        for index in range(2):
            domain.start(index, program)
        gfn, error, buffer = ffi.new("uint64_t[1]", [5]), ffi.new("int[1]"), ffi.new("char[4096]")
        for _ in range(rounds):
            assert model.port.set_mem_types(MemType.IOREQ_SERVER, gfn, 1, error) == 0
            ffi.memmove(buffer, ffi.cast("char *", model.base + PAGE), FRAME)
            known = bytearray(ffi.buffer(buffer, FRAME))
            for request in model.take():
                data = request.data.to_bytes(8, "little")
                known[request.addr - PAGE : request.addr - PAGE + 8] = data
                assert domain.read(request.addr, 8) != data or request.data == 0 or known
                model.answer(request)
            wait_until_blocked(domain, 0)
            wait_until_blocked(domain, 1)
            # Both vCPUs stand at a trapped store that nobody has served: the page is what we know.
            assert domain.read(PAGE, FRAME) == bytes(known)
            assert model.port.set_mem_types(MemType.RAM_RW, gfn, 1, error) == 0
            for request in model.scan():
                model.answer(request)
        domain.destroy()
        assert domain.join(PATIENCE)
        assert domain.dropped_stores == 0

    hammer(body)
