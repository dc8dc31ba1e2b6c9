"""The console of a sim: what its guest does, and what a toolstack would do to the domain, for tests.

A message is a JSON object: ``do`` is the name of a method of :class:`Console` that is in :data:`ACTIONS`, and the other
members are its arguments. The answer has ``result``; or ``error``, one of ``bad`` (the request is wrong), ``fault``
(the guest's instruction faulted) and ``stopped`` (the vCPU runs no more), with ``text``. Each connection has its own
thread, and an action ends before its answer is sent. So a test opens two connections to run two vCPUs at once.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from xengt_dm._embedded import ffi, lib
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.embedded.errors import GuestFaultError, VcpuStoppedError
from xengt_dm.hypervisor.embedded.p2m import P2mType, reported
from xengt_dm.sim.programs import Guest

#: Instructions: those whose last argument is bytes, in hexadecimal digits, and the others.
_WITH_BYTES: Final = frozenset({"store_bytes", "copy", "hypercall_output"})
_INSTRUCTIONS: Final = _WITH_BYTES | {
    "add", "cmpxchg", "fill", "inp", "load", "modify", "outp", "pci_read", "pci_write", "remove", "rep_ins",
    "rep_movs", "rep_outs", "rep_stos", "store", "xchg",
}  # fmt: skip


class Console:
    """The session of one connection. Arguments are numbers and texts; frames are gfn, addresses gpa."""

    def __init__(self, domain: EmbeddedDomain, guest: Guest, reap: Callable[[], None]) -> None:
        self._domain = domain
        self._guest = guest
        self._reap = reap

    def handle(self, message: bytes) -> tuple[bytes, Sequence[int]]:
        """Do what a message says; returns the answer, and no descriptors."""
        return json.dumps(self._answer(message)).encode(), ()

    def close(self) -> None:
        """Does nothing: a session of the console owns nothing."""

    def _answer(self, message: bytes) -> dict[str, Any]:
        try:
            request = json.loads(message)
            action = ACTIONS[request.pop("do")]
            return {"result": action(self, **request)}
        except GuestFaultError as error:
            return {"error": "fault", "text": str(error)}
        except VcpuStoppedError as error:
            return {"error": "stopped", "text": str(error)}
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            return {"error": "bad", "text": f"{type(error).__name__}: {error}"}

    def run(self, vcpu: int, op: str, args: list[Any]) -> Any:
        """Execute an instruction, a method of Vcpu, on a vCPU of the guest ``scripted``; returns its result."""
        if not self._guest.scripted:
            raise ValueError("the vCPUs have a program of their own; start the sim with --guest scripted")
        if op not in _INSTRUCTIONS or not 0 <= vcpu < self._domain.vcpu_count:
            raise ValueError(f"no vCPU {vcpu}, or no instruction {op!r}")
        if op in _WITH_BYTES:
            args = [*args[:-1], bytes.fromhex(args[-1])]
        # Not the domain's own Vcpu, which another connection's thread may be using.
        return getattr(Vcpu(self._domain, vcpu), op)(*args)

    def progress(self) -> dict[str, int | str | None]:
        """Returns what the guest has done; see :meth:`.programs.Guest.progress`."""
        return self._guest.progress()

    def wait_for_rounds(self, rounds: int) -> dict[str, int | str | None]:
        """Waits until every vCPU has done so many rounds, or does no more. Returns the progress."""
        self._guest.wait_for_rounds(rounds)
        return self._guest.progress()

    def read(self, gpa: int, size: int) -> str:
        """Guest memory, at most 64 KiB."""
        return self._domain.read(gpa, min(size, 1 << 16)).hex()

    def write(self, gpa: int, data: str) -> None:
        """Guest memory, as DMA writes it."""
        self._domain.write(gpa, bytes.fromhex(data))

    def type_of(self, gfn: int) -> int:
        """Returns the p2m type of a frame, a P2mType."""
        return int(self._domain.type_of(gfn))

    def reported_type_of(self, gfn: int) -> int:
        """hvmmem_type_t, as HVMOP_get_mem_type reports it."""
        return int(reported(self._domain.type_of(gfn), self._domain.flavour.claim))

    def set_type(self, gfn: int, count: int, p2m_type: int) -> None:
        """Sets the p2m type of ``count`` frames from ``gfn`` on. ``p2m_type`` is a P2mType."""
        self._domain.set_type(gfn, count, P2mType(p2m_type))

    def state(self) -> dict[str, Any]:
        """Returns the state of the domain, after everything of device models that have ended was released."""
        self._reap()
        domain = self._domain
        return {
            "counters": domain.counters,
            "crash_reason": domain.crash_reason,
            "destroyed": lib.xd_emb_stopped(domain.handle, ffi.NULL) == errno.ESRCH,
            "device_models": len(domain.ports),
            "entries": domain.entries,
            "msis": [list(msi) for msi in domain.msis],
            "owner": domain.owner,
            "protected": domain.protected(),
            "shut_down": domain.is_shut_down,
            "stale_frames": int(lib.xd_emb_frames_stale(domain.handle)),
        }

    def log_dirty(self, on: bool) -> bool:
        """Turns log-dirty mode on or off. Returns False if Xen refuses it (EBUSY)."""
        return self._domain.log_dirty(on)

    def pause(self) -> None:
        """Pauses the domain, as a toolstack does."""
        self._domain.pause()

    def unpause(self) -> None:
        """Undoes one :meth:`pause`."""
        self._domain.unpause()

    def shutdown(self) -> None:
        """Shuts the domain down in order, as its guest does."""
        self._domain.shutdown()

    def destroy(self) -> None:
        """Destroys the domain, as a toolstack does."""
        self._domain.destroy()

    def set_default_server(self, server: int) -> None:
        """Makes an ioreq server the default one. Raises ValueError if the flavour has none."""
        self._domain.set_default_server(server)

    def wait_phase(self, vcpu: int, phase: int, seconds: float) -> int:
        """Returns 0, or an errno: xd_emb_wait_phase."""
        return -int(lib.xd_emb_wait_phase(self._domain.handle, vcpu, phase, seconds))

    def hold(self, vcpu: int, point: int) -> int:
        """Returns 0, or an errno: xd_emb_hold."""
        return -int(lib.xd_emb_hold(self._domain.handle, vcpu, point))

    def unhold(self, vcpu: int) -> int:
        """Lets a vCPU go on that is held at a point. Returns 0, or an errno: xd_emb_unhold."""
        return -int(lib.xd_emb_unhold(self._domain.handle, vcpu))

    def fail(self, mask: int, nth: int, error: int) -> int:
        """Has the ``nth`` hypercall of the kinds in ``mask`` fail with ``error``. Returns what xd_emb_fail does."""
        return int(lib.xd_emb_fail(self._domain.handle, mask, nth, error))


ACTIONS: Final[dict[str, Callable[..., Any]]] = {
    name: method
    for name, method in vars(Console).items()
    if not name.startswith("_") and name not in ("handle", "close")
}
