"""Turns: vCPUs and the serving side run one at a time, in an order that a seed decides.

Whoever has its turn runs to the next named point (:class:`~tests.support.faults.Point`), or, on the
serving side, to the next call of the port, and the seed says whose turn is next. So every order in which stores,
answers and hypercalls can interleave has a seed that makes it happen, each time it is tried.

    schedule = Schedule(domain, seed)
    port = ScheduledPort(domain, schedule)
    ...
    schedule.start({0: stores, 1: other_stores})
    while schedule.turn():
        serve(...)
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from tests.support.faults import Point, wait_for_phase
from xengt_dm._core import ffi as core_ffi
from xengt_dm._embedded import ffi, lib
from xengt_dm.hypervisor.embedded.domain import EmbeddedDomain
from xengt_dm.hypervisor.embedded.port import EmbeddedEventPort, EmbeddedPort
from xengt_dm.hypervisor.embedded.vcpu import Vcpu
from xengt_dm.hypervisor.port import ChannelCalls, MemType
from xengt_dm.units import CData

#: A store: gpa and data, 1 to 64 bytes.
Store = tuple[int, bytes]


class Out(NamedTuple):
    """An ``out`` of 1, 2 or 4 bytes to a port."""

    port: int
    size: int
    value: int


#: One that runs longer than this between two points hangs.
PATIENCE: Final = 20.0
#: Points that a vCPU leaves before a pause of the domain can end: it is inside Xen there.
_INSIDE: Final = frozenset({Point.BETWEEN_LOOKS, Point.COPY, Point.POSTED, Point.ANSWERED})


class Schedule:
    """Who runs when. Made by the thread that serves; only it calls anything here."""

    def __init__(self, domain: EmbeddedDomain, seed: int) -> None:
        self.seed = seed
        self._domain = domain
        self._random = random.Random(seed)
        self._running: dict[int, threading.Event] = {}
        #: Whose turns there were, a word each: what two runs of one seed have in common.
        self.turns: list[str] = []

    def start(self, programs: Mapping[int, Iterable[Store | Out]]) -> None:
        """Have each of these vCPUs stand before the first of its instructions."""
        for index, stores in programs.items():
            finished = self._running[index] = threading.Event()
            lib.xd_emb_step(self._domain.handle, index)
            self._domain.start(index, _program(list(stores), finished))
        for index in programs:
            wait_for_phase(self._domain, index, lib.XD_PHASE_HELD, PATIENCE)

    def point(self, pauses: bool = False) -> None:
        """The serving side may be interrupted here. ``pauses``: what it does next waits for vCPUs inside Xen."""
        while (choice := self._choose()) is not None:
            self._step(choice)
        for index in sorted(self._running) if pauses else ():
            while (place := self._still(index)) is not None and place in _INSIDE:
                self._step(index)

    def turn(self) -> bool:
        """Between two things that the serving side does. False when all vCPUs have finished."""
        self.point()
        return bool(self._running)

    def finish(self) -> None:
        """Let vCPUs run to their ends, with nobody serving. TimeoutError if one waits for an answer."""
        while steppable := self._steppable():
            self._step(self._random.choice(steppable))
        if self._running:
            raise TimeoutError(f"vCPUs {sorted(self._running)} wait for ever (seed {self.seed})")

    def rest(self) -> None:
        """Until every vCPU that something woke has come to a point."""
        for index in list(self._running):
            self._still(index)

    def _choose(self) -> int | None:
        """A vCPU, or None for the serving side."""
        choice = self._random.choice([*self._steppable(), None])
        self.turns.append("serve" if choice is None else f"vcpu{choice}")
        return choice

    def _steppable(self) -> list[int]:
        return [index for index in sorted(self._running) if self._still(index) is not None]

    def _step(self, index: int) -> None:
        lib.xd_emb_step(self._domain.handle, index)
        self._still(index)

    def _still(self, index: int) -> Point | None:
        """Wait until a vCPU stands still: the point where it is held, or None if it waits, or has finished."""
        if index not in self._running:
            return None
        place = lib.xd_emb_wait_still(self._domain.handle, index, PATIENCE)
        if place < 0:
            raise TimeoutError(f"vCPU {index} runs on (seed {self.seed}): errno {-place}")
        if place == lib.XD_PHASE_OUT:
            if not self._running[index].wait(PATIENCE):
                raise TimeoutError(f"vCPU {index} does not finish (seed {self.seed})")
            del self._running[index]
        return Point(place >> 8) if place & 0xFF == lib.XD_PHASE_HELD else None


def _program(instructions: list[Store | Out], finished: threading.Event):  # type: ignore[no-untyped-def]
    """One batch, so that the vCPU never stands still but where a schedule knows of it."""
    buffers, operations = [], []
    for each in instructions:
        if isinstance(each, Out):
            operations.append({"kind": lib.XD_OP_OUT, "gpa": each.port, "size": each.size, "value": each.value})
            continue
        gpa, data = each
        buffers.append(buffer := ffi.from_buffer(data))
        address = int(ffi.cast("uintptr_t", buffer))
        operations.append({"kind": lib.XD_OP_STORE, "gpa": gpa, "bytes": address, "size": len(data)})

    def program(vcpu: Vcpu) -> None:
        try:
            vcpu.run(ffi.new("xd_emb_op[]", operations), len(operations))
        finally:
            buffers.clear()
            finished.set()

    return program


class _ScheduledEvents(EmbeddedEventPort):
    """Channels at each of whose calls, from Python and from a burst, a vCPU may come first."""

    def __init__(self, domain: EmbeddedDomain, schedule: Schedule) -> None:
        super().__init__(domain)
        self._schedule = schedule
        self._callbacks = (
            core_ffi.callback("int(void *)", self._take, error=-errno.EIO),
            core_ffi.callback("int(void *)", self._unmask, error=-errno.EIO),
            core_ffi.callback("int(void *, uint32_t)", self._notify, error=-errno.EIO),
        )

    @property
    def calls(self) -> ChannelCalls:
        return ChannelCalls(0, *(int(core_ffi.cast("uintptr_t", each)) for each in self._callbacks))

    def notify(self, port: int) -> None:
        self._schedule.point()
        super().notify(port)
        self._schedule.rest()

    def drain(self) -> int:
        self._schedule.point()
        return super().drain()

    def _take(self, _: CData) -> int:
        self._schedule.point()
        return int(lib.xd_emb_channels_take(self.handle))

    def _unmask(self, _: CData) -> int:
        self._schedule.point()
        return int(lib.xd_emb_channels_unmask(self.handle))

    def _notify(self, _: CData, port: int) -> int:
        self._schedule.point()
        result = int(lib.xd_emb_channels_notify(self.handle, port))
        self._schedule.rest()
        return result


class ScheduledPort(EmbeddedPort):
    """A port at each of whose calls a vCPU may come first. Frames change their types one by one, as on Xen."""

    def __init__(self, domain: EmbeddedDomain, schedule: Schedule) -> None:
        super().__init__(domain)
        self._schedule = schedule
        self._events.close()
        self._events = _ScheduledEvents(domain, schedule)

    def set_server_state(self, server: int, enabled: bool) -> None:
        self._schedule.point(pauses=True)
        super().set_server_state(server, enabled)
        self._schedule.rest()

    def destroy_server(self, server: int) -> None:
        self._schedule.point(pauses=True)
        super().destroy_server(server)
        self._schedule.rest()

    def map_mmio(self, server: int, first: int, last: int) -> None:
        self._schedule.point()
        super().map_mmio(server, first, last)

    def unmap_mmio(self, server: int, first: int, last: int) -> None:
        self._schedule.point()
        super().unmap_mmio(server, first, last)

    def release_writes(self, server: int) -> None:
        self._schedule.point()
        super().release_writes(server)
        self._schedule.rest()

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        failed = 0
        for i in range(count):
            self._schedule.point()
            failed += super().set_mem_types(mem_type, gfns + i, 1, errors + i)
            self._schedule.rest()
        return failed

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        self._schedule.point()
        return super().map_frames(first_gfn, count, errors, address)
