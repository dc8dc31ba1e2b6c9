"""The embedded hypervisor as a side of the table."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any, Self

from xengt_dm._embedded import ffi, lib
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort, Vcpu
from xengt_dm.hypervisor.embedded.errors import GuestFaultError, VcpuStoppedError
from xengt_dm.hypervisor.embedded.p2m import P2mType, reported
from xengt_dm.hypervisor.port import DomainPort

from .language import VCPUS, Op
from .side import Outcome

_RAM_FRAMES = 512
_PATIENCE = 20.0
_STATES = {
    **{p2m_type.name.lower(): p2m_type for p2m_type in P2mType},
    "hole": P2mType.MMIO_DM,
}


class EmbeddedSide:
    """See side.py. Use as a context."""

    def __init__(self, flavour: str, paging: str = "hap") -> None:
        self.domain = EmbeddedDomain(_RAM_FRAMES, VCPUS, flavour=flavour, local_apics=False, paging=paging)
        self.done_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._next_frame = 8
        self._outcomes: dict[int, Outcome] = {}
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self.domain.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.domain.__exit__(None, None, None)
        os.close(self.done_fd)

    def open(self) -> EmbeddedPort:
        return self.domain.port()

    def give_back(self, port: DomainPort) -> None:
        port.close()

    def frames(self, count: int) -> int:
        first = self._next_frame
        self._next_frame += count
        assert self._next_frame <= _RAM_FRAMES
        return first

    def put(self, gfn: int, state: str, do: Callable[[Op], None]) -> int:
        if state == "hole":
            do(Op("remove", addr=gfn))
        else:
            self.domain.set_type(gfn, 1, _STATES[state])
        return gfn

    def reported(self, gfn: int) -> int:
        return int(reported(self.domain.type_of(gfn), self.domain.flavour.claim))

    def claim(self, port: Any, server: int, mem_type: int, flags: int) -> int:
        return -int(lib.xd_emb_claim(self.domain.handle, server, mem_type, flags))

    def log_dirty(self, on: bool) -> int:
        return 0 if self.domain.log_dirty(on) else errno.EBUSY

    def pause(self) -> None:
        self.domain.pause()

    def unpause(self) -> None:
        self.domain.unpause()

    def shutdown(self) -> None:
        self.domain.shutdown()

    def destroy(self) -> None:
        self.domain.destroy()

    def condition(self, expected: str) -> str:
        if expected == "crashed":
            with contextlib.suppress(VcpuStoppedError):
                self.domain.join(_PATIENCE)
        if self.domain.crash_reason:
            return "crashed"
        if lib.xd_emb_stopped(self.domain.handle, ffi.NULL) == errno.ESRCH:
            return "gone"
        return "shut down" if self.domain.is_shut_down else "running"

    def start(self, vcpu: int, op: Op) -> None:
        self._outcomes.pop(vcpu, None)

        def run(cpu: Vcpu) -> None:
            try:
                self._outcomes[vcpu] = Outcome(_execute(cpu, op))
            except GuestFaultError:
                self._outcomes[vcpu] = Outcome(fault=True)
            except VcpuStoppedError:
                return
            except BaseException as error:
                self._failure = error
                raise
            finally:
                os.eventfd_write(self.done_fd, 1)

        self.domain.start(vcpu, run)

    def take_done(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.done_fd)

    def outcome(self, vcpu: int) -> Outcome | None:
        if self._failure:
            raise self._failure
        return self._outcomes.get(vcpu)

    def settle(self, vcpu: int, phase: str) -> bool:
        wanted = {"waits": lib.XD_PHASE_BLOCKED, "retries": lib.XD_PHASE_RETRYING, "stands": lib.XD_PHASE_OUT}[phase]
        rc = lib.xd_emb_wait_phase(self.domain.handle, vcpu, wanted, _PATIENCE)
        return rc == 0 and self.outcome(vcpu) is None


def _execute(cpu: Vcpu, op: Op) -> int:
    match op.kind:
        case "store" if op.size > 8:
            cpu.store_bytes(op.addr, op.value.to_bytes(op.size, "little"))
        case "store":
            cpu.store(op.addr, op.size, op.value)
        case "load":
            return cpu.load(op.addr, op.size)
        case "stos":
            cpu.rep_stos(op.addr, op.size, op.count, op.value, op.down)
        case "movs":
            cpu.rep_movs(op.addr, op.data, op.size, op.count, op.down)
        case "xchg":
            return cpu.xchg(op.addr, op.size, op.value)
        case "cmpxchg":
            return cpu.cmpxchg(op.addr, op.size, op.data, op.value)[0]
        case "locked" | "plain":
            cpu.modify(op.data, op.addr, op.size, op.value)
        case "out":
            cpu.outp(op.addr, op.size, op.value)
        case "in":
            return cpu.inp(op.addr, op.size)
        case "outs":
            cpu.rep_outs(op.addr, op.data, op.size, op.count, op.down)
        case "ins":
            cpu.rep_ins(op.addr, op.data, op.size, op.count, op.down)
        case "remove":
            cpu.remove(op.addr, op.count)
        case "add":
            cpu.add(op.addr, op.count)
        case "hypercall":
            return cpu.hypercall_output(op.addr, bytes(op.size))
        case _:
            raise AssertionError(op)
    return 0
