"""The embedded hypervisor in a process of its own as a side of the table; the device model is this process."""

from __future__ import annotations

import contextlib
import errno
import select
from pathlib import Path
from typing import Any, Self, cast

from tests.support.sim import Console, ConsoleError, SimProcess
from xengt_dm._embedded import lib
from xengt_dm.errors import CallError
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.hypervisor.sim.port import SimPort

from .embedded import _PATIENCE, _STATES
from .language import VCPUS, Op
from .side import Outcome

#: Enough for every case of a flavour, one after the other.
_RAM_FRAMES = 8192


class SimSide:
    """See side.py. Use as a context. Many cases can use one side, one after the other."""

    def __init__(self, directory: Path, flavour: str, paging: str = "hap") -> None:
        options = ("--guest", "scripted", "--frames", str(_RAM_FRAMES), "--vcpus", str(VCPUS), "--no-apics")
        self._sim = SimProcess(directory, *options, "--xen", flavour, "--paging", paging)
        self._stack = contextlib.ExitStack()
        self._next_frame = 8
        self._outcomes: dict[int, Outcome] = {}
        #: vCPUs that were told something and have not said how it ended.
        self._running: set[int] = set()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._sim)
        self._toolstack = self._stack.enter_context(self._sim.console())
        self._vcpus = [self._stack.enter_context(self._sim.console()) for _ in range(VCPUS)]
        self._done = self._stack.enter_context(contextlib.closing(select.epoll()))
        for vcpu in self._vcpus:
            self._done.register(vcpu.socket, select.EPOLLIN)
        self.done_fd = self._done.fileno()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def open(self) -> SimPort:
        return self._sim.port()

    def give_back(self, port: DomainPort) -> None:
        port.close()

    def frames(self, count: int) -> int:
        first = self._next_frame
        self._next_frame += count
        assert self._next_frame <= _RAM_FRAMES
        return first

    def put(self, gfn: int, state: str, do: Any) -> int:
        if state == "hole":
            do(Op("remove", addr=gfn))
        else:
            self._toolstack.ask("set_type", gfn=gfn, count=1, p2m_type=_STATES[state])
        return gfn

    def reported(self, gfn: int) -> int:
        return int(self._toolstack.ask("reported_type_of", gfn=gfn))

    def claim(self, port: DomainPort, server: int, mem_type: int, flags: int) -> int:
        try:
            cast(SimPort, port).map_mem_type(server, mem_type, flags)
        except CallError as error:
            return error.errno
        return 0

    def log_dirty(self, on: bool) -> int:
        return 0 if self._toolstack.ask("log_dirty", on=on) else errno.EBUSY

    def pause(self) -> None:
        self._toolstack.ask("pause")

    def unpause(self) -> None:
        self._toolstack.ask("unpause")

    def shutdown(self) -> None:
        self._toolstack.ask("shutdown")

    def destroy(self) -> None:
        self._toolstack.ask("destroy")

    def condition(self, expected: str) -> str:
        if expected == "crashed":
            while self._running and self._done.poll(_PATIENCE):
                self.take_done()
        state = self._toolstack.state()
        if state["crash_reason"]:
            return "crashed"
        if state["destroyed"]:
            return "gone"
        return "shut down" if state["shut_down"] else "running"

    def start(self, vcpu: int, op: Op) -> None:
        self._outcomes.pop(vcpu, None)
        self._running.add(vcpu)
        name, *args = _words(op)
        self._vcpus[vcpu].begin(vcpu, name, *args)

    def take_done(self) -> None:
        for fd, _ in self._done.poll(0):
            vcpu = next(i for i, console in enumerate(self._vcpus) if console.socket.fileno() == fd)
            self._running.discard(vcpu)
            outcome = _outcome(self._vcpus[vcpu])
            if outcome is not None:
                self._outcomes[vcpu] = outcome

    def outcome(self, vcpu: int) -> Outcome | None:
        self.take_done()
        return self._outcomes.get(vcpu)

    def settle(self, vcpu: int, phase: str) -> bool:
        wanted = {"waits": lib.XD_PHASE_BLOCKED, "retries": lib.XD_PHASE_RETRYING, "stands": lib.XD_PHASE_OUT}[phase]
        error = self._toolstack.ask("wait_phase", vcpu=vcpu, phase=wanted, seconds=_PATIENCE)
        return error == 0 and self.outcome(vcpu) is None


def _outcome(console: Console) -> Outcome | None:
    """How an operation ended; None if its vCPU was stopped."""
    try:
        result = console.receive()
    except ConsoleError as error:
        if error.kind == "bad":
            raise
        return Outcome(fault=True) if error.kind == "fault" else None
    return Outcome(result[0] if isinstance(result, list) else result or 0)


def _words(op: Op) -> tuple[Any, ...]:
    """The instruction and its arguments, as the console takes them."""
    match op.kind:
        case "store" if op.size > 8:
            return "store_bytes", op.addr, op.value.to_bytes(op.size, "little").hex()
        case "store":
            return "store", op.addr, op.size, op.value
        case "load":
            return "load", op.addr, op.size
        case "stos":
            return "rep_stos", op.addr, op.size, op.count, op.value, op.down
        case "movs":
            return "rep_movs", op.addr, op.data, op.size, op.count, op.down
        case "xchg":
            return "xchg", op.addr, op.size, op.value
        case "cmpxchg":
            return "cmpxchg", op.addr, op.size, op.data, op.value
        case "locked" | "plain":
            return "modify", op.data, op.addr, op.size, op.value
        case "out":
            return "outp", op.addr, op.size, op.value
        case "in":
            return "inp", op.addr, op.size
        case "outs":
            return "rep_outs", op.addr, op.data, op.size, op.count, op.down
        case "ins":
            return "rep_ins", op.addr, op.data, op.size, op.count, op.down
        case "remove" | "add":
            return op.kind, op.addr, op.count
        case "hypercall":
            return "hypercall_output", op.addr, bytes(op.size).hex()
        case _:
            raise AssertionError(op)
