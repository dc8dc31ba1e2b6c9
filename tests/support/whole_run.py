"""The whole life of a device model in a few hundred hypercalls, always the same ones in the same order.

A run is a list of steps: some the guest's, executed on a vCPU while the device model serves; some the device model's
own, between them. The guest goes on with its steps when the device model is gone, as a guest would, and in the end its
memory must be what it stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tests.support.engine_bench import audit, mappings
from tests.support.machine import Steps, announce
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm._embedded import lib
from xengt_dm.errors import CallError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort, Vcpu
from xengt_dm.hypervisor.embedded.port import EmbeddedEventPort
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import Settings
from xengt_dm.steps import complete, finish
from xengt_dm.units import CData
from xengt_dm.vgpu import registers as reg

#: Two chunks of frames, so that there is more than one mapping.
FRAMES = 1024

ROOT, POINTERS, DIRECTORY, LEAF, SHARED, FAR = 16, 17, 18, 20, 21, 600
OTHER_ROOT, OTHER_POINTERS, OTHER_DIRECTORY = 40, 42, 44
DATA = 100
TABLES = (ROOT, POINTERS, DIRECTORY, LEAF, SHARED, FAR, OTHER_ROOT, OTHER_POINTERS, OTHER_DIRECTORY)


class TrackedEvents(EmbeddedEventPort):
    """Event channels that know which are bound."""

    def __init__(self, domain: EmbeddedDomain) -> None:
        super().__init__(domain)
        self.bound: set[int] = set()

    def bind(self, remote_port: int) -> int:
        local = super().bind(remote_port)
        self.bound.add(local)
        return local

    def unbind(self, port: int) -> None:
        super().unbind(port)
        self.bound.remove(port)


class TrackedPort(EmbeddedPort):
    """A port that knows what it has mapped."""

    def __init__(self, domain: EmbeddedDomain) -> None:
        super().__init__(domain)
        self._events.close()
        self._events = self.tracked = TrackedEvents(domain)
        self.mapped: dict[int, int] = {}

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        got = super().map_frames(first_gfn, count, errors, address)
        assert self.mapped.get(got, count) == count
        self.mapped[got] = count
        return got

    def unmap_frames(self, address: int, count: int) -> None:
        assert self.mapped.pop(address) == count
        super().unmap_frames(address, count)

    def left(self) -> dict[str, object]:
        """What this device model still has; all of it empty if it has unwound."""
        domain = self._domain
        return {
            "protected": domain.protected(),
            "owner": [] if domain.owner is None else [domain.owner],
            "servers": [n for n in range(8) if lib.xd_emb_server_exists(domain.handle, n)],
            "slots": [*self._slots],
            "mappings": self.mapped,
            "channels": sorted(self.tracked.bound),
        }


@dataclass
class Guest:
    """The guest's side, with what its memory should be."""

    domain: EmbeddedDomain
    memory: dict[int, bytearray] = field(default_factory=dict)
    misread: set[int] = field(default_factory=set)

    def store(self, gpa: int, data: bytes, vcpu: int = 0) -> None:
        for i, byte in enumerate(data):
            gfn, offset = divmod(gpa + i, FRAME)
            self.memory.setdefault(gfn, bytearray(FRAME))[offset] = byte
        cpu = self.domain.vcpu(vcpu)
        if len(data) in (1, 2, 4, 8):
            cpu.store(gpa, len(data), int.from_bytes(data, "little"))
        else:
            cpu.store_bytes(gpa, data)

    def entry(self, gfn: int, slot: int, value: int, vcpu: int = 0) -> None:
        self.store(gfn * FRAME + 8 * slot, value.to_bytes(8, "little"), vcpu)

    def link(self, gfn: int, slot: int, child: int) -> None:
        self.entry(gfn, slot, pte(child))

    def exchange(self, gfn: int, slot: int, value: int) -> None:
        held = self.memory.setdefault(gfn, bytearray(FRAME))
        old = int.from_bytes(held[8 * slot : 8 * slot + 8], "little")
        held[8 * slot : 8 * slot + 8] = value.to_bytes(8, "little")
        if self.domain.vcpu(0).xchg(gfn * FRAME + 8 * slot, 8, value) != old:
            self.misread.add(gfn)

    def notify(self, root: int, what: reg.Notification) -> None:
        announce(self.domain.vcpu(0), root, what)

    def remove(self, gfn: int) -> None:
        self.domain.vcpu(0).remove(gfn, 1)
        self.memory.pop(gfn, None)

    def add(self, gfn: int) -> None:
        self.domain.vcpu(0).add(gfn, 1)

    def wrong(self) -> list[int]:
        """Frames that do not hold what the guest stored, or did not when it read them."""
        unlike = {gfn for gfn, held in self.memory.items() if self.domain.read(gfn * FRAME, FRAME) != bytes(held)}
        return sorted(unlike | self.misread)


GuestStep = Callable[[Guest], None]
HostStep = Callable[[Instance], None]


def _build(guest: Guest) -> None:
    guest.link(ROOT, 0, POINTERS)
    guest.link(POINTERS, 0, DIRECTORY)
    for slot, leaf in enumerate((LEAF, SHARED)):
        guest.link(DIRECTORY, slot, leaf)
        guest.entry(leaf, 0, pte(DATA + slot))
    guest.link(OTHER_ROOT, 0, OTHER_POINTERS)
    guest.link(OTHER_POINTERS, 5, OTHER_DIRECTORY)
    guest.link(OTHER_DIRECTORY, 511, SHARED)
    guest.notify(ROOT, reg.Notification.PPGTT_L4_CREATE)


def _change(guest: Guest) -> None:
    guest.entry(LEAF, 1, pte(DATA + 2))
    guest.store(LEAF * FRAME + 512, bytes(range(64)), vcpu=1)
    guest.link(DIRECTORY, 2, FAR)
    guest.entry(FAR, 511, pte(DATA + 3))
    guest.exchange(SHARED, 3, pte(DATA + 4))
    guest.notify(OTHER_ROOT, reg.Notification.PPGTT_L4_CREATE)
    # The end of one table and the start of the next.
    guest.store(SHARED * FRAME - 3, b"\x03\x04\x05\x06\x07\x08\x09", vcpu=1)


def _reuse(guest: Guest) -> None:
    guest.entry(LEAF, 4, pte(DATA + 5))
    guest.entry(DIRECTORY, 0, 0)
    guest.store(LEAF * FRAME, b"\x5a" * 64)
    guest.link(DIRECTORY, 0, LEAF)
    guest.remove(DATA + 3)
    guest.remove(FAR)
    guest.add(FAR)
    guest.entry(FAR, 7, pte(DATA + 6))


def _end_of_one(guest: Guest) -> None:
    guest.entry(FAR, 8, pte(DATA + 7))
    guest.entry(SHARED, 9, pte(DATA + 8), vcpu=1)
    guest.notify(OTHER_ROOT, reg.Notification.PPGTT_L4_DESTROY)
    guest.store(OTHER_ROOT * FRAME, b"\xa5" * 16)


def _in_the_middle(guest: Guest) -> None:
    """Eight requests; the device model stops at the first."""
    guest.store(LEAF * FRAME + 1024, bytes(range(64, 128)))


def _submit(instance: Instance) -> None:
    for space in instance.engine.spaces:
        finish(instance.engine.submit(Mode.L4, space.roots))


def _look(instance: Instance) -> None:
    for space in instance.engine.spaces:
        assert mappings(WholeEngine(instance.engine), space) is not None
        assert audit(WholeEngine(instance.engine), space) == (0, 0)
    complete(instance.engine.settle())
    instance.traps.unprotect_deferred()


SCRIPT: tuple[tuple[GuestStep | None, HostStep], ...] = (
    (_build, _submit),
    (_change, _submit),
    (_reuse, _look),
    (_end_of_one, _submit),
)


@dataclass
class Outcome:
    error: CallError | None
    left: dict[str, object]
    wrong: list[int]


def _run_step(guest: Guest, step: GuestStep, _vcpu: Vcpu) -> None:
    step(guest)


def _steps(guest: Guest, thread: Steps) -> Iterator[HostStep | None]:
    """The guest's steps; where one has been started, what the device model has to do after it. None: stop at once."""
    for step, after in SCRIPT:
        if step is not None:
            thread.start(partial(_run_step, guest, step))
        yield after
        thread.finish()
    thread.start(partial(_run_step, guest, _in_the_middle))
    yield None
    thread.finish()


def run(domain: EmbeddedDomain, sync: Sync, port: TrackedPort, meanwhile: HostStep = lambda instance: None) -> Outcome:
    """One life. Faults are armed by the caller, in ``domain`` or in ``port``, or by ``meanwhile``, after each step."""
    guest, error = Guest(domain), None
    thread = Steps(domain)
    steps = _steps(guest, thread)
    gone = False
    try:
        try:
            with open_instance(port, Settings(sync=sync)) as instance:
                for after in steps:
                    if after is None:
                        thread.until_it_waits()
                        break
                    thread.serve(instance)
                    thread.finish()
                    after(instance)
                    meanwhile(instance)
        except CallError as raised:
            error = raised
        except OSError:  # waiting on a vCPU of a domain that is gone
            gone = True
        left = port.left()
        for _ in steps:  # the guest goes on without a device
            pass
        return Outcome(error, left, [] if gone else guest.wrong())
    finally:
        thread.close()
