"""Faults on demand: what can go wrong around a device model, at the moment that a test chooses."""

from __future__ import annotations

import enum
import errno as errno_module
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from xengt_dm._embedded import lib
from xengt_dm.hypervisor.embedded.domain import EmbeddedDomain


class Point(enum.IntEnum):
    """Where a vCPU can be held."""

    #: Before an instruction looks at memory.
    FETCH = lib.XD_POINT_FETCH
    #: Before the emulator looks at a type without the lock that the hardware's look was made under.
    BETWEEN_LOOKS = lib.XD_POINT_BETWEEN_LOOKS
    #: The emulator has looked, without that lock, and is about to write to RAM itself.
    COPY = lib.XD_POINT_COPY
    #: The slot is READY, the event not yet raised.
    POSTED = lib.XD_POINT_POSTED
    #: RESP_READY was seen, the slot is not yet NONE.
    ANSWERED = lib.XD_POINT_ANSWERED


class Call(enum.IntFlag):
    """Kinds of hypercalls."""

    CREATE = 1 << lib.XD_CALL_CREATE
    DESTROY = 1 << lib.XD_CALL_DESTROY
    STATE = 1 << lib.XD_CALL_STATE
    MAP_RANGE = 1 << lib.XD_CALL_MAP_RANGE
    UNMAP_RANGE = 1 << lib.XD_CALL_UNMAP_RANGE
    SET_MEM_TYPE = 1 << lib.XD_CALL_SET_MEM_TYPE
    MAP_MEM_TYPE = 1 << lib.XD_CALL_MAP_MEM_TYPE
    MAP_SLOTS = 1 << lib.XD_CALL_MAP_SLOTS
    MAP_FRAMES = 1 << lib.XD_CALL_MAP_FRAMES
    BIND = 1 << lib.XD_CALL_BIND
    UNBIND = 1 << lib.XD_CALL_UNBIND
    NOTIFY = 1 << lib.XD_CALL_NOTIFY
    OTHER = 1 << lib.XD_CALL_OTHER


#: All but the notify of each answer, of which there are too many to try each.
USUAL_CALLS = ~Call.NOTIFY & Call((1 << lib.XD_CALL_KINDS) - 1)


def fail_nth(domain: EmbeddedDomain, n: int, errno: int, calls: Call = USUAL_CALLS) -> None:
    """The ``n``-th hypercall of the kinds ``calls`` from now on, counted from 1, fails with ``errno``, once.

    A frame of set_mem_types is a hypercall each. ESRCH takes the domain away with it.
    """
    lib.xd_emb_fail(domain.handle, int(calls), n, errno)


def lose_domain_at(domain: EmbeddedDomain, n: int, calls: Call = USUAL_CALLS) -> None:
    """The domain is destroyed just before the ``n``-th hypercall."""
    fail_nth(domain, n, errno_module.ESRCH, calls)


@contextmanager
def counting(domain: EmbeddedDomain, calls: Call = USUAL_CALLS) -> Iterator[list[int]]:
    """Count hypercalls; the list has their number once the context is left."""
    counted: list[int] = []
    lib.xd_emb_fail(domain.handle, int(calls), 0, 0)
    try:
        yield counted
    finally:
        counted.append(int(lib.xd_emb_fail(domain.handle, 0, 0, 0)))


def vanish(domain: EmbeddedDomain, address: int, frames: int) -> None:
    """Pages of the device model's mapping are gone, as when the guest gave them back: touching them is SIGBUS."""
    if lib.xd_emb_vanish(domain.handle, address, frames):
        raise ValueError(f"nothing is mapped at {address:#x}")


class Hold:
    """Stop vCPU ``vcpu`` when it next comes to ``point``, and release it on leaving the context."""

    def __init__(self, domain: EmbeddedDomain, vcpu: int, point: Point) -> None:
        self._domain = domain
        self._vcpu = vcpu
        self._point = point

    def __enter__(self) -> Self:
        if lib.xd_emb_hold(self._domain.handle, self._vcpu, self._point):
            raise ValueError(f"no vCPU {self._vcpu}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def wait(self, seconds: float = 10) -> None:
        """Until the vCPU is there. TimeoutError after ``seconds``."""
        wait_for_phase(self._domain, self._vcpu, lib.XD_PHASE_HELD, seconds)

    def release(self) -> None:
        lib.xd_emb_unhold(self._domain.handle, self._vcpu)


def wait_until_blocked(domain: EmbeddedDomain, vcpu: int, seconds: float = 10) -> None:
    """Until the vCPU waits for an answer. TimeoutError after ``seconds``."""
    wait_for_phase(domain, vcpu, lib.XD_PHASE_BLOCKED, seconds)


def wait_until_retrying(domain: EmbeddedDomain, vcpu: int, seconds: float = 10) -> None:
    """Until the vCPU starts an instruction again and again because nobody owns the page's type."""
    wait_for_phase(domain, vcpu, lib.XD_PHASE_RETRYING, seconds)


def wait_until_out(domain: EmbeddedDomain, vcpu: int, seconds: float = 10) -> None:
    """Until the vCPU stands still: paused, or between operations."""
    wait_for_phase(domain, vcpu, lib.XD_PHASE_OUT, seconds)


def wait_for_phase(domain: EmbeddedDomain, vcpu: int, phase: int, seconds: float) -> None:
    rc = lib.xd_emb_wait_phase(domain.handle, vcpu, phase, seconds)
    if rc == -errno_module.ETIMEDOUT:
        raise TimeoutError(f"vCPU {vcpu} of domain {domain.domid} did not come to phase {phase}")
    if rc:
        raise OSError(-rc, f"vCPU {vcpu} of domain {domain.domid}")
